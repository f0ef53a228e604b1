"""Bindings as switch rules: for random bindings and packets, rules treat a packet as the binding says."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network

from flow_table import FlowTable, openflow_fields
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.rule import (
    COOKIE_MASK,
    INFRASTRUCTURE,
    DecrementHopLimit,
    Output,
    SetField,
    ToGroup,
    match,
    mirrored,
)
from controllers.selection import blocks, cover, select
from controllers.translation import ADMIT, TO_HOME_AGENT, Way, translate
from testbed.mobility.forwarding import Action, FlowRule, HomeBinding, Path
from testbed.wire.selector import IPv4TrafficSelector, IPv6TrafficSelector

HOME = IPv6Address("2001:db8:100::100")
PREFIX = IPv6Network("2001:db8:1ff::/64")
AGENT = IPv6Address("2001:db8:100::1")
WAYS = {
    1: Way("wlan", 11, 0x02_00_00_00_00_01, 0x02_00_00_00_01_01),
    2: Way("cellular", 12, 0x02_00_00_00_00_02, 0x02_00_00_00_01_02),
    3: Way("satellite", 13, 0x02_00_00_00_00_03, 0x02_00_00_00_01_03),
    4: "its care-of address is in no access network of this controller",
}
#: Few values, so that selectors and packets meet often; the edges of blocks are among them.
PORTS = st.sampled_from([1, 21, 22, 23, 24, 79, 80, 443, 1023, 1024, 5000, 5001, 65535])
SOURCES = st.sampled_from([IPv6Address("2001:db8:300::") + n for n in (0, 1, 2, 3, 4, 7, 8, 255, 256)])
DESTINATIONS = st.sampled_from([HOME, PREFIX[0], PREFIX[5], PREFIX[9], PREFIX[-1]])
#: Of 8 and of 16 bits.
PRIORITIES = st.sampled_from([0, 1, 7, 255, 256, 1793, 1794, 65535])
LABELS = st.sampled_from([0, 1, 5, 6, 0x7FFFF, 0xFFFFF])
CLASSES = st.sampled_from([0, 3, 4, 8, 184, 187, 252, 255])
PROTOCOLS = st.sampled_from([6, 17, 33, 50, 58, 132, 135, 136])
PROTOCOLS_WITH_PORTS = (6, 17, 33, 132, 136)


def ranges(values):
    return st.none() | st.tuples(values, values).map(lambda pair: tuple(sorted(pair)))


SELECTORS = st.none() | st.builds(
    IPv6TrafficSelector,
    source_address=ranges(SOURCES),
    destination_address=ranges(DESTINATIONS),
    spi=st.none() | st.none() | st.just((7, 9)),
    flow_label=ranges(LABELS),
    source_port=ranges(PORTS),
    destination_port=ranges(PORTS),
    traffic_class=ranges(CLASSES),
    next_header=st.none()
    | PROTOCOLS.map(lambda number: (number, number))
    | st.sampled_from([(6, 17), (30, 60)]),
)


@st.composite
def flow_rules(draw):
    rules = []
    for fid in draw(st.lists(st.integers(1, 500), unique=True, max_size=6)):
        action = draw(st.sampled_from(Action))
        bids = draw(st.lists(st.sampled_from([1, 2, 3, 4]), unique=True, min_size=1, max_size=3))
        bids = {Action.DISCARD: [], Action.FORWARD: bids[:1], Action.N_CAST: bids}[action]
        rules.append(FlowRule(fid, draw(PRIORITIES), draw(SELECTORS), action, tuple(bids)))
    return tuple(sorted(rules, key=lambda rule: (rule.priority, rule.fid)))


@st.composite
def packets(draw):
    protocol = draw(PROTOCOLS)
    packet = {
        "source_address": draw(SOURCES),
        "destination_address": draw(DESTINATIONS),
        "flow_label": draw(LABELS),
        "traffic_class": draw(CLASSES),
        "next_header": protocol,
    }
    if protocol in PROTOCOLS_WITH_PORTS:
        packet |= {"source_port": draw(PORTS), "destination_port": draw(PORTS)}
    if protocol == 50:
        packet["spi"] = draw(st.sampled_from([6, 7, 9, 10]))
    return packet


def binding_of(rules, default=1, prefixes=(PREFIX,)):
    paths = tuple(Path(bid, AGENT, IPv6Address("2001:db8:200::") + bid) for bid in WAYS)
    return HomeBinding(HOME, paths, default, rules, prefixes)


def wanted_rule(binding, packet):
    """The flow binding that a packet to the home address meets (draft §4): the first that matches."""
    for rule in binding.rules:
        if rule.selector is None or (
            isinstance(rule.selector, IPv6TrafficSelector) and rule.selector.matches(**packet)
        ):
            return rule
    return None


def ports_reached(actions, table):
    """The ports that the core switch sends a packet to, with the frame's destination for each."""
    if actions == ():
        return set()
    assert actions[0] == DecrementHopLimit()
    last = actions[-1]
    buckets = table.groups[last.number].buckets if isinstance(last, ToGroup) else [actions[1:]]
    reached = set()
    for source, destination, output in buckets:
        assert isinstance(source, SetField) and source.field == "eth_src"
        reached.add((output.port, destination.value))
    return reached


@settings(deadline=None)
@given(flow_rules(), packets(), st.booleans(), st.sampled_from([4, 64]), st.sampled_from([None, 1, 4]))
def test_the_core_switch_treats_a_packet_as_the_binding_says(rules, packet, mirror_default, limit, default):
    binding = binding_of(rules, default)
    translation = translate(binding, WAYS, 10, limit, mirror_default)
    table = FlowTable(translation.core, translation.groups)
    actions = table.actions_for(openflow_fields(packet))
    if actions is None or actions == TO_HOME_AGENT:
        return  # the home agent does what the binding says; how much is left to it is judged below
    assert packet["next_header"] != 135, "signalling always goes by way of the home agent"
    rule = wanted_rule(binding, packet)
    if rule is None:
        assert mirror_default
        bids = (default,)
    else:
        bids = rule.bids
    assert ports_reached(actions, table) == {(WAYS[bid].port, WAYS[bid].destination) for bid in bids}


@settings(deadline=None)
@given(flow_rules(), packets())
def test_what_openflow_can_express_is_not_left_to_the_home_agent(rules, packet):
    expressible = tuple(
        rule for rule in rules if 4 not in rule.bids and not (rule.selector and rule.selector.spi)
    )
    binding = binding_of(expressible)
    translation = translate(binding, WAYS, 10, 1000)
    assert all(report.mirrored or report.reason for report in translation.flows)
    rule = wanted_rule(binding, packet)
    if rule is None or packet["next_header"] in (33, 135, 136):
        return
    if any("more than" in (report.reason or "") for report in translation.flows):
        return
    actions = FlowTable(translation.core, translation.groups).actions_for(openflow_fields(packet))
    assert actions is not None and actions != TO_HOME_AGENT


@settings(deadline=None)
@given(flow_rules(), packets())
def test_an_access_switch_admits_what_is_bound_to_it_and_nothing_else(rules, packet):
    binding = binding_of(rules)
    translation = translate(binding, WAYS, 10, 64)
    core = FlowTable(translation.core, translation.groups)
    down = openflow_fields(packet)
    up = openflow_fields(
        packet
        | {
            "source_address": packet["destination_address"],
            "destination_address": packet["source_address"],
            **(
                {"source_port": packet["destination_port"], "destination_port": packet["source_port"]}
                if "source_port" in packet
                else {}
            ),
        }
    )
    actions = core.actions_for(down)
    steered = (
        set() if actions in (None, TO_HOME_AGENT) else {port for port, _ in ports_reached(actions, core)}
    )
    for way in (WAYS[1], WAYS[2], WAYS[3]):
        admitted = FlowTable(translation.access.get(way.access, ())).actions_for(up) == ADMIT
        assert admitted == (way.port in steered)


@settings(deadline=None)
@given(flow_rules())
def test_rules_are_ours_unique_and_in_one_table(rules):
    translation = translate(binding_of(rules), WAYS, 10, 64)
    for found in (translation.core, *translation.access.values()):
        assert len({rule.key for rule in found}) == len(found)
        assert all(rule.table == 10 and rule.cookie & COOKIE_MASK == INFRASTRUCTURE for rule in found)
    assert [report.fid for report in translation.flows] == [rule.fid for rule in rules]


@given(st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 65535))
def test_blocks_hold_a_range_exactly_and_a_cover_holds_it_all(one, other, number):
    start, end = sorted((one, other))
    inside = any(number & mask == value for value, mask in blocks(start, end, 16))
    assert inside == (start <= number <= end)
    value, mask = cover(start, end, 16)
    assert not inside or number & mask == value


def test_blocks_are_few():
    assert len(blocks(0, 65535, 16)) == 1
    assert len(blocks(1, 65534, 16)) == 30
    assert blocks(22, 22, 16) == [(22, 0xFFFF)]


def test_priorities_follow_pri_and_fid():
    rules = tuple(
        FlowRule(
            fid,
            priority,
            IPv6TrafficSelector(source_port=(fid, fid), next_header=(6, 6)),
            Action.FORWARD,
            (1,),
        )
        for priority, fid in ((5, 2), (5, 9), (6, 1))
    )
    core = translate(binding_of(rules, prefixes=()), WAYS, 10).core
    by_fid = {rule.cookie & 0xFFFF: rule.priority for rule in core if rule.cookie & 0xFFFF}
    assert by_fid[2] > by_fid[9] > by_fid[1]
    assert by_fid[9] - by_fid[1] > 100, "a flow binding that comes between renumbers nothing"


def test_more_flow_bindings_than_priorities_are_left_to_the_home_agent():
    rules = tuple(
        FlowRule(
            fid, 255, IPv6TrafficSelector(source_port=(fid, fid), next_header=(6, 6)), Action.FORWARD, (1,)
        )
        for fid in range(1, 10001)
    )
    translation = translate(binding_of(rules, prefixes=()), WAYS, 10)
    assert len(translation.flows) == 10000
    assert not translation.flows[-1].mirrored and "too many" in translation.flows[-1].reason


def test_why_something_is_not_mirrored_is_said():
    def reason(selector, limit=256, bids=(1,)):
        rule = FlowRule(1, 1, selector, Action.FORWARD, bids)
        return translate(binding_of((rule,), prefixes=()), WAYS, 10, limit).flows[0].reason

    assert reason(IPv6TrafficSelector(source_port=(22, 22))) is None
    assert "SPI" in reason(IPv6TrafficSelector(spi=(1, 1)))
    assert "more than 8" in reason(IPv6TrafficSelector(source_port=(1, 65534)), limit=8)
    assert reason(None, bids=(4,)) == WAYS[4]
    assert "BID 9" in reason(None, bids=(9,))
    assert "IPv4" in reason(IPv4TrafficSelector(source_address=(IPv4Address(1), IPv4Address(1))))
    assert "no packet" in reason(IPv6TrafficSelector(destination_address=(IPv6Address(1), IPv6Address(2))))


def test_nothing_mirrored_means_no_rules():
    rule = FlowRule(1, 1, None, Action.FORWARD, (4,))
    translation = translate(binding_of((rule,)), WAYS, 10)
    assert not translation.core and not translation.groups and not translation.access


def test_n_cast_over_one_way_needs_no_group():
    ways = {1: WAYS[1], 2: WAYS[1]}  # both BIDs have the same care-of address
    rule = FlowRule(1, 1, None, Action.N_CAST, (1, 2))
    translation = translate(binding_of((rule,)), ways, 10)
    assert not translation.groups
    assert translation.core[-1].actions[-1] == Output(11)


def test_a_match_without_a_selector_is_one_rule_for_each_home_network():
    assert len(select(None, [IPv6Network(HOME), PREFIX]).exact) == 2


def test_mirroring_a_match_twice_changes_nothing():
    found = match(eth_type=0x86DD, ipv6_dst=HOME, tcp_src=22, ip_proto=6)
    assert mirrored(found) == match(eth_type=0x86DD, ipv6_src=HOME, tcp_dst=22, ip_proto=6)
    assert mirrored(mirrored(found)) == found
