"""A random walk of all roles through everything that can happen to them: see docs/invariants.md.

Mobile nodes roam, change their flow bindings, optimise routes; messages are lost, late, doubled, played back;
roles restart with and without memory, kernels fail. `--walk N` takes N walks, different ones each time.
"""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from simulation import CORRESPONDENT, HOME_AGENT, INTERFACES
from walk_invariants import (
    MAX_ELEMENTS,
    SENTENCES,
    WINDOW_S,
    Invariants,
    footprint,
    holdings,
    registrations,
)
from walk_world import ANCHORS, MOBILE_CORRESPONDENTS, PLACES, World, registrar

from testbed.mobility.binding import FlowBinding
from testbed.mobility.forwarding import Action
from testbed.mobility.listed_flows import FlowError
from testbed.mobility.policy import Policy
from testbed.mobility.return_routability import MAX_NONCE_LIFETIME, authorised, binding_management_key
from testbed.wire.message import BindingAcknowledgement, BindingUpdate
from testbed.wire.option import BindingIdentifier, NonceIndices
from testbed.wire.packet import Packet, build_packet
from testbed.wire.selector import IPv6TrafficSelector

PAGE = Path(__file__).parents[2] / "docs" / "invariants.md"
POLICIES = (
    Policy(),
    Policy(discard=False, port_selectors=False),
    Policy(n_cast=False, max_flows=2),
    Policy(max_bindings=1),
    Policy(bulk_registration=False),
    Policy(multiple_care_of_addresses=False),
)
STATIONS = st.sampled_from(("mn1", "mn2", "mr"))
NAMES = st.sampled_from([interface.name for interface in INTERFACES])
CORRESPONDENTS = ("cn", *MOBILE_CORRESPONDENTS)
RECEIVERS = st.sampled_from(("ha", *ANCHORS, *CORRESPONDENTS))
PAUSES = st.sampled_from((0.0, 0.1, 1.0, 10.0))
FLOWS = st.builds(
    lambda fid, priority, action, bids, port: FlowBinding(
        fid,
        priority,
        action,
        (1, 2) if action is Action.N_CAST else bids,
        None if port is None else IPv6TrafficSelector(source_port=(port, port)),
    ),
    fid=st.integers(1, 3),
    priority=st.integers(0, 2),
    action=st.sampled_from(Action),
    bids=st.sampled_from(((1,), (2,), (1, 2), (2, 1))),
    port=st.sampled_from((None, 22, 443)),
)
STRANGER = CORRESPONDENT + 99
#: Longer than anything is remembered of who has left.
LONG_S = 700.0


class Walk(RuleBasedStateMachine):
    dialect: str

    @initialize(
        policy=st.sampled_from(POLICIES),
        flow_updates=st.sampled_from(("together", "each")),
        detection=st.booleans(),
    )
    def begin(self, policy, flow_updates, detection):
        self.watch = Invariants()
        self.world = World(self.dialect, policy, flow_updates, detection, self.watch)
        self.watch.world = self.world
        for name, station in self.world.stations.items():
            for interface in INTERFACES:
                self.world.move(station, interface.name, "north")
            self.ask(name, "add_flow", FlowBinding(1, 1, Action.FORWARD, (1,)))
            if name != "mr":
                optimise_all(self.world, name)
        self.world.run(5)

    @rule(
        loss=st.sampled_from((0.0, 0.2, 0.7)),
        duplication=st.sampled_from((0.0, 0.3)),
        seed=st.integers(0, 2**16),
    )
    def weather(self, loss, duplication, seed):
        self.world.loss, self.world.duplication = loss, duplication
        self.world.random.seed(seed)

    @rule(name=STATIONS, interface=NAMES, place=st.sampled_from((*PLACES, None)), pause=PAUSES)
    def move(self, name, interface, place, pause):
        self.world.move(self.world.stations[name], interface, place)
        self.world.run(pause)

    @rule(name=STATIONS, place=st.sampled_from(tuple(PLACES)), pause=PAUSES)
    def travel(self, name, place, pause):
        """With all interfaces."""
        for interface in INTERFACES:
            self.world.move(self.world.stations[name], interface.name, place)
        self.world.run(pause)

    @rule(
        name=st.sampled_from(("mn1", "mn2", "mr", "ha", "cn", "map1")), seconds=st.sampled_from((3.0, 60.0))
    )
    def vanish(self, name, seconds):
        """Nothing comes or goes for a while: everything has run out after the longer one."""
        self.world.silent.add(name)
        self.world.run(seconds)
        self.world.silent.discard(name)

    def ask(self, name, operation, flow):
        """What a user asks for, if that can be had."""
        station = self.world.stations[name]
        if name not in self.world.roles:
            return
        try:
            getattr(station.role, operation)(flow, self.world.now)
        except FlowError:
            return
        if flow.selector is None and operation == "replace_flow" and flow.fid in station.wished:
            flow = replace(flow, selector=station.wished[flow.fid].selector)
        station.wished[flow.fid] = flow
        if operation == "add_flow":
            station.doubtful.discard(flow.fid)

    @rule(name=STATIONS, flow=FLOWS, pause=PAUSES)
    def add_flow(self, name, flow, pause):
        self.ask(name, "add_flow", flow)
        self.world.run(pause)

    @rule(name=STATIONS, flow=FLOWS, pause=PAUSES)
    def replace_flow(self, name, flow, pause):
        self.ask(name, "replace_flow", flow)
        self.world.run(pause)

    @rule(name=STATIONS, fid=st.integers(1, 3), pause=PAUSES)
    def remove_flow(self, name, fid, pause):
        station = self.world.stations[name]
        if name in self.world.roles:
            try:
                station.role.remove_flow(fid, self.world.now)
            except FlowError:
                return
            station.wished.pop(fid, None)
        self.world.run(pause)

    @rule(
        name=st.sampled_from(MOBILE_CORRESPONDENTS),
        peer=st.sampled_from(CORRESPONDENTS),
        operation=st.sampled_from(("optimise", "stop_optimising")),
    )
    def optimise(self, name, peer, operation):
        if name in self.world.roles and peer != name:
            getattr(self.world.stations[name].role, operation)(self.world.receivers[peer], self.world.now)

    @rule(
        name=st.sampled_from(("ha", "cn", *ANCHORS, "mn1", "mn2", "mr")),
        with_memory=st.booleans(),
        seconds=st.sampled_from((0.0, 0.5, 20.0)),
        pause=PAUSES,
    )
    def restart(self, name, with_memory, seconds, pause):
        if name in self.world.roles:
            self.world.restart(name, with_memory, seconds)
            if name in self.world.stations and not with_memory:
                self.world.stations[name].wished.clear()
                self.world.stations[name].doubtful.clear()
        self.world.run(pause)

    @rule(name=RECEIVERS)
    def kernel_fails_or_is_mended(self, name):
        self.world.failing ^= {name}

    @rule(
        kind=st.sampled_from(("play back", "update", "claim", "expired", "acknowledgement")),
        name=STATIONS,
        receiver=RECEIVERS,
        bid=st.integers(1, 2),
        chance=st.floats(0, 1, exclude_max=True),
    )
    def attack(self, kind, name, receiver, bid, chance):
        if kind == "play back" and self.world.processed:
            self._play_back(*self.world.processed[int(chance * len(self.world.processed))])
        elif kind == "update":
            self._forge_an_update(name, receiver, bid)
        elif kind == "claim":
            self._claim_an_address_of_another(name, receiver, bid)
        elif kind == "expired":
            self._use_expired_tokens()
        elif kind == "acknowledgement":
            self._forge_an_acknowledgement(name, (0, 128, 135)[int(chance * 3)], receiver)

    def _strike(self, name, packet):
        before = holdings(self.world.roles[name])
        self.world.deliver(name, build_packet(packet, self.world.codec))
        self.watch.the_forged_changes_nothing(name, before)

    def _play_back(self, when, name, octets):
        forgot = self.world.forgot.get(name, float("-inf"))
        if name not in self.world.roles or (when < forgot and self.world.now < forgot + WINDOW_S):
            return  # a home agent that has lost its memory cannot know: RFC 4285 has time stamps for that
        before = holdings(self.world.roles[name])
        self.world.deliver(name, octets)
        self.watch.the_forged_changes_nothing(name, before)

    def _forge_an_update(self, name, receiver, bid):
        """Without a key, for the home address of another."""
        if receiver not in self.world.roles:
            return
        victim = self.world.stations[name]
        registration = victim.role.flow_registration
        options = (BindingIdentifier(bid, priority=1, care_of_address=STRANGER),)
        flags = {"home_registration": receiver == "ha", "map_registration": receiver in ANCHORS}
        update = BindingUpdate((registration.sequence + 9) % 65536, 60, True, options=options, **flags)
        home_address = registration.home_address if receiver in ANCHORS else victim.home_address
        destination = self.world.receivers[receiver]
        self._strike(receiver, Packet(STRANGER, destination, update, home_address=home_address))

    def _claim_an_address_of_another(self, name, receiver, bid):
        """A mobile node with tokens of its own names a care-of address that it was not tested at."""
        peer = self.world.receivers[receiver]
        known = self.world.stations[name].role.optimiser.correspondents.get(peer)
        if known is None or name not in self.world.roles or receiver not in self.world.roles:
            return
        home, tests = known._home_test.usable(self.world.now), known._care_of_tests
        tokens = {address: test.usable(self.world.now) for address, test in tests.items()}
        own = next((address for address, token in tokens.items() if token), None)
        if home is None or own is None:
            return
        key = binding_management_key(home.value, tokens[own].value)
        options = (
            BindingIdentifier(bid, 0, False, 1, STRANGER),
            NonceIndices(home.nonce_index, tokens[own].nonce_index),
        )
        update = BindingUpdate((known.sequence + 1) % 65536, 60, True, options=options)
        for proven in (own, STRANGER):
            message = authorised(update, key, proven, peer, self.world.codec)
            self._strike(receiver, Packet(own, peer, message, home_address=known.home_address))

    def _use_expired_tokens(self):
        """Mobile nodes come with all tokens that they were ever given, and that are too old."""
        for (receiver, name, care_of_address, _), (when, test) in self.world.given.items():
            if when + MAX_NONCE_LIFETIME >= self.world.now or receiver not in self.world.roles:
                continue
            home_address, peer = self.world.stations[name].home_address, self.world.receivers[receiver]
            home = self.world.given_home.get((receiver, name, test.care_of_nonce_index))
            if home is None:
                continue  # no home token of these days
            entry = registrar(self.world.roles[receiver]).cache.get(home_address)
            key = binding_management_key(home.home_keygen_token, test.care_of_keygen_token)
            options = (
                BindingIdentifier(1, 0, False, 1, care_of_address),
                NonceIndices(home.home_nonce_index, test.care_of_nonce_index),
            )
            sequence = (entry.sequence + 1) % 65536 if entry else 1
            update = BindingUpdate(sequence, 60, True, options=options)
            message = authorised(update, key, care_of_address, peer, self.world.codec)
            self._strike(receiver, Packet(care_of_address, peer, message, home_address=home_address))

    def _forge_an_acknowledgement(self, name, status, peer):
        station = self.world.stations[name]
        place = next(iter(station.places.items()), None)
        if name not in self.world.roles or place is None:
            return
        address, registration = station.address(*place), station.role.flow_registration
        message = BindingAcknowledgement(status, registration.sequence, 60)
        routing, source = registration.home_address, self.world.receivers[peer]
        self._strike(name, Packet(source, address, message, routing_address=routing))

    def teardown(self):
        if not hasattr(self, "world"):
            return
        world = self.world
        for name, role in world.roles.items():
            self.watch.tables_are_bounded(name, footprint(role), MAX_ELEMENTS)
        calm_down(world)
        agreed(world, self.watch)
        self._use_expired_tokens()
        there_and_back(world, self.watch)
        farewell(world)
        for name, role in world.roles.items():
            self.watch.nothing_is_left(name, role)
        elements = calm_life(world)
        for name, most in usual_elements(self.dialect).items():
            self.watch.tables_are_bounded(name, elements[name], most)


def optimise_all(world, name):
    """Have a mobile node exchange packets with all correspondent nodes directly."""
    for peer in CORRESPONDENTS:
        if peer != name:
            world.stations[name].role.optimise(world.receivers[peer], world.now)


def calm_down(world):
    """Good weather, patience, and a last movement: out of the domain of the anchor point that serves now."""
    world.loss = world.duplication = 0.0
    world.silent.clear()
    world.failing.clear()
    world.run(21)  # whoever is down comes back
    for name, station in world.stations.items():
        if station.role.registration.given_up is not None:  # it does not ask again (RFC 3963 §5.4)
            world.restart(name, True, 0.0)
    local = world.stations["mn2"].role.local
    place = "south" if local is not None and local.peer == ANCHORS[PLACES["north"]] else "north"
    for station in world.stations.values():
        for interface in INTERFACES:
            world.move(station, interface.name, place)
    world.run(150)


def agreed(world, invariants):
    """Everybody says the same, and says it quietly."""
    until_nothing_is_under_way(world)
    for station in world.stations.values():
        invariants.all_agree(station)
        invariants.users_get_what_they_asked_for(station)
    invariants.nobody_is_left_behind()
    seen = len(world.history)
    world.run(60)
    for station in world.stations.values():
        events = [event for _, name, event in world.history[seen:] if name == station.name]
        invariants.signalling_ends(station, events)
    until_nothing_is_under_way(world)
    for station in world.stations.values():
        invariants.all_agree(station)


def there_and_back(world, invariants):
    """A mobile node goes to the domain of another anchor point, and returns."""
    station = world.stations["mn2"]
    for place in ("south", "north"):
        for interface in INTERFACES:
            world.move(station, interface.name, place)
        world.run(15)
        until_nothing_is_under_way(world)
        invariants.former_anchor_points_are_left(station)
        invariants.all_agree(station)


def until_nothing_is_under_way(world):
    """Refreshes go on for ever: between two of them, no Binding Update waits for its answer."""
    for _ in range(200):
        known = [registration for s in world.stations.values() for _, registration in registrations(world, s)]
        if not any(registration.is_waiting for registration in known):
            return
        world.run(0.05)
    raise AssertionError("there is always a Binding Update under way")


def farewell(world):
    """All mobile nodes leave in good order; then a long time passes."""
    for station in world.stations.values():
        station.role.deregister(world.now)
    world.run(30)
    for station in world.stations.values():
        assert station.role.deregistered
    world.run(LONG_S)


def calm_life(world):
    """New lives of all mobile nodes, with nothing special in them; the elements of all tables after that."""
    for name, station in world.stations.items():
        station.wished.clear()
        world.restart(name, False, 0.0)
    world.run(5)
    for station in world.stations.values():
        if station.role.flow_registration.takes_bids:
            station.role.add_flow(FlowBinding(1, 10, Action.FORWARD, (1,)), world.now)
    for name in MOBILE_CORRESPONDENTS:
        optimise_all(world, name)
    world.run(60)
    farewell(world)
    return {name: footprint(role) for name, role in world.roles.items()}


@cache
def usual_elements(dialect):
    """The same of a world in which nothing else has happened."""
    world = World(dialect)
    for station in world.stations.values():
        for interface in INTERFACES:
            world.move(station, interface.name, "north")
    elements = calm_life(world)
    elements["map2"] = elements["map1"]  # which nobody comes to
    return {name: most + 20 for name, most in elements.items()}


def walk(dialect, request):
    class Machine(Walk):
        pass

    Machine.dialect = dialect
    more = request.config.getoption("--walk")
    chosen = settings(
        max_examples=more or 20,
        stateful_step_count=40,
        derandomize=not more,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink) if more else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=chosen)


@pytest.mark.requirement("RFC 5380 §6.1: mobile node, MAP and home agent agree after losses and movement")
@pytest.mark.requirement("RFC 6275 §11.8: after losses, both ends of each registration agree")
@pytest.mark.parametrize("dialect", ["draft", "rfc6089"])
def test_invariants_hold_on_a_random_walk(dialect, request):
    Invariants.checked.clear()
    walk(dialect, request)
    assert set(Invariants.checked) == set(SENTENCES), "an invariant that the walk never came to check"


def test_the_page_lists_the_invariants():
    rows = re.findall(r"^\| `([\w-]+)` \| (.*?) \|", PAGE.read_text(), re.MULTILINE)
    assert dict(rows) == SENTENCES


def test_nobody_but_registrars_receives_registrations():
    """What the walk takes for receivers are all that there are."""
    world = World()
    found = {name for name, role in world.roles.items() if registrar(role) is not None}
    assert found == {"ha", *ANCHORS, *CORRESPONDENTS} and world.addresses[HOME_AGENT] == "ha"
