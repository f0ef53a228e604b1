"""The mirror against switches in memory: whatever happens, they end up with exactly the wanted rules."""

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.fabric import Access, Fabric
from controllers.mirror import Mirror
from controllers.rule import INFRASTRUCTURE, MARK, Group, Output, Rule, cookie, cookie_owner, match
from controllers.switch import Commit, Port, Read, Renew
from controllers.translation import ADMIT
from testbed.mobility.feed import FeedUpdate
from testbed.mobility.forwarding import Action, FlowRule, HomeBinding, Path
from testbed.wire.selector import IPv6TrafficSelector

AGENT = IPv6Address("2001:db8:100::1")
HOMES = [IPv6Address("2001:db8:100::100") + number for number in range(4)]
WLAN, CELLULAR = IPv6Address("2001:db8:201::ff:fe00:1"), IPv6Address("2001:db8:202::ff:fe00:2")
FABRIC = Fabric(
    1,
    ("s0-cn",),
    (
        Access("wlan", IPv6Network("2001:db8:201::/64"), 2, "s0-s1", ("s1-s0",)),
        Access("cellular", IPv6Network("2001:db8:202::/64"), 3, "s0-s2", ("s2-s0",)),
    ),
)
PORTS = {
    1: {"s0-cn": Port(1, True), "s0-core": Port(2, True), "s0-s1": Port(3, True), "s0-s2": Port(4, True)},
    2: {"s1-s0": Port(1, True), "s1-mn": Port(2, True)},
    3: {"s2-s0": Port(1, True), "s2-mn": Port(2, True)},
}
#: Somebody else's: never to be touched.
FOREIGN = Rule(10, 77, match(eth_type=0x0800), (), 0x1234)


def binding_of(home_address, first=WLAN, second=CELLULAR, action=Action.FORWARD, bids=(1,), fids=(1, 2)):
    paths = (Path(1, AGENT, first), Path(2, AGENT, second))
    rules = tuple(
        FlowRule(fid, 10, IPv6TrafficSelector(source_port=(fid, fid), next_header=(6, 6)), action, bids)
        for fid in fids
    )
    return HomeBinding(home_address, paths, 2, rules)


class FakeSwitch:
    """Rules and groups in memory; changes are made as a whole or not at all."""

    def __init__(self, number, capacity=None):
        self.number = number
        self.capacity = capacity
        self.rules = {FOREIGN.key: FOREIGN}
        self.groups = {}
        self.gate_open = False

    def commit(self, commit):
        rules, groups = dict(self.rules), dict(self.groups)
        groups |= {group.number: group for group in commit.new_groups}
        for rule in commit.old_rules:
            assert rules.get(rule.key) != FOREIGN
            rules.pop(rule.key, None)
        for rule in commit.new_rules:
            assert rule.cookie >> 56 == MARK
            rules[rule.key] = rule
        for group in commit.old_groups:
            groups.pop(group.number, None)
        ours = [rule for rule in rules.values() if rule.table == 10 and rule != FOREIGN]
        if self.capacity is not None and len(ours) > self.capacity:
            return "table full"
        for rule in rules.values():
            for action in rule.actions:
                assert not hasattr(action, "number") or action.number in groups, "a rule leads to no group"
        self.rules, self.groups = rules, groups
        return None

    def ours(self):
        return [rule for rule in self.rules.values() if rule.table == 10 and rule != FOREIGN]


class World:
    """A mirror, its switches, and what is on its way between them."""

    def __init__(self):
        self.mirror = Mirror(FABRIC)
        self.switches = {number: FakeSwitch(number) for number in PORTS}
        self.connected = set()
        self.pending = []
        self.now = 100.0
        self.serial = 0
        self.upset = False  # a switch has lost its rules: no order helps
        self.meddled = False  # nor does it against others

    def up(self, number):
        self.connected.add(number)
        self.mirror.switch_up(number, PORTS[number], self.now)
        self.collect()

    def down(self, number):
        self.connected.discard(number)
        self.upset = True
        self.pending = [output for output in self.pending if output.switch != number]
        self.mirror.switch_down(number, self.now)
        self.collect()

    def feed(self, changes, complete=False):
        self.serial += 1
        self.mirror.feed_update("ha", FeedUpdate(self.serial, complete, changes), self.now)
        self.collect()

    def tick(self, seconds=0.0):
        self.now += seconds
        self.mirror.tick(self.now)
        self.collect()

    def collect(self):
        for output in self.mirror.outputs():
            if isinstance(output, Renew):
                assert all(rule.table == 0 and rule.hard_timeout_s for rule in output.rules)
                self.switches[output.switch].gate_open = True
            elif output.switch in self.connected:
                self.pending.append(output)

    def step(self, index=0):
        """Carry out one thing that is on its way. Each switch does what it is told in order."""
        candidates = [
            o
            for i, o in enumerate(self.pending)
            if all(before.switch != o.switch for before in self.pending[:i])
        ]
        output = candidates[index % len(candidates)]
        self.pending.remove(output)
        switch = self.switches[output.switch]
        if isinstance(output, Read):
            self.mirror.switch_tables(output.switch, switch.ours(), switch.groups.values(), {}, self.now)
        elif isinstance(output, Commit):
            reason = switch.commit(output)
            if reason:
                self.mirror.refused(output.switch, output.number, reason, self.now)
            else:
                self.mirror.committed(output.switch, output.number, self.now)
        self.check_order()
        self.collect()

    def settle(self):
        for _ in range(1000):
            if not self.pending:
                self.upset = False
                return
            self.step()
        raise AssertionError("no end of changes")

    def check_order(self):
        """What the core steers into an access network, that one's switch lets out."""
        if self.upset or self.meddled or not {1, 2, 3} <= self.connected:
            return
        steered = {2: set(), 3: set()}
        for rule in self.switches[1].ours():
            ports = {a.port for a in rule.actions if isinstance(a, Output)}
            for action in rule.actions:
                for bucket in getattr(
                    self.switches[1].groups.get(getattr(action, "number", None)), "buckets", ()
                ):
                    ports.add(bucket[-1].port)
            for port, access in ((3, 2), (4, 3)):
                if port in ports:
                    steered[access].add(rule.cookie)
        for number, cookies in steered.items():
            admitted = {rule.cookie for rule in self.switches[number].ours() if rule.actions == ADMIT}
            assert cookies <= admitted, "the core steers where the way back is shut"

    def check(self, bindings):
        """Exactly what is wanted is there."""
        core = self.switches[1]
        for number, switch in self.switches.items():
            assert FOREIGN in switch.rules.values()
            owners = {cookie_owner(rule.cookie) for rule in switch.ours()} - {INFRASTRUCTURE}
            assert owners <= {cookie(address) for address in bindings}
            assert any(rule.cookie == INFRASTRUCTURE and rule.priority == 0 for rule in switch.ours())
            for address in bindings:
                translation = self.mirror.desired(address)
                name = {2: "wlan", 3: "cellular"}.get(number)
                wanted = translation.core if number == 1 else translation.access.get(name, ())
                there = [rule for rule in switch.ours() if cookie_owner(rule.cookie) == cookie(address)]
                assert set(there) == set(wanted)
        used = {a.number for rule in core.ours() for a in rule.actions if hasattr(a, "number")}
        assert used == set(core.groups)


def a_world():
    world = World()
    for number in PORTS:
        world.up(number)
    world.settle()
    return world


def test_a_binding_becomes_rules_and_they_go_with_it():
    world = a_world()
    world.feed({HOMES[0]: binding_of(HOMES[0])}, complete=True)
    world.settle()
    world.check({HOMES[0]})
    assert len(world.switches[1].ours()) == 4, "signalling, two flow bindings, the table miss"
    world.feed({HOMES[0]: None})
    world.settle()
    world.check(set())


def test_the_gate_opens_only_when_the_rules_are_right():
    world = World()
    world.feed({HOMES[0]: binding_of(HOMES[0])}, complete=True)
    for number in PORTS:
        world.up(number)
    world.tick(0.1)
    assert not any(switch.gate_open for switch in world.switches.values())
    world.settle()
    world.tick(0.1)
    assert all(switch.gate_open for switch in world.switches.values())


def test_the_gate_closes_when_the_rules_cannot_be_put_right():
    world = a_world()
    world.feed({HOMES[0]: binding_of(HOMES[0])}, complete=True)
    world.settle()
    world.feed({HOMES[0]: binding_of(HOMES[0], fids=(3,))})  # and no switch answers any more
    for switch in world.switches.values():
        switch.gate_open = False
    world.tick(FABRIC.lease_s + 0.1)
    assert not world.switches[2].gate_open or not world.switches[3].gate_open


def test_a_restarted_switch_gets_its_rules_again():
    world = a_world()
    world.feed({HOMES[0]: binding_of(HOMES[0], action=Action.N_CAST, bids=(1, 2))}, complete=True)
    world.settle()
    world.check({HOMES[0]})
    assert world.switches[1].groups
    for number in PORTS:
        world.down(number)
        world.switches[number].rules = {FOREIGN.key: FOREIGN}
        world.switches[number].groups = {}
        world.up(number)
        world.settle()
        world.check({HOMES[0]})


def test_rules_of_an_earlier_controller_are_replaced():
    world = World()
    stale = Rule(10, 9, match(eth_type=0x86DD, ipv6_dst=HOMES[3]), (), cookie(HOMES[3], 9))
    group = Group.of(((Output(3),), (Output(4),)))
    world.switches[1].rules[stale.key] = stale
    world.switches[1].groups[group.number] = group
    world.feed({HOMES[0]: binding_of(HOMES[0])}, complete=True)
    for number in PORTS:
        world.up(number)
    world.settle()
    world.check({HOMES[0]})


def test_what_others_did_to_our_rules_is_put_right():
    world = a_world()
    world.feed({HOMES[0]: binding_of(HOMES[0])}, complete=True)
    world.settle()
    core = world.switches[1]
    for rule in core.ours()[:2]:
        del core.rules[rule.key]
    world.tick(FABRIC.audit_s + 0.1)
    world.settle()
    world.check({HOMES[0]})


def test_a_full_table_leaves_home_addresses_to_the_home_agent_and_is_tried_again():
    world = a_world()
    world.switches[1].capacity = 1 + 3 * 2  # the table miss and two home addresses
    world.feed({address: binding_of(address) for address in HOMES}, complete=True)
    world.settle()
    owners = {cookie_owner(rule.cookie) for rule in world.switches[1].ours()} - {INFRASTRUCTURE}
    assert len(owners) == 2, "as many as there is room for"
    world.feed({HOMES[0]: binding_of(HOMES[0], first=CELLULAR)})
    world.settle()
    for rule in world.switches[1].ours():
        assert not any(a == Output(3) for a in rule.actions) or cookie_owner(rule.cookie) != cookie(HOMES[0])
    world.switches[1].capacity = None
    for _ in range(10):
        world.tick(30.0)
        world.settle()
    world.check(set(HOMES))


def test_a_switch_that_takes_nothing_is_not_asked_all_the_time():
    world = a_world()
    world.switches[1].capacity = 0
    world.down(1)
    world.switches[1].rules = {FOREIGN.key: FOREIGN}
    world.up(1)
    world.feed({HOMES[0]: binding_of(HOMES[0])}, complete=True)
    world.settle()
    assert not world.switches[1].gate_open or world.mirror.switches[1].refused
    asked = 0
    for _ in range(40):
        world.tick(0.25)
        asked += sum(isinstance(output, Commit) for output in world.pending)
        world.settle()
    assert asked < 15


def test_a_lost_feed_is_waited_for_and_then_given_up():
    world = a_world()
    world.feed({HOMES[0]: binding_of(HOMES[0])}, complete=True)
    world.settle()
    world.mirror.feed_lost("ha", world.now)
    world.tick(FABRIC.feed_grace_s / 2)
    world.settle()
    world.check({HOMES[0]})
    world.tick(FABRIC.feed_grace_s)
    world.settle()
    world.check(set())
    world.feed({HOMES[0]: binding_of(HOMES[0])}, complete=True)
    world.settle()
    world.check({HOMES[0]})


def test_a_dead_port_sends_its_flows_to_the_home_agent():
    world = a_world()
    world.feed({HOMES[0]: binding_of(HOMES[0])}, complete=True)
    world.settle()
    world.mirror.port_changed(1, "s0-s1", Port(3, False), world.now)
    world.collect()
    world.settle()
    assert not any(Output(3) in rule.actions for rule in world.switches[1].ours())
    assert "down" in world.mirror.effective(HOMES[0]).flows[0].reason
    world.mirror.port_changed(1, "s0-s1", Port(3, True), world.now)
    world.collect()
    world.settle()
    world.check({HOMES[0]})


def test_unknown_datapaths_are_left_alone():
    world = a_world()
    world.mirror.switch_up(99, {}, world.now)
    assert world.mirror.outputs() == []


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), max_size=25), st.sampled_from([0.0, 0.25, 3.0, 60.0]))
def test_withdrawal_removes_everything_whatever_is_under_way(steps, seconds):
    world = World()
    for number in PORTS:
        world.up(number)
    world.settle()
    world.feed({a: binding_of(a, action=Action.N_CAST, bids=(1, 2)) for a in HOMES}, complete=True)
    for index in steps:
        if world.pending:
            world.step(index)
    world.mirror.withdraw()
    world.upset = True  # the switches are told in no order
    world.collect()
    world.tick(seconds)
    world.feed({HOMES[0]: binding_of(HOMES[0])})
    world.settle()
    for switch in world.switches.values():
        assert switch.ours() == [] and not switch.groups and FOREIGN in switch.rules.values()


EVENTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("bind"),
            st.sampled_from(HOMES),
            st.sampled_from([WLAN, CELLULAR]),
            st.sampled_from(Action),
            st.sampled_from([(1,), (2,), (1, 2)]),
            st.sampled_from([(1,), (1, 2), (3,)]),
        ),
        st.tuples(st.just("unbind"), st.sampled_from(HOMES)),
        st.tuples(st.just("lose"), st.sampled_from([1, 2, 3]), st.booleans()),
        st.tuples(st.just("port"), st.sampled_from(["s0-s1", "s0-s2", "s0-cn"]), st.booleans()),
        st.tuples(st.just("steps"), st.lists(st.integers(0, 2), max_size=6)),
        st.tuples(st.just("meddle"), st.sampled_from([1, 2, 3]), st.integers(0, 5)),
        st.tuples(st.just("tick"), st.sampled_from([0.25, 3.0])),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=300)
@given(EVENTS)
def test_whatever_happens_the_switches_end_up_with_exactly_the_wanted_rules(events):
    world = World()
    bound = {}
    for kind, *arguments in events:
        if kind == "bind":
            address, first, action, bids, fids = arguments
            bids = {Action.DISCARD: (), Action.FORWARD: bids[:1], Action.N_CAST: bids}[action]
            bound[address] = binding_of(address, first=first, action=action, bids=bids, fids=fids)
            world.feed({address: bound[address]})
        elif kind == "unbind":
            bound.pop(arguments[0], None)
            world.feed({arguments[0]: None})
        elif kind == "lose":
            number, restarted = arguments
            if number in world.connected:
                world.down(number)
                if restarted:
                    world.switches[number].rules = {FOREIGN.key: FOREIGN}
                    world.switches[number].groups = {}
            else:
                world.up(number)
        elif kind == "port" and 1 in world.connected:
            name, live = arguments
            world.mirror.port_changed(1, name, replace(PORTS[1][name], live=live), world.now)
            world.collect()
        elif kind == "steps":
            for index in arguments[0]:
                if world.pending:
                    world.step(index)
        elif kind == "meddle":
            number, index = arguments
            switch = world.switches[number]
            if switch.ours():
                world.meddled = True
                del switch.rules[switch.ours()[index % len(switch.ours())].key]
        elif kind == "tick":
            world.tick(arguments[0])
    for number in sorted(PORTS):
        if number not in world.connected:
            world.up(number)
        for name, port in PORTS[number].items():
            world.mirror.port_changed(number, name, port, world.now)
    world.collect()
    world.settle()
    world.tick(FABRIC.audit_s + 1)
    world.settle()
    world.check(set(bound))
