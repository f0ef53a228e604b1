"""What holds whatever happens: the invariants of docs/invariants.md, each a method with its sentence.

Class: `Invariants`. Functions: `named`, `footprint`.
"""

import types
from collections import Counter, deque
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

from walk_world import ANCHORS, Station, World, mobile, registrar

from testbed.mobility.authentication import Verifier
from testbed.mobility.binding_cache import CacheEntry
from testbed.mobility.correspondent_node import ANY_OF_OURS, CorrespondentNode
from testbed.mobility.forwarding import Action
from testbed.mobility.hierarchical_node import HierarchicalMobileNode
from testbed.mobility.mobile_node import MobileNode
from testbed.mobility.registrar import Registrar
from testbed.mobility.registration import Registration
from testbed.mobility.return_routability import MAX_NONCE_LIFETIME
from testbed.mobility.role import Event, Role
from testbed.wire.codec import Codec
from testbed.wire.flow import FlowIdentification, Pro
from testbed.wire.message import BindingAcknowledgement, BindingUpdate
from testbed.wire.option import AlternateCareOfAddress, BindingIdentifier
from testbed.wire.packet import Packet

#: How old a time stamp may be (RFC 4285 §6).
WINDOW_S = 7.0
#: Sentences by name, as the page has them.
SENTENCES: dict[str, str] = {}
#: Binding Updates in a minute in which nothing happens: refreshes, of each of two BIDs to each of four
#: receivers, with lifetimes as short as what is left of those that they depend on.
MAX_REFRESHES = 60
#: Elements of all tables of a role: far more than three mobile nodes with a few flow bindings need.
MAX_ELEMENTS = 1500


def named(method: Callable[..., None]) -> Callable[..., None]:
    """An invariant: its name is that of the method, its sentence the docstring. Counts how often it is
    checked."""
    name = method.__name__.replace("_", "-")
    SENTENCES[name] = " ".join(method.__doc__.split())

    def checked(self: "Invariants", *arguments: Any) -> None:
        self.checked[name] += 1
        method(self, *arguments)

    return checked


class Invariants:
    """Looks at everything that happens in a world. An assertion fails where an invariant does not hold."""

    checked: Counter[str] = Counter()

    def __init__(self) -> None:
        self.world: World | None = None

    def __call__(self, what: str, *arguments: Any) -> None:
        if self.world is not None:
            getattr(self, f"_{what}")(*arguments)

    def _sent(self, name: str, packet: Packet, after_datapath: bool) -> None:
        role, message = self.world.roles[name], packet.message
        if isinstance(message, BindingAcknowledgement):
            home_address = packet.routing_address or packet.destination
            asked = self.world.asked.get((name, home_address, message.sequence))
            if message.status < 128 and asked is not None:
                self.kernel_before_promise(name, home_address, asked, message, after_datapath)
            if asked is not None and asked is self.world.turn.packet:
                entry = registrar(role).cache.get(home_address)
                self.refusals_change_nothing(self.world.turn.before.get(home_address), entry, asked, message)
        if isinstance(message, BindingUpdate) and mobile(role) is not None:
            if packet.destination in mobile(role).optimiser.correspondents:
                self.no_copies_at_correspondents(_asked_of(message), message)

    def _turned(self, name: str) -> None:
        role = self.world.roles[name]
        for wanted in (*self.world.applied[name].values(), *self.world.routes[name].values()):
            self.always_a_way(wanted)
        if name not in self.world.failing:
            self.changes_add_up(name, role)
        receiver = registrar(role)
        if receiver is not None:
            self.nothing_outlives_its_lifetime(receiver)
            if receiver.verifier is not None:
                self.stale_time_stamps_are_forgotten(receiver.verifier)
        if isinstance(receiver, CorrespondentNode):
            self.proof_of_each_address(name, receiver)
            for (_, correspondent), wanted in self.world.routes[name].items():
                if correspondent != ANY_OF_OURS:
                    continue
                rules = [(rule.action, rule.bids) for rule in wanted.rules]
                self.no_copies_at_correspondents(rules, wanted)

    def _event(self, name: str, event: Event) -> None:
        station = self.world.stations.get(name)
        if station is None or event.name != "flow-changed" or event.fields["accepted"]:
            return
        if event.fields.get("peer", "") == str(station.role.flow_registration.peer):
            station.doubtful.add(event.fields["fid"])

    def _restarted(self, name: str, gone: Role, role: Role, with_memory: bool) -> None:
        for part in (mobile, registrar):
            if with_memory and part(gone) is not None:
                self.promises_survive_a_restart(part(gone), part(role))

    @named
    def always_a_way(self, wanted: Any) -> None:
        """No flow is left without a way: rules name only paths that there are, and where there are paths, one
        of them is the default."""
        bids = {path.bid for path in wanted.paths}
        assert (wanted.default_bid in bids) == bool(bids), wanted
        for rule in wanted.rules:
            assert set(rule.bids) <= bids, (rule, bids)
            copied_elsewhere = rule.action is Action.N_CAST and hasattr(wanted, "side")
            assert (rule.action is Action.DISCARD) == (not rule.bids) or copied_elsewhere, rule
        order = [(rule.priority, rule.fid) for rule in wanted.rules]
        assert order == sorted(order)

    @named
    def changes_add_up(self, name: str, role: Role) -> None:
        """The changes that a role has told of, one after the other, add up to the whole state that it
        wants."""
        behind = self.world.behind.get(name, set())
        for applied, wanted in (
            (self.world.applied[name], role.forwarding()),
            (self.world.routes[name], role.optimisations()),
        ):
            for key in applied.keys() | wanted.keys():
                assert key in behind or applied.get(key) == wanted.get(key), (name, key)

    @named
    def nothing_outlives_its_lifetime(self, role: Registrar) -> None:
        """No packet follows a binding whose lifetime is over."""
        for entry in role.cache:
            assert all(binding.expires >= self.world.now for binding in entry.bindings.values())

    @named
    def stale_time_stamps_are_forgotten(self, verifier: Verifier) -> None:
        """No time stamp is remembered that could not be played back any more, once a newer one has come."""
        stamps = verifier.timestamps.values()
        assert not stamps or max(stamps) - min(stamps) <= 3 * WINDOW_S * (1 << 32), stamps

    @named
    def proof_of_each_address(self, name: str, role: CorrespondentNode) -> None:
        """A correspondent node has no care-of address, hence no flow, whose mobile node has not received a
        keygen token there."""
        homes = {station.home_address: station.name for station in self.world.stations.values()}
        for entry in role.cache:
            for binding in entry.bindings.values():
                since = self.world.tested.get(
                    (name, homes[entry.home_address], binding.care_of_address)
                )
                made = binding.expires - binding.lifetime_s
                assert since is not None and made <= since + MAX_NONCE_LIFETIME, binding

    @named
    def no_copies_at_correspondents(self, flows: list[tuple[int, tuple[int, ...]]], where: Any) -> None:
        """No flow is n-cast by a correspondent node, nor asked to be, and a mobile node asks for a flow in
        the message of the BID that it is to go to."""
        for action, bids in flows:
            assert action != Action.N_CAST and len(bids) <= 1, where
        if isinstance(where, BindingUpdate):
            own = {option.bid for option in where.all_options(BindingIdentifier)}
            assert all(set(bids) <= own for _, bids in flows), where

    @named
    def kernel_before_promise(
        self,
        name: str,
        home_address: IPv6Address,
        asked: Packet,
        answer: BindingAcknowledgement,
        after_datapath: bool,
    ) -> None:
        """When a Binding Update is acknowledged as accepted, the kernel does what it asked for already."""
        assert after_datapath
        update = asked.message
        wanted = self.world.applied[name].get(home_address)
        if isinstance(registrar(self.world.roles[name]), CorrespondentNode):
            wanted = self.world.routes[name].get((home_address, ANY_OF_OURS))
        paths = {path.bid: path.remote for path in wanted.paths} if wanted else {}
        rules = {rule.fid for rule in wanted.rules} if wanted else set()
        accepted = {o.bid for o in answer.all_options(BindingIdentifier) if o.status < 128}
        named_ = update.all_options(BindingIdentifier)
        if update.lifetime_s == 0 or asked.source == home_address:
            assert not paths.keys() & {o.bid for o in named_} if named_ else not paths
            return
        alternate = update.option(AlternateCareOfAddress)
        source = alternate.care_of_address if alternate else asked.source
        expected = {o.bid: o.care_of_address or source for o in named_ if o.bid in accepted}
        assert expected.items() <= paths.items(), (expected, paths)
        for option in answer.all_options(FlowIdentification):
            if option.status < 128 and option.pro == Pro.REMOVE:
                assert option.fid not in rules
            elif option.status < 128 and option.pro in (Pro.ADD, Pro.REPLACE):
                assert option.fid in rules, (option, rules)

    @named
    def refusals_change_nothing(
        self,
        before: CacheEntry | None,
        after: CacheEntry | None,
        asked: Packet,
        answer: BindingAcknowledgement,
    ) -> None:
        """A Binding Update, BID or flow option that is refused changes nothing: no packet follows it."""
        had = (before.bindings, before.flows) if before else ({}, {})
        has = (after.bindings, after.flows) if after else ({}, {})
        if answer.status >= 128:
            assert had == has, answer
        kept = (None,) if asked.message.overwrite else ()
        for option in answer.all_options(BindingIdentifier):
            if option.status >= 128:
                assert has[0].get(option.bid) in (had[0].get(option.bid), *kept), option
        for option in answer.all_options(FlowIdentification):
            if option.status >= 128:
                assert has[1].get(option.fid) in (had[1].get(option.fid), None), option

    @named
    def the_forged_changes_nothing(self, name: str, before: Any) -> None:
        """A message that is forged, or played back, changes nothing that anyone holds."""
        assert before == holdings(self.world.roles[name]), name

    @named
    def promises_survive_a_restart(self, gone: Role, role: Role) -> None:
        """Nothing that was promised is lost by a restart with the saved state: bindings and flow bindings at
        those who register them, what its user has asked for at a mobile node."""
        now = self.world.now
        if isinstance(gone, MobileNode):
            wished = {flow.fid: flow for flow in _wanted_flows(gone)}
            assert {flow.fid: flow for flow in _wanted_flows(role)} == wished
            leaving = {peer for peer, known in gone.optimiser.correspondents.items() if known.leaving}
            assert role.optimiser.correspondents.keys() == gone.optimiser.correspondents.keys() - leaving
            return
        for entry in gone.cache:
            expired = [bid for bid, binding in entry.bindings.items() if binding.expires <= now]
            entry.forget_bids(expired, gone.dialect.keeps_inactive)
        kept = [entry for entry in role.cache if entry.bindings]
        assert {e.home_address for e in gone.cache if e.bindings} == {e.home_address for e in kept}
        for entry in kept:
            before = gone.cache.get(entry.home_address)
            assert (entry.flows, entry.sequence, entry.prefixes) == (
                before.flows,
                before.sequence,
                before.prefixes,
            )
            assert entry.bindings.keys() == before.bindings.keys()
            for bid, binding in entry.bindings.items():
                assert abs(binding.expires - before.bindings[bid].expires) < 1e-6
                assert binding.care_of_address == before.bindings[bid].care_of_address
        assert role.forwarding() == gone.forwarding() and role.optimisations() == gone.optimisations()

    @named
    def all_agree(self, station: Station) -> None:
        """Once it is quiet, what a mobile node has listed as registered is what its home agent, anchor point
        and correspondent nodes hold: care-of addresses, flow bindings, and the order of these."""
        role = station.role
        for name, registration in registrations(self.world, station):
            receiver = registrar(self.world.roles[name])
            entry = receiver.cache.get(registration.home_address)
            listed = {b.bid: b.registered for b in registration.bindings.values() if b.registered}
            held = {b.bid: b.care_of_address for b in entry.bindings.values()} if entry else {}
            assert listed == held, (station.name, name)
            flows = {flow.fid: flow for flow in registration.flows.registered()}
            assert flows == (entry.flows if entry else {}), (station.name, name)
            if isinstance(receiver, CorrespondentNode):
                ours = role.optimisations().get((station.home_address, self.world.receivers[name]))
                theirs = receiver.optimisations().get((station.home_address, ANY_OF_OURS))
            else:
                ours = role.home_binding(registration.home_address)
                theirs = receiver.home_binding(registration.home_address)
            assert ours is not None and theirs is not None, (station.name, name)
            if any(path.via for path in ours.paths):
                continue  # it goes by the rules of the anchor point
            copied = [rule for rule in ours.rules if rule.bids or rule.action is not Action.N_CAST]
            assert tuple(copied) == theirs.rules and ours.default_bid == theirs.default_bid

    @named
    def nobody_is_left_behind(self) -> None:
        """Once it is quiet, nobody holds a binding that its mobile node does not want: who was left, an
        anchor point of another domain say, has been told or has forgotten."""
        listed = {
            (name, registration.home_address)
            for station in self.world.stations.values()
            for name, registration in registrations(self.world, station)
        }
        for name, role in self.world.roles.items():
            receiver = registrar(role)
            held = {(name, e.home_address) for e in receiver.cache if e.bindings} if receiver else set()
            assert held <= listed, held - listed

    @named
    def users_get_what_they_asked_for(self, station: Station) -> None:
        """Once it is quiet, each flow binding that a user has asked for is registered as asked, unless it was
        refused; and each care-of address."""
        role = station.role
        known = {item["flow"].fid: item for item in role.flows()}
        dialect = role.flow_registration.dialect
        wished = {fid: dialect.wanted(flow) for fid, flow in station.wished.items()}
        doubtful = station.doubtful
        assert known.keys() - doubtful == wished.keys() - doubtful, (station.name, known, wished)
        refused = {b.bid for b in role.flow_registration.bindings.values() if b.refused is not None}
        if not role.flow_registration.takes_bids:
            assert {item["state"] for item in known.values()} <= {"waiting"}, station.name
            wished = {}
        for fid in wished.keys() - doubtful:
            if not refused.isdisjoint(wished[fid].bids):
                continue  # it waits for a BID that is not to be had
            assert (known[fid]["flow"], known[fid]["state"]) == (wished[fid], "registered"), station.name
        for binding in role.flow_registration.bindings.values():
            assert binding.refused is not None or binding.registered == binding.care_of_address

    @named
    def signalling_ends(self, station: Station, events: list[Event]) -> None:
        """When nothing happens any more, a mobile node sends refreshes, and nothing goes unanswered."""
        sent = [event for event in events if event.name == "binding-update-sent"]
        assert len(sent) <= MAX_REFRESHES, (station.name, sent)
        unwanted = ("binding-update-unanswered", "registration-refused", "message-dropped")
        found = [event for event in events if event.name in unwanted]
        assert not found, (station.name, found)

    @named
    def former_anchor_points_are_left(self, station: Station) -> None:
        """Once a mobile node has come from the domain of one anchor point into that of another, the former
        one has nothing of it any more, long before its lifetime is over."""
        current = {name for name, _ in registrations(self.world, station)}
        for name in ANCHORS.keys() - current:
            homes = {entry.home_address for entry in self.world.roles[name].cache if entry.bindings}
            assert not homes, (station.name, name, homes)

    @named
    def nothing_is_left(self, name: str, role: Role) -> None:
        """Once all mobile nodes have de-registered, nobody forwards anything, and nothing is remembered that
        has no end."""
        assert role.forwarding() == {} and role.optimisations() == {}, name
        receiver = registrar(role)
        if receiver is not None:
            assert len(receiver.cache) == 0 and receiver.timer() is None, name

    @named
    def tables_are_bounded(self, name: str, elements: int, most: int) -> None:
        """The tables of a role do not grow with what has happened, only with what there is."""
        assert elements <= most, (name, elements, most)


def registrations(world: World, station: Station) -> list[tuple[str, Registration]]:
    """With whom a mobile node is registered."""
    role = station.role
    names = {address: name for name, address in world.receivers.items()}
    found = [(names[role.registration.peer], role.registration)]
    if isinstance(role, HierarchicalMobileNode) and role.local is not None:
        found.append((names[role.local.peer], role.local))
    return found + [(names[peer], known) for peer, known in role.optimiser.correspondents.items()]


def holdings(role: Role) -> Any:
    """What a role holds of others: caches at those who are registered with, lists at mobile nodes."""
    receiver, node = registrar(role), mobile(role)
    cache = receiver.cache if receiver is not None else ()
    held = {e.home_address: (dict(e.bindings), dict(e.flows)) for e in cache if e.bindings}
    if node is None:
        return held
    registration = node.flow_registration
    return (
        held,
        {bid: (b.care_of_address, b.registered, b.refused) for bid, b in registration.bindings.items()},
        {fid: (item.flow, item.registered, item.operation) for fid, item in registration.flows.items()},
        registration.known_to_peer,
    )


def _wanted_flows(role: MobileNode) -> list:
    return [role._flow_requests.wanted(flow) for flow in role.flow_registration.flows.wanted()]


def _asked_of(update: BindingUpdate) -> list[tuple[int, tuple[int, ...]]]:
    options = [o for o in update.all_options(FlowIdentification) if o.pro in (Pro.ADD, Pro.REPLACE)]
    return [(option.action, tuple(option.binding_reference or ())) for option in options]


_CONTAINERS = (dict, list, set, deque, tuple, frozenset)


def footprint(role: Role) -> int:
    """How many elements all tables have that a role leads to: its own, and those of its parts. But for what
    codecs remember, which has bounds of its own, as what functions remember has."""
    seen, todo, elements = {id(role)}, [role], 0
    while todo:
        thing = todo.pop()
        if isinstance(thing, dict):
            parts = [*thing.keys(), *thing.values()]
            elements += len(thing)
        elif isinstance(thing, _CONTAINERS):
            parts = list(thing)
            elements += len(thing)
        elif isinstance(thing, types.MethodType):
            parts = [thing.__self__]
        else:
            parts = [value for _, value in _attributes(thing)]
        for part in parts:
            if isinstance(part, Codec):
                continue
            ours = type(part).__module__.startswith("testbed.") or isinstance(part, _CONTAINERS)
            if (ours or isinstance(part, types.MethodType)) and id(part) not in seen:
                seen.add(id(part))
                todo.append(part)
    return elements


def _attributes(thing: Any) -> list[tuple[str, Any]]:
    names = [slot for kind in type(thing).__mro__ for slot in getattr(kind, "__slots__", ())]
    found = [(name, getattr(thing, name, None)) for name in names]
    return found + list(getattr(thing, "__dict__", {}).items())
