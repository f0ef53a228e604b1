"""The receiving side of Binding Updates, as home agents and mobility anchor points share it.

Class: `Registrar`. RFC 6275 §9.5, §10.3; RFC 5648 §6; draft-soliman-monami6-flow-binding-05 §8, §9.
"""

from collections.abc import Collection
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from testbed.mobility.authentication import Verifier
from testbed.mobility.binding import NO_BID, Binding, FlowBinding, is_unicast_routable, sequence_is_newer
from testbed.mobility.binding_cache import BindingCache, CacheEntry
from testbed.mobility.dialect import DIALECTS
from testbed.mobility.forwarding import HomeBinding, OnLink
from testbed.mobility.identifiers import Identifiers, acknowledged_bids, link_layer_address_in
from testbed.mobility.policy import Policy
from testbed.mobility.rate_limit import RateLimit
from testbed.mobility.refusal import Held, Refused
from testbed.mobility.role import Role, Transmission
from testbed.mobility.snapshot import entry_from_snapshot, entry_to_snapshot
from testbed.wire.address import text
from testbed.wire.flow import FlowIdentification, Pro
from testbed.wire.message import (
    BindingAcknowledgement,
    BindingRefreshRequest,
    BindingUpdate,
    Status,
    UnknownMessage,
)
from testbed.wire.option import (
    AlternateCareOfAddress,
    BindingIdentifier,
    MessageIdentifier,
    MobileNetworkPrefix,
    MobilityMessageAuthentication,
    NonceIndices,
)
from testbed.wire.packet import Packet

#: How long the sequence number of a de-registered home address is remembered (RFC 6275 §10.3.2, §12).
MAX_DELETE_BCE_TIMEOUT = 10.0
#: How long after a failure of the datapath that nobody can be told of it is tried again, in seconds.
DATAPATH_RETRY_S = 1.0
_REFRESH = Pro.REFRESH


class Registrar(Role):
    """Keeps a binding cache as Binding Updates ask for it, and acknowledges them.

    Subclasses say whom they serve (`_check_service`). `max_lifetime_s` caps what is granted.
    """

    #: How long the sequence number of a home address without bindings is remembered, in seconds.
    memory_s = MAX_DELETE_BCE_TIMEOUT

    def __init__(
        self,
        policy: Policy,
        max_lifetime_s: int,
        verifier: Verifier | None = None,
        refusals: RateLimit | None = None,
        dialect: str = "draft",
    ) -> None:
        super().__init__(refusals)
        self.policy = policy
        self.verifier = verifier
        self.dialect = DIALECTS[dialect]()
        self.max_lifetime_s = max_lifetime_s
        self.cache = BindingCache()
        #: What the datapath has of each home address that has changed since it was asked last.
        self._undo: dict[IPv6Address, CacheEntry | None] = {}
        self._unsaved: dict[IPv6Address, None] = {}
        self._asked = False
        self._named: tuple[Packet | None, dict[str, str]] = None, {}

    def _check_service(self, update: BindingUpdate, home_address: IPv6Address) -> None:
        """Raise `Refused` unless this node may serve `home_address`."""
        raise NotImplementedError

    def _is_for_us(self, update: BindingUpdate) -> bool:
        """Whether this kind of registration is what this role is there for; others are dropped in silence."""
        raise NotImplementedError

    def _prefixes(
        self, update: BindingUpdate, home_address: IPv6Address, care_of_addresses: Collection[IPv6Address]
    ) -> tuple[IPv6Network, ...]:
        """What is behind a mobile router. Raises `Refused` if it may not have that."""
        raise Refused(Status.MOBILE_ROUTER_OPERATION_NOT_PERMITTED)

    def _check_first(self, packet: Packet, update: BindingUpdate, home_address: IPv6Address) -> None:
        """Called before the first binding of a home address. Raises `Held` or `Refused`."""

    def _grant(self, update: BindingUpdate, home_address: IPv6Address, now: float) -> tuple[int, Status]:
        """The lifetime, in seconds, and the status of what is accepted."""
        return min(update.lifetime_s, self.max_lifetime_s) // 4 * 4, Status.BINDING_UPDATE_ACCEPTED

    def _care_of_status(self, care_of_address: IPv6Address) -> Status:
        """Whether this role takes such a care-of address: "accepted", or the status that says why not."""
        return Status.BINDING_UPDATE_ACCEPTED

    def _on_link(self, update: BindingUpdate) -> OnLink | None:
        """How a mobile node is reached that is on the home link and abroad at once (RFC 5648 §5.6); None: it
        must not be."""
        return None

    def _deletes(self, packet: Packet, update: BindingUpdate, home_address: IPv6Address) -> bool:
        """RFC 6275 §9.5.1: whether bindings are to be deleted, rather than made."""
        return update.lifetime_s == 0 or self._care_of_address(packet, update) == home_address

    def _handle_timer(self, kind: str, entry: CacheEntry, now: float) -> None:
        """Do what a subclass has set a timer for."""

    def receive(self, packet: Packet, interface: str, now: float) -> None:
        """Process a message from a mobile node. Times in seconds on the agent's monotonic clock."""
        self._begin()
        if isinstance(packet.message, BindingUpdate):
            self._receive_update(packet, packet.message, now)
        elif isinstance(packet.message, UnknownMessage):
            self._answer_unrecognised(packet, now)
        else:
            self._drop(packet, f"a {type(packet.message).__name__} is not for this role")

    def handle_timer(self, now: float) -> None:
        """Expire bindings, ask for refreshes, forget de-registrations."""
        self._begin()
        for kind, home_address in self.timers.due(now):
            if kind == "again":
                self._changed[home_address] = None
                continue
            entry = self.cache.get(home_address)
            if entry is None:
                continue
            if kind == "forget":
                if not entry.bindings:  # it has not come back meanwhile
                    self.cache.remove(home_address)
            elif kind == "refresh":
                self._request_refresh(entry, now)
            elif kind == "expire":
                self._expire(entry, now)
            else:
                self._handle_timer(kind, entry, now)

    def _begin(self) -> None:
        """What comes now can be undone, and what has come since the datapath asked last."""
        if self._asked:
            self._undo, self._asked = {}, False

    def changes(self) -> dict[IPv6Address, HomeBinding | None]:
        self._asked = True
        return super().changes()

    def home_binding(self, home_address: IPv6Address) -> HomeBinding | None:
        entry = self.cache.get(home_address)
        return entry.forwarding() if entry else None

    def forwarding(self) -> dict[IPv6Address, HomeBinding]:
        wanted = ((entry.home_address, entry.forwarding()) for entry in self.cache)
        return {home_address: binding for home_address, binding in wanted if binding is not None}

    def bindings(self, now: float) -> list[dict[str, Any]]:
        """One dictionary a binding, the default of each home address marked; for people and programs."""
        return [described for entry in self.cache for described in entry.describe(now)]

    def flows(self) -> list[tuple[IPv6Address, FlowBinding]]:
        """The flow bindings, each with its home address, in the order in which they are tried."""
        return [(entry.home_address, flow) for entry in self.cache for flow in entry.flows_in_order()]

    def datapath_failed(self, home_address: IPv6Address, reason: str, now: float) -> None:
        """The kernel did not take what the last update asked for: go back to what was before, and say
        "insufficient resources" instead of "accepted". What no update has asked for, the end of a lifetime
        say, stays as it is and is tried again."""
        self._note("datapath-failed", home_address=str(home_address), reason=reason)
        if home_address not in self._undo:
            self.timers.set(("again", home_address), now + DATAPATH_RETRY_S)
            return
        self._go_back(home_address, self._undo.pop(home_address), now)
        self._transmissions = [
            self._withdrawn(transmission, home_address)
            if transmission.after_datapath
            and home_address in (transmission.packet.routing_address, transmission.packet.destination)
            else transmission
            for transmission in self._transmissions
        ]

    def _go_back(self, home_address: IPv6Address, before: CacheEntry | None, now: float) -> None:
        """Forget the last update, but for its sequence number: it must not be played back."""
        self._unsaved[home_address] = None
        refused = self.cache.get(home_address)
        if refused is None:
            return
        entry = before or CacheEntry(home_address, refused.local, refused.sequence)
        entry.sequence = refused.sequence
        self.cache.put(entry)
        self._schedule(home_address)
        if not entry.bindings:
            self.timers.set(("forget", home_address), now + self.memory_s)

    def snapshot(self, now: float) -> dict[str, Any]:
        """All promises made to mobile nodes, JSON-able; lifetimes as remaining seconds."""
        saved = {"entries": [entry_to_snapshot(entry, now) for entry in self.cache if entry.bindings]}
        if self.verifier is not None:
            saved["timestamps"] = {str(home): stamp for home, stamp in self.verifier.timestamps.items()}
        return saved

    def unsaved(self, now: float) -> dict[str, Any] | None:
        taken, self._unsaved = self._unsaved, {}
        entries = [entry for home_address in taken if (entry := self.cache.get(home_address)) is not None]
        if not entries:
            return None
        change: dict[str, Any] = {"entries": [entry_to_snapshot(entry, now) for entry in entries]}
        if self.verifier is not None:
            stamps = self.verifier.timestamps
            change["timestamps"] = {str(home): stamps[home] for home in taken if home in stamps}
        return change

    def restore(self, snapshot: dict[str, Any], saved_at: float, now: float) -> None:
        """Take up the promises of an earlier life, then the changes that followed. `saved_at`: when the
        snapshot was taken, on the clock that `now` is on. Raises ValueError if it is not one of ours."""
        for entry in [entry_from_snapshot(saved, saved_at) for saved in snapshot.get("entries", ())]:
            self.cache.put(entry)
            self._changed[entry.home_address] = None
            self._expire(entry, now)
        if self.verifier is not None:
            for home, stamp in snapshot.get("timestamps", {}).items():
                self.verifier.timestamps[IPv6Address(home)] = int(stamp)

    def _receive_update(self, packet: Packet, update: BindingUpdate, now: float) -> None:
        home_address = packet.home_address or packet.source
        known = self.cache.get(home_address)
        if known is not None:  # the very object that all tables have is found there without a comparison
            home_address = known.home_address
        if not is_unicast_routable(home_address) or not is_unicast_routable(packet.source):
            return self._drop(packet, "no unicast routable home address and source address (RFC 6275 §9.5.1)")
        if not self._is_for_us(update):
            return self._drop(packet, "not a registration that this role serves")
        if update.option(NonceIndices) is not None:
            return self._drop(packet, "Nonce Indices in a home registration (RFC 6275 §9.5.1)")
        reason = self.verifier.drop_reason(packet, home_address) if self.verifier else None
        if reason is not None:
            return self._drop(packet, reason)
        if self.verifier is not None:
            status = self.verifier.judge(packet, home_address, now)
            if status is not Status.BINDING_UPDATE_ACCEPTED:
                return self._refuse(packet, status, now)
        self._answer_update(packet, update, home_address, now)

    def _answer_update(
        self, packet: Packet, update: BindingUpdate, home_address: IPv6Address, now: float
    ) -> None:
        """Do what a Binding Update from the right mobile node asks for, and acknowledge it."""
        ends = self._ends(packet, home_address)
        self._note("binding-update-received", **ends, sequence=update.sequence)
        entry = self.cache.get(home_address)
        if entry is not None and not sequence_is_newer(update.sequence, entry.sequence):
            status = Status.SEQUENCE_NUMBER_OUT_OF_WINDOW
            return self._reject(packet, update, home_address, status, entry.sequence)
        self._decide(packet, update, home_address, now)

    def _decide(self, packet: Packet, update: BindingUpdate, home_address: IPv6Address, now: float) -> None:
        """Do what an authentic Binding Update in its turn asks for, and acknowledge it."""
        entry = self.cache.get(home_address)
        self._begin()
        self._unsaved[home_address] = None
        if home_address not in self._undo:
            self._undo[home_address] = entry.copy() if entry else None
        if entry is not None:
            entry.sequence = update.sequence
        try:
            self._check_service(update, home_address)
            if self._deletes(packet, update, home_address):
                acknowledgement = self._deregister(packet, update, entry, now)
            else:
                acknowledgement = self._register(packet, update, home_address, entry, now)
        except Held:
            return
        except Refused as refused:
            return self._reject(packet, update, home_address, refused.status)
        self._acknowledge(packet, home_address, acknowledgement)

    def _reject(
        self,
        packet: Packet,
        update: BindingUpdate,
        home_address: IPv6Address,
        status: Status,
        sequence: int | None = None,
    ) -> None:
        """Answer a Binding Update that is refused as a whole; its options come back (RFC 5648 §6.2, draft
        §4.8), and its sequence number, unless `sequence` is the one to tell (RFC 6275 §9.5.1)."""
        flows = tuple(o.answer(self.dialect.unspecified) for o in update.all_options(FlowIdentification))
        options = acknowledged_bids(update, {}) + flows
        told = update.sequence if sequence is None else sequence
        self._acknowledge(packet, home_address, BindingAcknowledgement(status, told, 0, options=options))

    def _register(
        self,
        packet: Packet,
        update: BindingUpdate,
        home_address: IPv6Address,
        entry: CacheEntry | None,
        now: float,
    ) -> BindingAcknowledgement:
        identifiers = Identifiers(update, self.policy, entry)
        if entry is None:
            if len(self.cache) >= self.policy.max_mobile_nodes:
                raise Refused(Status.INSUFFICIENT_RESOURCES)
            entry = CacheEntry(home_address, packet.destination, update.sequence)
        elif entry.bindings and entry.mobile_router != update.mobile_router:
            raise Refused(Status.REGISTRATION_TYPE_CHANGE_DISALLOWED)  # RFC 3963 §6.2
        granted, status = self._grant(update, home_address, now)
        if identifiers.options:
            on_link = self._on_link(update) if identifiers.at_home else None
            bindings = identifiers.bindings(entry, self._care_of_status, on_link, granted, now)
        else:
            care_of_address = self._care_of_address(packet, update)
            if not is_unicast_routable(care_of_address):
                raise Refused(Status.REASON_UNSPECIFIED)
            if (refusal := self._care_of_status(care_of_address)) is not Status.BINDING_UPDATE_ACCEPTED:
                raise Refused(refusal)
            bindings = [Binding(NO_BID, care_of_address, 0, granted, now + granted)]
        addresses = [binding.care_of_address for binding in bindings if binding.on_link is None]
        if self.cache.leads_back(addresses, home_address):
            raise Refused(Status.INVALID_CARE_OF_ADDRESS)
        prefixes = self._prefixes(update, home_address, addresses) if update.mobile_router else ()
        if not entry.bindings:
            self._check_first(packet, update, home_address)
        entry.mobile_router, entry.prefixes = update.mobile_router, prefixes
        entry.link_local = update.link_local_compatibility
        if not identifiers.options or update.overwrite:
            entry.bindings.clear()
            if not (identifiers.options and self.dialect.renews_all):
                entry.flows.clear()
        entry.local = packet.destination
        entry.bindings.update({binding.bid: binding for binding in bindings})
        self.cache.put(entry)
        renewed = {binding.bid for binding in bindings}
        superseded = entry.superseded_home_bindings(renewed)
        lost: list[int] = []
        if superseded or update.overwrite:
            lost = entry.forget_bids(superseded, self.dialect.keeps_inactive)
        flows, left_out = self._answer_flows(packet, update, entry, bool(identifiers.options), renewed)
        before = self._undo[home_address]
        if before is None or not entry.forwards_like(before):
            self._changed[home_address] = None
        self._schedule(home_address)
        self._note(
            "binding-changed",
            home_address=self._ends(packet, home_address)["home_address"],
            bindings={binding.bid: text(binding.care_of_address) for binding in bindings},
            lifetime_s=granted,
            flows=[int(flow.status) for flow in flows],
            flows_lost=lost + left_out,
        )
        return BindingAcknowledgement(
            identifiers.status(status),
            update.sequence,
            granted,
            mobile_router=entry.mobile_router,
            options=identifiers.answers() + flows,
        )

    def _answer_flows(
        self, packet: Packet, update: BindingUpdate, entry: CacheEntry, with_bids: bool, renewed: set[int]
    ) -> tuple[tuple[FlowIdentification, ...], list[int]]:
        """Do what a message says of flows: the options of the answer, and the FIDs that are lost because the
        message, which renews the BIDs `renewed`, leaves them out."""
        bid = NO_BID if with_bids else None
        if with_bids and [o for o in update.all_options(FlowIdentification) if o.pro != _REFRESH]:
            bid = self._subject(packet, update, entry)  # a refresh changes nothing, wherever it comes from
        return self.dialect.process(update, entry, self.policy, bid, renewed)

    def _subject(self, packet: Packet, update: BindingUpdate, entry: CacheEntry) -> int:
        """The BID that a message with Binding Identifier options as a whole is about."""
        bid = entry.bid_of(self._care_of_address(packet, update))
        return update.option(BindingIdentifier).bid if bid is None else bid

    def _deregister(
        self, packet: Packet, update: BindingUpdate, entry: CacheEntry | None, now: float
    ) -> BindingAcknowledgement:
        """RFC 6275 §10.3.2, RFC 5648 §5.4, §6.2: all bindings, or those that are named."""
        if entry is None or not entry.bindings:
            raise Refused(Status.NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE)
        identifiers = Identifiers(update, self.policy)
        named = identifiers.bids
        found = [bid for bid in named if bid in entry.bindings] if named else list(entry.bindings)
        if not found:
            raise Refused(Status.NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE)
        unknown = [bid for bid in named if bid not in entry.bindings]
        identifiers.statuses.update(dict.fromkeys(unknown, Status.NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE))
        lost = entry.forget_bids(found, self.dialect.keeps_inactive)
        flows, left_out = self._answer_flows(packet, update, entry, bool(entry.bindings), set())
        self._changed[entry.home_address] = None
        self._schedule(entry.home_address)
        if not entry.bindings:
            self.timers.set(("forget", entry.home_address), now + self.memory_s)
        self._note(
            "binding-removed",
            home_address=text(entry.home_address),
            bids=found,
            flows_lost=lost + left_out,
            cause="request",
        )
        return BindingAcknowledgement(
            Status.MCOA_NOTCOMPLETE if unknown else Status.BINDING_UPDATE_ACCEPTED,
            update.sequence,
            0,
            options=identifiers.answers() + flows,
        )

    @staticmethod
    def _care_of_address(packet: Packet, update: BindingUpdate) -> IPv6Address:
        """RFC 6275 §9.5.1: the alternate care-of address if there is one, else the source address."""
        alternate = update.option(AlternateCareOfAddress)
        return alternate.care_of_address if alternate else packet.source

    def _refuse(self, packet: Packet, status: Status, now: float) -> None:
        """Refuse what is not authenticated, or old; no more often than is good for those who are told."""
        self._drop(packet, f"refused with status {status.name}: not authentic, or not new")
        if self._refusals.allows(packet.source, now):
            self._reject(packet, packet.message, packet.home_address or packet.source, status)

    def _acknowledge(
        self, packet: Packet, home_address: IPv6Address, acknowledgement: BindingAcknowledgement
    ) -> None:
        """RFC 6275 §9.5.4, §10.3.1: to the source address, by a type 2 routing header unless at home."""
        if self.verifier is not None:
            acknowledgement = self.verifier.sign(acknowledgement, packet, home_address)
        self._send(
            Packet(
                source=packet.destination,
                destination=packet.source,
                message=acknowledgement,
                routing_address=home_address if packet.home_address is not None else None,
            ),
            after_datapath=True,
            answers=packet,
            link_layer_address=link_layer_address_in(packet.message) if packet.home_address is None else b"",
        )
        self._note(
            "binding-acknowledgement-sent",
            **self._ends(packet, home_address),
            sequence=acknowledgement.sequence,
            status=int(acknowledgement.status),
        )

    def _ends(self, packet: Packet, home_address: IPv6Address) -> dict[str, str]:
        """How events name the mobile node that has sent `packet`."""
        if self._named[0] is not packet:
            ends = {"home_address": text(home_address), "care_of_address": text(packet.source)}
            self._named = packet, ends
        return self._named[1]

    def _withdrawn(self, transmission: Transmission, home_address: IPv6Address) -> Transmission:
        """The same acknowledgement, turned into a refusal."""
        acknowledgement = transmission.packet.message
        options = tuple(
            replace(option, status=self.dialect.unspecified)
            if isinstance(option, FlowIdentification)
            else option
            for option in acknowledgement.options
            if not isinstance(option, MessageIdentifier | MobilityMessageAuthentication)
        )
        status = Status.INSUFFICIENT_RESOURCES
        if acknowledgement.mobile_router:  # RFC 3963 §6.2
            named = transmission.answers.message.option(MobileNetworkPrefix)
            status = Status.INVALID_PREFIX if named else Status.FORWARDING_SETUP_FAILED
        refusal = replace(acknowledgement, status=status, lifetime_s=0, mobile_router=False, options=options)
        if self.verifier is not None:
            refusal = self.verifier.sign(refusal, transmission.answers, home_address)
        return replace(transmission, packet=replace(transmission.packet, message=refusal))

    def _request_refresh(self, entry: CacheEntry, now: float) -> None:
        """Draft §8.3: an entry that is going to expire is announced; RFC 5648 §6.4: with its BIDs."""
        at = entry.reachable_abroad() or entry.default_binding()
        if at is None:
            return
        late = [binding for binding in entry.bindings.values() if binding.refresh_due <= now]
        self._ask_for(entry, late, at.care_of_address)
        self._schedule(entry.home_address, after=now)

    def _ask_for(self, entry: CacheEntry, bindings: list[Binding], care_of_address: IPv6Address) -> None:
        """Send a Binding Refresh Request for these bindings to a care-of address, or on the home link."""
        at_home = next((b.on_link for b in entry.bindings.values() if b.on_link is not None), None)
        at_home = at_home if care_of_address == entry.home_address else None
        options = tuple(BindingIdentifier(b.bid, priority=b.priority) for b in bindings if b.bid != NO_BID)
        message = BindingRefreshRequest(options=options)
        self._send(
            Packet(
                entry.local,
                care_of_address,
                message,
                routing_address=entry.home_address if at_home is None else None,
            ),
            link_layer_address=b"" if at_home is None else at_home.link_layer_address,
        )
        bids = [binding.bid for binding in bindings]
        self._note("binding-refresh-request-sent", home_address=text(entry.home_address), bids=bids)

    def _schedule(self, home_address: IPv6Address, after: float = float("-inf")) -> None:
        """Arm the timers of one entry; no refresh is asked for again up to the time `after`."""
        entry = self.cache.get(home_address)
        due = None
        for binding in entry.bindings.values() if entry else ():
            refresh = binding.refresh_due
            when = (refresh, "refresh") if refresh > after else (binding.expires, "expire")
            if due is None or when < due:
                due = when
        for kind in ("refresh", "expire"):  # what comes first: the other one is set then
            if due is not None and due[1] == kind:
                self.timers.set((kind, home_address), due[0])
            else:
                self.timers.cancel((kind, home_address))

    def _expire(self, entry: CacheEntry, now: float) -> None:
        """RFC 6275 §10.3.1: a binding is deleted when its lifetime is over, and its flow bindings with it."""
        self._remove(
            entry, [bid for bid, binding in entry.bindings.items() if binding.expires <= now], "lifetime", now
        )

    def _remove(self, entry: CacheEntry, bids: list[int], cause: str, now: float) -> None:
        """Delete bindings that nobody has asked to delete."""
        if bids:
            lost = entry.forget_bids(bids, self.dialect.keeps_inactive)
            self._changed[entry.home_address] = None
            self._note(
                "binding-removed",
                home_address=text(entry.home_address),
                bids=bids,
                flows_lost=lost,
                cause=cause,
            )
        if not entry.bindings:
            self._expired(entry, now)
        self._schedule(entry.home_address, after=now)

    def _expired(self, entry: CacheEntry, now: float) -> None:
        """The last binding of an entry has run out."""
        self.cache.remove(entry.home_address)
