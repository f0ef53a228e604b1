"""The sending side of Binding Updates: a binding update list entry and how it is kept (RFC 6275 §11.7).

Class: `Registration`.

One `Registration` is the relation of a mobile node to one receiver. It holds what is wanted beside what
the receiver has acknowledged, and sends Binding Updates until the two agree.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

from testbed.mobility.binding import NO_BID, sequence_is_newer
from testbed.mobility.composition import Composition, compose
from testbed.mobility.dialect import DIALECTS
from testbed.mobility.listed_flows import ListedFlows
from testbed.mobility.mobile_network import MOBILE_ROUTER_STATUSES, MobileNetwork
from testbed.mobility.role import Timers
from testbed.mobility.update_list import ListedBinding, Outstanding
from testbed.wire.flow import FlowIdentification, Pro
from testbed.wire.message import BindingAcknowledgement, BindingUpdate, Status
from testbed.wire.option import BindingIdentifier, BindingRefreshAdvice

# RFC 6275 §12, §13; seconds
INITIAL_BINDACK_TIMEOUT = 1.0
INITIAL_BINDACK_TIMEOUT_FIRST_REG = 1.5
MAX_BINDACK_TIMEOUT = 32.0
MAX_UPDATE_RATE = 3
#: A binding is refreshed when this part of its lifetime is over.
REFRESH_AT = 0.8
#: How long a receiver that does not know the Mobility Header is left alone, in seconds (RFC 6275 §11.3.5).
UNSUPPORTED_S = 60.0


class Registration:
    """Brings one receiver's binding cache to what is wanted, and keeps it there.

    `transmit(update, care_of_addresses, now)` sends a message from the first of these care-of addresses that
    can be used now and returns whether one could; `note` takes events; `timers` are the role's, used with
    keys `(kind, peer)`. `local`: the receiver is a mobility anchor point (RFC 5380 §4). A restart is answered
    by one message that replaces everything (RFC 5648 §5.9).
    """

    def __init__(
        self,
        peer: IPv6Address,
        home_address: IPv6Address,
        lifetime_s: int,
        timers: Timers,
        transmit: Callable[[BindingUpdate, list[IPv6Address], float], IPv6Address | None],
        note: Callable[..., None],
        sequence: int = 0,
        mobile_network: MobileNetwork | None = None,
        local: bool = False,
        dialect: str = "draft",
    ) -> None:
        self.peer = peer
        self.home_address = home_address
        self.lifetime_s = lifetime_s
        self.sequence = sequence
        self.bindings: dict[int, ListedBinding] = {}
        self.dialect = DIALECTS[dialect]()
        self.flows = ListedFlows(self.bindings, self.dialect, self._note_of_peer)
        self.known_to_peer = False
        #: Whether it has accepted anything in this life, and whether all of that has run out since: by our
        #: clock, or as it says itself.
        self.accepted_once = self.lapsed = False
        self.bulk_registration = True
        #: Whether the receiver takes more than one care-of address, each with a BID (RFC 5648 §5.7).
        self.takes_bids = True
        self.mobile_network = mobile_network
        self.local = local
        #: Whether a BID that is to be nowhere is removed at the receiver (RFC 5648 §5.4).
        self.removes_bids = False
        self.leaving = False
        self.left = False
        #: Whether the node's link-local address has the interface identifier of its home address (L bit).
        self.link_local_compatibility: Callable[[], bool] = lambda: False
        #: Called when the receiver does not answer or serve us; returns whether there is another one.
        self.unserved: Callable[[float], bool] = lambda now: False
        #: For how many seconds from `now` the home address and these care-of addresses are valid.
        self.valid_s: Callable[[Iterable[IPv6Address], float], float] = lambda addresses, now: math.inf
        #: When the registration is renewed that this one must not outlast; None: there is none.
        self.renewed_first: Callable[[], float | None] = lambda: None
        #: The status with which the receiver has refused for good: it is not asked again.
        self.given_up: int | None = None
        #: Whether the receiver has said that it does not know the Mobility Header.
        self.is_unsupported = False
        #: Whether the receiver does not take a home binding beside others (RFC 5648 §5.6).
        self.home_binding_refused = False
        self._timers = timers
        self._transmit = transmit
        self._note = note
        self._outstanding: Outstanding | None = None
        self._superseded: deque[int] = deque(maxlen=16)
        self._sent: list[float] = []
        self._delayed_timeout = INITIAL_BINDACK_TIMEOUT

    def _note_of_peer(self, event: str, **fields: Any) -> None:
        self._note(event, peer=str(self.peer), **fields)

    def bind(self, bid: int, priority: int, care_of_address: IPv6Address | None) -> None:
        """Want `bid` at `care_of_address` (None: nowhere); takes effect with `update`."""
        listed = self.bindings.setdefault(bid, ListedBinding(bid, priority))
        if listed.care_of_address != care_of_address:
            listed.care_of_address = care_of_address
            listed.home = care_of_address == self.home_address
            listed.refused = None
        # it may arrive or not: what is wanted has to be said after it
        if self._outstanding is not None and bid in self._outstanding.bids:
            listed.contradicted |= self._outstanding.bids[bid] != care_of_address

    @property
    def is_waiting(self) -> bool:
        """Whether a Binding Update has not been answered yet."""
        return self._outstanding is not None

    @property
    def addresses_in_use(self) -> set[IPv6Address]:
        """The care-of addresses that the receiver may send to: what it has acknowledged, and what it is asked
        for."""
        found = {binding.registered for binding in self.bindings.values()}
        if self._outstanding is not None:
            found.update(self._outstanding.bids.values())
        return found - {None}

    def remaining_s(self, now: float) -> float:
        """How long what the receiver has still lasts, in seconds."""
        expiries = [binding.expires - now for binding in self.bindings.values() if binding.registered]
        return max(expiries, default=0.0) if self.known_to_peer else 0.0

    def update(self, now: float) -> None:
        """Send a Binding Update if there is something to tell that is not under way already."""
        if self.leaving or self.left or self.given_up is not None or self.is_unsupported:
            return
        dirty = [binding for binding in self.bindings.values() if binding.dirty]
        if self._outstanding is not None:
            # what changes while a message is under way goes with the next one, but movement does not wait
            if all(self._outstanding.bids.get(b.bid) == b.care_of_address for b in dirty):
                return
            if not self.bulk_registration and self._is_current(self._outstanding):
                return  # one care-of address a message: the others have their turn
        elif not dirty and not self.flows.pending():
            if not self._abandoned():
                return
        self._send(now, self._initial_timeout)

    def _is_current(self, outstanding: Outstanding) -> bool:
        """Whether what was told is still what is wanted."""
        return all(self.bindings[bid].care_of_address == told for bid, told in outstanding.bids.items())

    def _abandoned(self) -> list[ListedBinding]:
        """BIDs that the receiver still has, but that are to be nowhere."""
        bindings = self.bindings.values() if self.removes_bids else ()
        return [binding for binding in bindings if binding.registered and binding.care_of_address is None]

    def unsupported(self, now: float) -> None:
        """The receiver does not know the Mobility Header: nothing is sent to it for a time, or to the next
        one instead, if there is one (RFC 6275 §11.3.5)."""
        for kind in ("refresh", "send", "retransmit"):
            self._timers.cancel((kind, self.peer))
        self._outstanding = None
        self._note("mobility-header-unsupported", peer=str(self.peer))
        if self.leaving:
            self._gone()
        elif self.known_to_peer or not self.unserved(now):
            self.is_unsupported = True
            self._timers.set(("retry", self.peer), now + UNSUPPORTED_S)

    def retry(self) -> None:
        """Ask it again, with the next `update`."""
        self.is_unsupported = False
        self._timers.cancel(("retry", self.peer))

    def leave(self, now: float, uncertain: bool = False) -> None:
        """De-register everything (RFC 6275 §11.7.1, RFC 5648 §5.4); `left` tells when it is done.
        `uncertain`: the receiver may have bindings of an earlier life."""
        self.leaving = True
        for kind in ("refresh", "expire", "send", "retry"):
            self._timers.cancel((kind, self.peer))
        if not self.known_to_peer and self._outstanding is None and not uncertain:
            self._gone()
        else:
            self._send(now, INITIAL_BINDACK_TIMEOUT)

    def resume(self) -> None:
        """Want to be registered again, after `leave`."""
        self.leaving = self.left = False
        self.known_to_peer = False
        self.retry()
        self._outstanding = None
        self._timers.cancel(("retransmit", self.peer))
        self._forget_registered()

    def move_to(self, peer: IPv6Address, now: float) -> None:
        """Register with another receiver, which knows nothing of us, instead of this one."""
        for kind in ("refresh", "expire", "send", "retransmit"):
            self._timers.cancel((kind, self.peer))
        self.retry()
        self.peer = peer
        self.known_to_peer = False
        self.given_up = None
        if not self.takes_bids:
            self.takes_bids = True
            self.bindings.clear()
        self._outstanding = None
        self._sent = []
        if self.mobile_network is not None:
            self.mobile_network.served = False
        for binding in self.bindings.values():
            binding.refused = None
        self._forget_registered()
        self.update(now)

    def handle_timer(self, kind: str, now: float) -> None:
        """Do what was due under the key `(kind, peer)`."""
        if kind == "retransmit" and self._outstanding is not None:
            self._note("binding-update-unanswered", peer=str(self.peer), sequence=self._outstanding.sequence)
            if not self.known_to_peer and not self.leaving and self.unserved(now):
                return
            self._send(now, min(2 * self._outstanding.timeout, MAX_BINDACK_TIMEOUT))
        elif kind == "send":
            self._send(now, self._delayed_timeout)
        elif kind == "retry":
            self.retry()
            self.update(now)
        elif kind == "refresh":
            self.refresh(now)
        elif kind == "expire":
            self._expire(now)

    def refresh(self, now: float, bids: Iterable[int] = ()) -> None:
        """Renew the lifetime of `bids`, of all by default."""
        wanted = set(bids) or set(self.bindings)
        for binding in self.bindings.values():
            binding.refresh_due |= binding.bid in wanted
        self.update(now)

    @property
    def _initial_timeout(self) -> float:
        return INITIAL_BINDACK_TIMEOUT if self.known_to_peer else INITIAL_BINDACK_TIMEOUT_FIRST_REG

    def _send(self, now: float, timeout: float) -> None:
        """Send what is to be said now; wait `timeout` seconds for the answer. No more than
        MAX_UPDATE_RATE messages within a second (RFC 6275 §11.8), the last of which is kept for movement:
        one too many is sent when it may be, with all that is to be said by then."""
        self._sent = [sent for sent in self._sent if sent + 1 > now]
        moved = any(binding.moved for binding in self.bindings.values())
        most = MAX_UPDATE_RATE if moved or self.leaving else MAX_UPDATE_RATE - 1
        if len(self._sent) >= most:
            self._delayed_timeout = timeout
            self._timers.set(("send", self.peer), self._sent[-most] + 1)
            return
        self._timers.cancel(("send", self.peer))
        bids, flows = Composition() if self.leaving else self._compose()
        sequence = (self.sequence + 1) % 65536
        dirty_first = sorted(bids, key=lambda binding: (not binding.dirty, binding.priority))
        sent_from = None
        if not bids and not self.leaving:
            bids = self._abandoned()
        if bids or self.leaving:
            message = self._binding_update(sequence, bids, flows, now)
            sent_from = self._transmit(message, [binding.care_of_address for binding in dirty_first], now)
        if sent_from is None:
            # nothing to say, or no way to say it: movement will bring us here again
            self._outstanding = None
            self._timers.cancel(("retransmit", self.peer))
            if self.leaving:
                self._gone()
            return
        for option in flows:
            self.flows[option.fid].times_sent += 1
        if self._outstanding is not None:
            self._superseded.append(self._outstanding.sequence)
        self.sequence = sequence
        self._sent.append(now)
        self._outstanding = Outstanding(
            sequence,
            now,
            timeout,
            message.lifetime_s,
            {binding.bid: binding.care_of_address for binding in bids},
            {option.fid: (Pro(option.pro), self.flows[option.fid].flow) for option in flows},
        )
        self._timers.set(("retransmit", self.peer), now + timeout)
        self._note(
            "binding-update-sent",
            peer=str(self.peer),
            sequence=sequence,
            care_of_address=str(sent_from),
            lifetime_s=message.lifetime_s,
            bids={binding.bid: str(binding.care_of_address) for binding in bids},
            flows={option.fid: Pro(option.pro).name.lower() for option in flows},
        )

    def _binding_update(
        self, sequence: int, bids: Sequence[ListedBinding], flows: Sequence[FlowIdentification], now: float
    ) -> BindingUpdate:
        """RFC 6275 §11.7.1 with the options of RFC 5648 §5.2 and draft §3.1; lifetime 0 without bindings."""
        identifiers = tuple(
            BindingIdentifier(binding.bid, 0, binding.home, binding.priority, binding.care_of_address)
            for binding in bids
            if binding.bid != NO_BID
        )
        network = self.mobile_network
        prefixes = network.options() if network and bids else ()
        return BindingUpdate(
            sequence,
            self._lifetime_s(bids, now),
            acknowledge=True,
            home_registration=not self.local,
            link_local_compatibility=self.link_local_compatibility(),
            map_registration=self.local,
            mobile_router=network is not None,
            overwrite=bool(identifiers) and not self.known_to_peer,
            options=identifiers + prefixes + self.dialect.options(flows),
        )

    def _lifetime_s(self, bids: Iterable[ListedBinding], now: float) -> int:
        """RFC 6275 §11.7.1: no longer than the addresses are valid; 0 without bindings."""
        addresses = [binding.care_of_address for binding in bids if binding.care_of_address]
        return max(4, int(min(self.lifetime_s, self.valid_s(addresses, now))) // 4 * 4) if addresses else 0

    def _compose(self) -> Composition:
        """What the next message has to say."""
        return compose(
            self.bindings,
            self.flows,
            whole=not self.known_to_peer,
            bulk=self.bulk_registration,
            prefixes=len(self.mobile_network.options()) if self.mobile_network else 0,
        )

    def awaits(self, message: BindingAcknowledgement) -> bool:
        """Whether this would answer the last Binding Update."""
        return self._outstanding is not None and message.sequence == self._outstanding.sequence

    def acknowledged(self, message: BindingAcknowledgement, now: float) -> bool:
        """Take a Binding Acknowledgement (RFC 6275 §11.7.3); False if it answers nothing that was asked."""
        outstanding = self._outstanding
        if outstanding is None:
            return False
        if message.status == Status.SEQUENCE_NUMBER_OUT_OF_WINDOW:
            if message.sequence == outstanding.sequence and self._superseded:
                self._note_superseded(message)  # the last one has overtaken it and been accepted
                return True
            if not sequence_is_newer(self.sequence, message.sequence):
                self.sequence = message.sequence
                self._send(now, outstanding.timeout)
                return True
            return False
        if message.sequence in self._superseded:
            self._note_superseded(message)
            return True
        if message.sequence != outstanding.sequence:
            return False
        self._timers.cancel(("retransmit", self.peer))
        self._outstanding = None
        self._note(
            "binding-acknowledgement-received",
            peer=str(self.peer),
            sequence=message.sequence,
            status=int(message.status),
            rtt_ms=round((now - outstanding.sent_at) * 1000, 3),
        )
        if self.leaving and message.status != Status.MIPV6_ID_MISMATCH:
            self.lapsed |= message.status == Status.NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE
            self._gone()
        elif message.status < 128:
            self._accepted(message, outstanding, now)
        else:
            self._rejected(message, outstanding, now)
        return True

    def _note_superseded(self, message: BindingAcknowledgement) -> None:
        self._note("binding-acknowledgement-superseded", peer=str(self.peer), sequence=message.sequence)

    def _accepted(self, message: BindingAcknowledgement, outstanding: Outstanding, now: float) -> None:
        if self.mobile_network is not None:
            self.mobile_network.served = message.mobile_router
            if not message.mobile_router:  # RFC 3963 §5.3: it does not know mobile routers
                self._note("mobile-router-unsupported", peer=str(self.peer))
                self.known_to_peer = True
                return self.leave(now)
        self.accepted_once, self.lapsed = True, False
        if not self.known_to_peer:
            self.known_to_peer = True
            self._forget_registered()  # our first message replaced all that the receiver had (O flag)
        lifetime_s = min(message.lifetime_s, outstanding.lifetime_s)
        statuses = {option.bid: option.status for option in message.all_options(BindingIdentifier)}
        if not statuses and self.home_address in outstanding.bids.values():
            self.home_binding_refused = True  # RFC 5648 §6.3: it does not know home bindings
        for bid, care_of_address in outstanding.bids.items():
            status = statuses.get(bid) or message.status  # RFC 5648 §5.7
            self._binding_answered(self.bindings[bid], care_of_address, status, outstanding, lifetime_s)
        if None in outstanding.bids.values():
            self.flows.forget_lost()
        self.flows.answered(message, outstanding.flows)
        self._schedule(message, outstanding, lifetime_s)
        self.update(now)

    def _binding_answered(
        self,
        binding: ListedBinding,
        care_of_address: IPv6Address,
        status: int,
        outstanding: Outstanding,
        lifetime_s: int,
    ) -> None:
        binding.refresh_due = binding.contradicted = False
        if care_of_address is None:
            binding.registered = None
        elif status < 128:
            binding.registered, binding.status = care_of_address, status
            binding.expires = outstanding.sent_at + lifetime_s
        else:
            if binding.care_of_address == care_of_address:
                binding.refused = status
                self.home_binding_refused |= binding.home
            self._note("binding-refused", peer=str(self.peer), bid=binding.bid, status=status)

    def _rejected(self, message: BindingAcknowledgement, outstanding: Outstanding, now: float) -> None:
        removed = outstanding.bids and not any(outstanding.bids.values())
        if removed and message.status == Status.NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE:
            return self._accepted(message, outstanding, now)  # the receiver has none of these any more
        self._note("registration-refused", peer=str(self.peer), status=int(message.status))
        if message.status == Status.MCOA_NON_MCOA_BINDING_EXISTS:
            self.known_to_peer = False  # RFC 5648 §5.7: the next one replaces it (O flag)
            self._forget_registered()
            self._send(now, INITIAL_BINDACK_TIMEOUT)
        elif message.status == Status.MIPV6_ID_MISMATCH:
            self._send(now, outstanding.timeout)  # RFC 4285 §6: the time of day has been corrected
        elif self.home_address in outstanding.bids.values():
            self.home_binding_refused = True
        elif message.status == Status.MCOA_PROHIBITED and self.takes_bids:
            self._do_without_bids(now)
        elif message.status == Status.MCOA_BULK_REGISTRATION_PROHIBITED and self.bulk_registration:
            self.bulk_registration = False
            self._send(now, INITIAL_BINDACK_TIMEOUT)
        elif self.mobile_network is not None and message.status in MOBILE_ROUTER_STATUSES:
            self.known_to_peer = False  # RFC 3963 §5.4: there is no binding cache entry
            self._forget_registered()
            if self.mobile_network.refused(message.status):
                self._send(now, INITIAL_BINDACK_TIMEOUT)
            elif not self.unserved(now):
                self.given_up = int(message.status)
                self._note("mobile-router-refused", peer=str(self.peer), status=self.given_up)
        elif self.known_to_peer or not self.unserved(now):
            # nothing that we could mend: ask again at the slowest rate (RFC 6275 §11.7.3, §11.8)
            self._outstanding = replace(outstanding, timeout=MAX_BINDACK_TIMEOUT)
            self._timers.set(("retransmit", self.peer), now + MAX_BINDACK_TIMEOUT)

    def _do_without_bids(self, now: float) -> None:
        """RFC 5648 §5.7: this receiver is not asked for several bindings any more. One without a BID, at the
        most preferred care-of address, takes the place of all; flow bindings wait."""
        known = [binding for binding in self.bindings.values() if binding.care_of_address is not None]
        best = min(known, key=lambda binding: (binding.priority or 128, binding.bid), default=None)
        self.start_anew()
        self.takes_bids = False
        self.bind(NO_BID, 0, best.care_of_address if best else None)
        self._send(now, INITIAL_BINDACK_TIMEOUT)

    def start_anew(self) -> None:
        """Forget what is wanted and what is registered: the next message replaces what the receiver has."""
        self.resume()
        self.bindings.clear()
        for listed in self.flows.values():
            listed.times_sent = 0

    def _schedule(self, message: BindingAcknowledgement, outstanding: Outstanding, lifetime_s: int) -> None:
        due = self._refresh_time(outstanding.sent_at, lifetime_s)
        advice = message.option(BindingRefreshAdvice)
        if advice is not None:
            due = min(due, outstanding.sent_at + max(advice.refresh_interval_s, 1))
        if all(binding.bid in outstanding.bids for binding in self.bindings.values() if binding.registered):
            self._timers.set(("refresh", self.peer), due)
        expiries = [binding.expires for binding in self.bindings.values() if binding.registered]
        if expiries:
            self._timers.set(("expire", self.peer), min(expiries))

    def _refresh_time(self, sent_at: float, lifetime_s: int) -> float:
        """When to renew what was asked for at `sent_at`: where that must not outlast another registration,
        once this one has been renewed, if there is time; before, only what is left of it could be had."""
        due, other = sent_at + REFRESH_AT * lifetime_s, self.renewed_first()
        after = due if other is None else other + INITIAL_BINDACK_TIMEOUT
        return after if due < after < sent_at + lifetime_s - INITIAL_BINDACK_TIMEOUT else due

    def next_refresh(self) -> float | None:
        """When this registration is renewed, None while that is not known."""
        return self._timers.get(("refresh", self.peer))

    def _expire(self, now: float) -> None:
        for binding in self.bindings.values():
            if binding.registered and binding.expires <= now:
                binding.registered = None
                self._note("binding-expired", peer=str(self.peer), bid=binding.bid)
        left = [binding.expires for binding in self.bindings.values() if binding.registered]
        if left:
            self._timers.set(("expire", self.peer), min(left))
        else:
            self.known_to_peer = False
            self.lapsed = True
        self.flows.forget_lost()
        self.update(now)

    def _forget_registered(self) -> None:
        for binding in self.bindings.values():
            binding.registered = None
        self.flows.forget_lost()

    def _gone(self) -> None:
        self.left = True
        self.known_to_peer = False
        self._outstanding = None
        self._timers.cancel(("retransmit", self.peer))
        self._forget_registered()
        self._note("deregistered", peer=str(self.peer))
