"""A mobile node's registration with one correspondent node (RFC 6275 §11.6, §11.7.2; draft §6.1.2, §6.3).

Class: `CorrespondentRegistration`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address

from testbed.mobility.binding import NO_BID
from testbed.mobility.composition import MAX_OPTIONS_LENGTH, Composition, flow_option
from testbed.mobility.correspondent_flows import CorrespondentFlows
from testbed.mobility.registration import (
    INITIAL_BINDACK_TIMEOUT,
    MAX_BINDACK_TIMEOUT,
    MAX_UPDATE_RATE,
    Registration,
)
from testbed.mobility.return_routability import (
    COOKIE_OCTETS,
    MAX_RR_BINDING_LIFETIME,
    MAX_TOKEN_LIFETIME,
    Token,
    authorised,
    binding_management_key,
    is_authorised,
)
from testbed.mobility.role import Timers
from testbed.mobility.update_list import ListedBinding, ListedFlow, Outstanding, option_length
from testbed.wire.codec import Codec
from testbed.wire.flow import FlowIdentification, Pro
from testbed.wire.message import (
    BindingAcknowledgement,
    BindingUpdate,
    CareOfTest,
    CareOfTestInit,
    HomeTest,
    HomeTestInit,
    Status,
)
from testbed.wire.option import BindingIdentifier, NonceIndices
from testbed.wire.packet import Packet

#: Unanswered attempts after which packets go through the home agent again (RFC 6275 §12).
MAX_RO_FAILURE = 3

_NONCE_EXPIRED = (
    Status.EXPIRED_HOME_NONCE_INDEX,
    Status.EXPIRED_CARE_OF_NONCE_INDEX,
    Status.EXPIRED_NONCES,
)


@dataclass(slots=True)
class _Test:
    """The test of one address: what is being waited for, what has come of it."""

    cookie: bytes | None = None
    postponed: bool = False
    timeout: float = INITIAL_BINDACK_TIMEOUT
    unanswered: int = 0
    token: Token | None = None

    def usable(self, now: float) -> Token | None:
        """The token, unless it has become too old (RFC 6275 §5.2.7)."""
        return self.token if self.token is not None and now < self.token.expires else None


class CorrespondentRegistration(Registration):
    """Brings one correspondent node's binding cache to what is wanted, after proving where the node is.

    What differs from a registration with a home agent: a Binding Update is about one care-of address, and
    goes out once the tokens of the home address and of that care-of address are there; the flow bindings
    in it are those of this care-of address (draft §6.3), beside the others that are to be kept where the
    dialect has it so (RFC 6089 §5.2.3); n-casting is not asked for. Tests are repeated with fresh cookies
    and back-off; a node that does not answer is given up, at the slowest rate.

    `send(packet)` sends; home test messages have the home address as their source. `home_lifetime(now)`:
    how long the home registration still lasts, in seconds, 0 while there is none.
    """

    def __init__(
        self,
        peer: IPv6Address,
        home_address: IPv6Address,
        timers: Timers,
        send: Callable[[Packet], bool],
        note: Callable[..., None],
        home_lifetime: Callable[[float], float],
        random: Callable[[int], bytes],
        codec: Codec,
        dialect: str = "draft",
    ) -> None:
        super().__init__(
            peer,
            home_address,
            MAX_RR_BINDING_LIFETIME,
            timers,
            self._transmit_update,
            note,
            sequence=int.from_bytes(random(2), "big"),
            dialect=dialect,
        )
        self.bulk_registration = False
        self._send_packet = send
        self._home_lifetime = home_lifetime
        self._random = random
        self._codec = codec
        self._home_test = _Test()
        self._care_of_tests: dict[IPv6Address, _Test] = {}
        self.flows = CorrespondentFlows(peer, self.bindings, self.dialect, self._note_of_peer)
        self._refresh_at: dict[int, float] = {}
        #: Messages about a BID since it was last acknowledged: one that is cut off does not hold up others.
        self._tries: dict[int, int] = {}
        #: BIDs that were refused, and are asked for again all the same.
        self._again: set[int] = set()
        self._tests_sent: dict[str, list[float]] = {"home": [], "care-of": []}
        self._unanswered = 0
        self._expired_nonces = 0
        #: Of the last Binding Update: its key, and the address that the key is good for.
        self._key: tuple[bytes, IPv6Address] | None = None
        self._now = 0.0

    def follow(self, bindings: Sequence[ListedBinding]) -> None:
        """Want these bindings; without BIDs, where the correspondent node takes none, the most preferred."""
        if not self.takes_bids:
            usable = [binding for binding in bindings if binding.care_of_address is not None]
            best = min(usable, key=lambda binding: (binding.priority or 128, binding.bid), default=None)
            bindings = [ListedBinding(NO_BID, 0, best.care_of_address)] if best else []
        if bindings and not self.bindings.keys() <= {binding.bid for binding in bindings}:
            self.start_anew()
        for binding in bindings:
            self.bind(binding.bid, binding.priority, binding.care_of_address)

    def update(self, now: float) -> None:
        """Do the tests that are needed, then send what there is to say, one care-of address at a time."""
        if self.leaving or self.left or self.is_unsupported or not self._home_lifetime(now):
            return
        for address in set(self._care_of_tests) - {b.care_of_address for b in self.bindings.values()}:
            self._stop_test(address)
        self._now = now
        bids = self._to_tell()
        for binding in bids:
            self._need(binding.care_of_address, now)
        if bids:
            self._need(None, now)
        if self._outstanding is not None and self._is_current(self._outstanding):
            return  # what changes meanwhile goes with the next one, but movement does not wait
        if self._ready(now):
            self._send(now, INITIAL_BINDACK_TIMEOUT)

    def unsupported(self, now: float) -> None:
        """Its packets go through the home agent (RFC 6275 §11.6.2)."""
        for address in list(self._care_of_tests):
            self._stop_test(address)
        self._home_test.cookie = None
        self._timers.cancel((("test", None), self.peer))
        super().unsupported(now)
        self._give_up()

    def leave(self, now: float) -> None:
        """Delete the bindings: a home test is enough for that (RFC 6275 §11.6.1)."""
        for address in list(self._care_of_tests):
            self._stop_test(address)
        self._now = now
        super().leave(now)

    def handle_timer(self, kind: str | tuple[str, IPv6Address | None], now: float) -> None:
        self._now = now
        if isinstance(kind, tuple):
            self._test_unanswered(kind[1], now)
        elif kind == "retransmit" and self._outstanding is not None:
            self._unanswered += 1
            if self._unanswered == MAX_RO_FAILURE:
                # it may have forgotten its nonces, then it is silent: prove everything again
                self._give_up()
                self._forget_tokens(home=True, care_of=True)
            if self._unanswered >= MAX_RO_FAILURE and self.leaving:
                self._gone()
            else:
                super().handle_timer(kind, now)
        elif kind == "refresh":
            due = [bid for bid, when in self._refresh_at.items() if when <= now]
            self._ask_again()
            self.refresh(now, due or self.bindings)
        else:
            super().handle_timer(kind, now)

    def _send(self, now: float, timeout: float) -> None:
        """As for a home agent, but nothing goes without the tokens that authorise it."""
        self._now = now
        if self.leaving:
            self._need(None, now)
            if self._home_test.usable(now) is None:
                return
        elif not self._ready(now):
            self._outstanding = None
            return self.update(now)
        super()._send(now, timeout)

    def _to_tell(self) -> list[ListedBinding]:
        """The bindings that a Binding Update has to be sent for."""
        pending = {self._bid_of(listed) for listed in self.flows.values() if listed.operation is not None}
        pending = pending if self.flows.supported else set()

        def needed(binding: ListedBinding) -> bool:
            if binding.refused is not None:
                return binding.bid in self._again
            return binding.dirty or not self.known_to_peer or binding.bid in pending

        wanted = sorted(self.bindings.values(), key=self._urgency)
        return [binding for binding in wanted if binding.care_of_address and needed(binding)]

    def _urgency(self, binding: ListedBinding) -> tuple[int, bool, int, int]:
        return (self._tries.get(binding.bid, 0), not binding.dirty, binding.priority, binding.bid)

    def _ready(self, now: float) -> list[ListedBinding]:
        """Those of them whose tokens are there."""
        if self._home_test.usable(now) is None:
            return []
        return [b for b in self._to_tell() if self._care_of_token(b.care_of_address, now) is not None]

    def _care_of_token(self, address: IPv6Address, now: float) -> Token | None:
        test = self._care_of_tests.get(address)
        return test.usable(now) if test is not None else None

    @staticmethod
    def _bid_of(listed: ListedFlow) -> int:
        """The BID whose Binding Update has to carry the pending operation of a flow binding: the one that
        it is to be bound to; where it is removed, the one that it is bound to (draft §6.1.2, §6.3)."""
        if listed.operation is Pro.REMOVE and listed.registered is not None:
            return listed.registered.bids[0]
        return listed.flow.bids[0]

    def _compose(self) -> Composition:
        ready = self._ready(self._now)
        if not ready:
            return Composition()
        binding = ready[0]
        self._tries[binding.bid] = self._tries.get(binding.bid, 0) + 1
        options = []
        room = MAX_OPTIONS_LENGTH
        # those that would be lost first, then the new ones while there is room; the rest goes next time
        for listed in sorted(self.flows.values(), key=lambda listed: listed.registered is None):
            kept = listed.registered is not None and (
                self.dialect.renews_all or binding.bid in listed.registered.bids
            )
            # a flow that moves to another care-of address stays here until that one's message asks for it
            asked = listed.operation is not None and self._bid_of(listed) == binding.bid
            option = flow_option(listed, asked)
            if (kept or asked) and (kept or room >= option_length(option)):
                options.append(option)
                room -= option_length(option)
        return Composition((binding,), tuple(options) if self.flows.supported else ())

    def _binding_update(
        self, sequence: int, bids: Sequence[ListedBinding], flows: Sequence[FlowIdentification], now: float
    ) -> BindingUpdate:
        """RFC 6275 §11.7.2, RFC 5648 §5.2: one BID; the authenticator comes last."""
        home, care_of_address, care_of = self._home_test.usable(now), self.home_address, None
        identifiers: tuple[BindingIdentifier, ...] = ()
        if bids:
            (binding,) = bids
            care_of_address = binding.care_of_address
            care_of = self._care_of_token(care_of_address, now)
            if binding.bid != NO_BID:
                identifiers = (BindingIdentifier(binding.bid, 0, False, binding.priority, care_of_address),)
        key = binding_management_key(home.value, care_of.value if care_of else b"")
        self._key = (key, care_of_address)
        update = BindingUpdate(
            sequence,
            self._lifetime_s(bids, now),
            acknowledge=True,
            overwrite=bool(identifiers) and not self.known_to_peer,
            options=(
                *identifiers,
                *self.dialect.options(flows),
                NonceIndices(home.nonce_index, care_of.nonce_index if care_of else 0),
            ),
        )
        return authorised(update, key, care_of_address, self.peer, self._codec)

    def _lifetime_s(self, bids: Iterable[ListedBinding], now: float) -> int:
        """RFC 6275 §11.7.2: not longer than the home registration, either."""
        valid_s = super()._lifetime_s(bids, now)
        return max(4, int(min(valid_s, self._home_lifetime(now))) // 4 * 4) if bids else 0

    def shorten(self, remaining_s: float, now: float) -> None:
        """The home address is valid for so long only: renew what would last longer (RFC 6275 §11.4.2)."""
        late = [b.bid for b in self.bindings.values() if b.registered and b.expires > now + remaining_s]
        if late:
            self.refresh(now, late)

    def _transmit_update(
        self, update: BindingUpdate, care_of_addresses: list[IPv6Address], now: float
    ) -> IPv6Address | None:
        """From the care-of address that it is about; a deletion from any."""
        for address in care_of_addresses or [b.care_of_address for b in self.bindings.values()]:
            if address and self._send_packet(Packet(address, self.peer, update, self.home_address)):
                return address
        return None

    def _need(self, address: IPv6Address | None, now: float) -> None:
        """See to it that there is a token of a care-of address, or of the home address (None)."""
        test = self._test(address)
        if test.usable(now) is None and test.cookie is None:
            test.timeout, test.unanswered = INITIAL_BINDACK_TIMEOUT, 0
            self._send_test(address, now)

    def _test(self, address: IPv6Address | None) -> _Test:
        if address is None:
            return self._home_test
        return self._care_of_tests.setdefault(address, _Test())

    def _send_test(self, address: IPv6Address | None, now: float) -> None:
        """RFC 6275 §11.6.1, with a fresh cookie each time and at a limited rate (§11.8)."""
        test = self._test(address)
        test.cookie = self._random(COOKIE_OCTETS)
        kind = "home" if address is None else "care-of"
        sent = self._tests_sent[kind] = [when for when in self._tests_sent[kind] if when + 1 > now]
        test.postponed = len(sent) >= MAX_UPDATE_RATE
        if test.postponed:
            self._timers.set((("test", address), self.peer), sent[0] + 1)
            return
        sent.append(now)
        if address is None:
            packet = Packet(self.home_address, self.peer, HomeTestInit(test.cookie))
        else:
            bids = sorted(b.bid for b in self.bindings.values() if b.care_of_address == address)
            options = tuple(BindingIdentifier(bid) for bid in bids[:1])
            packet = Packet(address, self.peer, CareOfTestInit(test.cookie, options))
        self._timers.set((("test", address), self.peer), now + test.timeout)
        if self._send_packet(packet):
            self._note(f"{kind}-test-init-sent", peer=str(self.peer), address=str(packet.source))

    def _test_unanswered(self, address: IPv6Address | None, now: float) -> None:
        test = self._test(address)
        if test.cookie is None:
            return
        if test.postponed:
            return self._send_test(address, now)
        test.unanswered += 1
        test.timeout = min(2 * test.timeout, MAX_BINDACK_TIMEOUT)
        if test.unanswered == MAX_RO_FAILURE:
            self._note("return-routability-failed", peer=str(self.peer), address=str(address or "home"))
            if self.leaving:
                return self._gone()
            self._give_up(address)
        self._send_test(address, now)

    def _stop_test(self, address: IPv6Address) -> None:
        del self._care_of_tests[address]
        self._timers.cancel((("test", address), self.peer))

    def home_test(self, message: HomeTest, now: float) -> bool:
        """Take a Home Test (RFC 6275 §11.6.2); False if it is not the one that is waited for."""
        token = message.home_nonce_index, message.home_keygen_token
        return self._tested(None, message.home_init_cookie, *token, now)

    def care_of_test(self, address: IPv6Address, message: CareOfTest, now: float) -> bool:
        """Take a Care-of Test sent to `address`; False if it is not the one that is waited for."""
        if address not in self._care_of_tests:
            return False
        identifier = message.option(BindingIdentifier)
        if identifier is not None and identifier.status >= 128:  # RFC 5648 §4.2
            self._note("care-of-test-refused", peer=str(self.peer), status=identifier.status)
            return False
        token = message.care_of_nonce_index, message.care_of_keygen_token
        return self._tested(address, message.care_of_init_cookie, *token, now)

    def _tested(
        self, address: IPv6Address | None, cookie: bytes, nonce_index: int, token: bytes, now: float
    ) -> bool:
        test = self._test(address)
        if test.cookie is None or cookie != test.cookie:
            return False
        test.cookie = None
        test.unanswered = 0
        test.token = Token(nonce_index, token, now + MAX_TOKEN_LIFETIME)
        self._timers.cancel((("test", address), self.peer))
        self._note(
            "home-test-received" if address is None else "care-of-test-received",
            peer=str(self.peer),
            address=str(address or self.home_address),
        )
        if self.leaving:
            self._send(now, INITIAL_BINDACK_TIMEOUT)
        else:
            self.update(now)
        return True

    def _forget_tokens(self, home: bool, care_of: bool) -> None:
        for test in [self._home_test] * home + list(self._care_of_tests.values()) * care_of:
            test.token = None

    def proven(self, packet: Packet) -> bool:
        """Whether a Binding Acknowledgement comes from the correspondent node (RFC 6275 §11.7.3); that of
        an expired nonce cannot prove it, and only has the effect that the tests are repeated (§9.5.4)."""
        if packet.message.status in _NONCE_EXPIRED:
            return True
        return self._key is not None and is_authorised(packet, *self._key, self.peer)

    def acknowledged(self, message: BindingAcknowledgement, now: float) -> bool:
        self._now = now
        taken = super().acknowledged(message, now)
        if taken:
            self._unanswered = 0
        return taken

    def _accepted(self, message: BindingAcknowledgement, outstanding: Outstanding, now: float) -> None:
        self._expired_nonces = 0
        for bid in outstanding.bids:
            self._tries.pop(bid, None)
            self._again.discard(bid)
            self.bindings[bid].refused = None
        super()._accepted(message, outstanding, now)

    def _rejected(self, message: BindingAcknowledgement, outstanding: Outstanding, now: float) -> None:
        if message.status == Status.MCOA_PROHIBITED:
            super()._rejected(message, outstanding, now)
        elif message.status in _NONCE_EXPIRED and self._expired_nonces < MAX_RO_FAILURE:
            self._expired_nonces += 1
            home = message.status != Status.EXPIRED_CARE_OF_NONCE_INDEX
            self._forget_tokens(home, care_of=message.status != Status.EXPIRED_HOME_NONCE_INDEX)
            self._note("nonces-expired", peer=str(self.peer), status=int(message.status))
            self.update(now)
        elif any(b.registered and b.bid not in outstanding.bids for b in self.bindings.values()):
            self._expired_nonces = 0
            self._go_on_without(outstanding, int(message.status))
        else:
            self._expired_nonces = 0
            super()._rejected(message, outstanding, now)

    def _go_on_without(self, outstanding: Outstanding, status: int) -> None:
        """One care-of address is refused: that must not hold up the others, which have their turn with the
        next `update`. It is asked for again when these are refreshed."""
        for bid in outstanding.bids:
            self._again.discard(bid)
            self._refresh_at.pop(bid, None)
            self.bindings[bid].refused = status
            self._note("binding-refused", peer=str(self.peer), bid=bid, status=status)
        self._arm()

    def lost(self, now: float) -> None:
        """The correspondent node has no binding (Binding Error, status 1): register anew (§11.3.6)."""
        self._give_up()
        self.update(now)

    def _give_up(self, care_of_address: IPv6Address | None = None) -> None:
        """Back to the home agent, with everything or with one care-of address (RFC 6275 §5.2.9)."""
        for binding in self.bindings.values():
            if care_of_address in (None, binding.care_of_address):
                binding.registered = None
                self._refresh_at.pop(binding.bid, None)
        if not any(binding.registered for binding in self.bindings.values()):
            self.known_to_peer = False
            self._ask_again()
        self.flows.forget_lost()

    def _gone(self) -> None:
        self._home_test.cookie = None
        self._timers.cancel((("test", None), self.peer))
        super()._gone()

    def _ask_again(self) -> None:
        """Care-of addresses that were refused are asked for with the refreshes of the others, and when there
        are no others any more."""
        self._again = {binding.bid for binding in self.bindings.values() if binding.refused is not None}

    def _expire(self, now: float) -> None:
        if all(binding.expires <= now for binding in self.bindings.values() if binding.registered):
            self._ask_again()
        super()._expire(now)

    def _schedule(self, message: BindingAcknowledgement, outstanding: Outstanding, lifetime_s: int) -> None:
        """Each care-of address has its own time; Binding Refresh Advice is not for us (§11.7.3)."""
        for bid in outstanding.bids:
            self._refresh_at[bid] = self._refresh_time(outstanding.sent_at, lifetime_s)
        self._arm()

    def _arm(self) -> None:
        """Set the timers for what is registered."""
        registered = [binding for binding in self.bindings.values() if binding.registered]
        due = [self._refresh_at[b.bid] for b in registered if not b.refresh_due and b.bid in self._refresh_at]
        if due:
            self._timers.set(("refresh", self.peer), min(due))
        if registered:
            self._timers.set(("expire", self.peer), min(binding.expires for binding in registered))
