"""What bindings become before the kernel sees it: slots, rules, routes. No kernel, no root."""

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

import pytest

from testbed.datapath import mark
from testbed.datapath.classifier import Classifier, chain_of, flat
from testbed.datapath.error import DatapathError
from testbed.datapath.netlink import attribute, attributes, nested, text
from testbed.datapath.nftables import Element, Rule, parse_element
from testbed.datapath.route import HomeAddress, PolicyRule, Proxy, Route
from testbed.datapath.routing import Routing
from testbed.datapath.slots import Slots
from testbed.datapath.tunnel import Seg6Tunnel, ip6_tunnel
from testbed.mobility.forwarding import Action, FlowRule, HomeBinding, Path, Side
from testbed.wire.selector import IPv6TrafficSelector

HOME = IPv6Address("2001:db8:100::100")
AGENT = IPv6Address("2001:db8:100::1")
WLAN, CELLULAR = IPv6Address("2001:db8:201::5"), IPv6Address("2001:db8:202::5")
PREFIX = IPv6Network("2001:db8:1000::/56")
#: A regional care-of address, whose home agent is elsewhere.
REGIONAL, HOME_AGENT = IPv6Address("2001:db8:500::5"), IPv6Address("2001:db8:700::1")


def anchor_binding(*bids: int, home: IPv6Address = HOME, **more) -> HomeBinding:
    return HomeBinding(
        home, tuple(Path(bid, AGENT, WLAN + bid) for bid in bids), bids[0] if bids else None, **more
    )


def mobile_binding(**more) -> HomeBinding:
    paths = (
        Path(1, WLAN, AGENT, "wlan", IPv6Address("fe80::1")),
        Path(2, CELLULAR, AGENT, "cellular", IPv6Address("fe80::2")),
    )
    return HomeBinding(HOME, paths, 2, **more)


class TestSlots:
    def test_lowest_free_one_is_taken_and_kept(self):
        slots = Slots(shared=True)
        slots.of = slots.assign([anchor_binding(7, 9)])
        assert slots.of == {HOME: {7: 0, 9: 1}}
        slots.of = slots.assign([anchor_binding(9)])
        assert slots.of == {HOME: {9: 1}}
        assert slots.assign([anchor_binding(3, 9, 4)]) == {HOME: {3: 0, 9: 1, 4: 2}}

    def test_slot_that_is_given_up_is_not_given_to_another_at_once(self):
        slots = Slots(shared=True)
        slots.of = slots.assign([anchor_binding(1)])
        assert slots.assign([anchor_binding(2)]) == {HOME: {2: 1}}

    def test_home_addresses_share_slots_at_an_anchor_only(self):
        bindings = [anchor_binding(1), anchor_binding(1, home=HOME + 1)]
        assert Slots(shared=True).assign(bindings) == {HOME: {1: 0}, HOME + 1: {1: 0}}
        assert Slots(shared=False).assign(bindings) == {HOME: {1: 0}, HOME + 1: {1: 1}}

    def test_too_many(self):
        with pytest.raises(DatapathError, match="more than"):
            Slots(shared=True).assign([anchor_binding(*range(1, mark.SLOTS + 2))])


def classifier(side: Side) -> Classifier:
    return Classifier(side, "flowbind", (10, 11), True, 0, 1460)


class TestClassifier:
    def test_same_binding_gives_equal_rules(self):
        rule = FlowRule(1, 1, IPv6TrafficSelector(source_port=(22, 22)), Action.FORWARD, (1,))
        one, other = (
            classifier(Side.ANCHOR).home(anchor_binding(1, rules=(rule,)), {1: 0}) for _ in range(2)
        )
        assert one == other
        assert {r.digest for r in one.chains[chain_of(HOME)]} == {
            r.digest for r in other.chains[chain_of(HOME)]
        }

    def test_digest_tells_rules_apart(self):
        assert Rule(b"a").digest != Rule(b"b").digest != Rule(b"b", "c").digest

    def test_selector_is_mirrored_at_the_mobile_node(self):
        there = FlowRule(1, 1, IPv6TrafficSelector(source_port=(22, 22)), Action.FORWARD, (1,))
        back = FlowRule(1, 1, IPv6TrafficSelector(destination_port=(22, 22)), Action.FORWARD, (1,))
        mobile, anchor = classifier(Side.MOBILE), classifier(Side.ANCHOR)
        slots = {1: 0, 2: 1}
        one = mobile.home(mobile_binding(rules=(there,)), slots).chains[chain_of(HOME)]
        other = anchor.home(anchor_binding(1, 2, rules=(back,)), slots).chains[chain_of(HOME)]
        assert one[1] == other[1]

    def test_tunnels_are_accepted_from_registered_paths(self):
        elements = flat(classifier(Side.ANCHOR).home(anchor_binding(1, 2), {1: 0, 2: 1}).elements)
        assert set(elements["tunnels"]) == {Element((WLAN + bid).packed + HOME.packed) for bid in (1, 2)}
        assert elements["tunnel_ends"] == [Element(AGENT.packed)]
        elements = flat(classifier(Side.MOBILE).home(mobile_binding(), {1: 0, 2: 1}).elements)
        assert elements["tunnels"] == [Element(AGENT.packed + HOME.packed)]

    def test_prefixes_are_intervals(self):
        last = IPv6Network("ffff::/16")
        rules = classifier(Side.ANCHOR).home(anchor_binding(1, prefixes=(PREFIX, last)), {1: 0})
        elements = set(flat(rules.elements)["home_prefixes"])
        chain = chain_of(HOME)
        assert elements == {
            Element(PREFIX[0].packed, chain),
            Element((PREFIX[-1] + 1).packed, end=True),
            Element(last[0].packed, chain),
        }

    def test_every_chain_stands_behind_those_that_it_jumps_to(self):
        for side in (Side.ANCHOR, Side.MOBILE):
            chains = classifier(side).base_chains()
            for name, (_, rules) in chains.items():
                for other in chains:
                    if any(f"{other}\0".encode() in rule.expressions for rule in rules):
                        assert list(chains).index(other) < list(chains).index(name)


def tunnels(side: Side):
    class Device:
        name = "flowbind0"

    return Seg6Tunnel(side, None, Device, 1460), ip6_tunnel(side, None, "flowbind", 1460)


class TestRouting:
    def test_anchor(self):
        for tunnel in tunnels(Side.ANCHOR):
            routing = Routing(Side.ANCHOR, tunnel, "flowbind0", "home0", 1460)
            objects = routing.home(anchor_binding(1, 2, prefixes=(PREFIX,)), {1: 0, 2: 5})
            routes = {(o.table, o.prefix): o for o in objects if isinstance(o, Route)}
            for slot, bid in ((0, 1), (5, 2)):
                for prefix in (IPv6Network(HOME), PREFIX):
                    assert tunnel.remote(routes[mark.slot_table(slot), prefix]) == WLAN + bid
                    assert routes[mark.HOME_TABLE, prefix].gateway == mark.DETOUR_GATEWAY
            assert Proxy(HOME, "home0") in objects
            assert not any(isinstance(o, HomeAddress) for o in objects)

    def test_mobile(self):
        for tunnel in tunnels(Side.MOBILE):
            routing = Routing(Side.MOBILE, tunnel, "flowbind0", None, 1460)
            objects = routing.home(mobile_binding(), {1: 0, 2: 1})
            assert HomeAddress(HOME) in objects
            for slot, address, interface in ((0, WLAN, "wlan"), (1, CELLULAR, "cellular")):
                assert PolicyRule(mark.CARE_OF_PRIORITY, mark.outer_table(slot), source=address) in objects
                leaving = [o for o in objects if isinstance(o, Route) and o.interface == interface]
                assert {o.table for o in leaving} == {mark.outer_table(slot)}
                assert all(o.volatile for o in leaving)
            base = routing.base(mobile_binding(), {1: 0, 2: 1})
            (default,) = [
                o for o in base if isinstance(o, Route) and o.key[1:3] == (mark.HOME_TABLE, mark.ANY)
            ]
            assert default.source == HOME

    @pytest.mark.parametrize("within", [False, True])
    def test_while_the_default_path_changes_no_packet_has_its_route_already(self, within):
        outer = mobile_binding().paths[0]
        path = replace(outer, local=REGIONAL, remote=HOME_AGENT, via=outer) if within else outer
        for tunnel in tunnels(Side.MOBILE):
            routing = Routing(Side.MOBILE, tunnel, "flowbind0", None, 1460)
            base = routing.base(HomeBinding(HOME, (path,), 1), {1: 0})
            (into,) = (o for o in base if isinstance(o, Route) and o.gateway == mark.entrance(HOME))
            assert routing.by_marks(base) == base - {into} | {replace(into, gateway=None)}

    def test_tunnel_within_a_tunnel(self):
        outer = mobile_binding().paths[0]
        inner = replace(outer, local=REGIONAL, remote=HOME_AGENT, via=outer)
        binding = HomeBinding(HOME, (inner,), 1)
        for tunnel in tunnels(Side.MOBILE):
            routing = Routing(Side.MOBILE, tunnel, "flowbind0", None, 1460)
            objects = routing.home(binding, {1: 3})
            routes = {(o.table, o.prefix): o for o in objects if isinstance(o, Route)}
            assert tunnel.remote(routes[mark.outer_table(3), mark.ANY]) == outer.remote
            into = tunnel.remote(routes[mark.slot_table(3), mark.ANY])
            assert into == (HOME_AGENT if tunnel.by_route else None)  # which its device knows
            number = mark.value(mark.slot_number(3))
            rule = PolicyRule(
                mark.OUTER_PRIORITY, mark.outer_table(3), number, mark.NUMBER_MASK, source=mark.PLACEHOLDER
            )
            assert rule in objects

    @pytest.mark.parametrize(
        "side, binding, ends",
        [
            (Side.MOBILE, mobile_binding(), set()),
            (Side.MOBILE, mobile_binding(prefixes=(PREFIX,)), {WLAN, CELLULAR}),
            (Side.ANCHOR, anchor_binding(1, 2), {AGENT}),
        ],
    )
    def test_packets_to_others_leave_tunnels_by_a_rule_for_each_end(self, side, binding, ends):
        slots = {1: 0, 2: 1}
        routing = Routing(side, tunnels(side)[0], "flowbind0", None, 1460)
        objects = routing.home(binding, slots) | routing.base(binding, slots)
        rules = [o for o in objects if isinstance(o, PolicyRule)]
        onward = [rule for rule in rules if rule.table == mark.TABLE_BASE + mark.DECAPSULATE]
        assert {rule.destination for rule in onward} == ends and len(onward) == len(ends)
        # whatever it does to the outer packet comes before the node's own addresses
        first = [rule.table for rule in rules if rule.priority == mark.DECAPSULATION_PRIORITY]
        decapsulated = {mark.DECAPSULATE_OTHER}
        decapsulated |= {mark.DECAPSULATE} if ends else set()
        decapsulated |= {mark.DECAPSULATE_HERE} if side is Side.MOBILE else set()
        assert set(first) == {mark.TABLE_BASE + number for number in decapsulated}
        assert mark.DECAPSULATION_PRIORITY < mark.ANCHOR_SLOT_PRIORITY < mark.LOCAL_PRIORITY

    def test_keys_are_unique(self):
        for side, binding in ((Side.ANCHOR, anchor_binding(1, 2)), (Side.MOBILE, mobile_binding())):
            for tunnel in tunnels(side):
                routing = Routing(side, tunnel, "flowbind0", "home0", 1460)
                slots = {1: 0, 2: 1}
                objects = routing.home(binding, slots) | routing.base(binding, slots)
                assert len({o.key for o in objects}) == len(objects)


def test_attributes_come_back():
    data = attribute(1, b"abc") + text(2, "xy") + nested(3, attribute(4, b"\1"))
    found = attributes(data)
    assert found[1] == b"abc" and found[2] == b"xy\0" and attributes(found[3]) == {4: b"\1"}
    assert len(data) % 4 == 0


@pytest.mark.parametrize(
    "element",
    [
        Element(bytes(16)),
        Element(bytes(4), b"\1" * 16),
        Element(bytes(16), "chain"),
        Element(bytes(16), end=True),
    ],
)
def test_elements_come_back(element: Element):
    ((_, data),) = attributes(element.encode()).items()
    assert parse_element(data) == element
