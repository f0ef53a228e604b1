"""The Flow Identification option, well formed and not (draft §3.1, §3.2, RFC 6089 §4.2)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_strategies import draft_flows, rfc6089_flows

from testbed.wire.dialect import RFC6089, Draft
from testbed.wire.flow import FlowBindingAction, FlowIdentification, FlowStatus, Pro
from testbed.wire.selector import IPv6TrafficSelector

DIALECTS = st.sampled_from([Draft(), RFC6089()])
FIXED = "05 0001 01 00 00"  # PRI 5, FID 1, forward, add
SSH = IPv6TrafficSelector(source_port=(22, 22))


def parse(octets):
    return Draft().parse(bytes.fromhex(octets))


@settings(deadline=None)
@given(draft_flows)
def test_round_trip_in_the_draft(flow):
    assert Draft().parse(Draft().data(flow)) == flow


@settings(deadline=None)
@given(rfc6089_flows)
def test_round_trip_in_rfc6089(flow):
    assert RFC6089().parse(RFC6089().data(flow)) == flow


@settings(deadline=None, max_examples=300)
@given(DIALECTS, st.binary(max_size=100))
def test_arbitrary_octets_never_raise(dialect, octets):
    flow = dialect.parse(octets)
    if flow.malformed is None and flow.unknown_selector_format is None:
        assert dialect.parse(dialect.data(flow)) == flow


@settings(deadline=None, max_examples=300)
@given(draft_flows, st.data())
def test_mutated_octets_never_raise(flow, data):
    octets = bytearray(Draft().data(flow))
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    Draft().parse(bytes(octets))


@settings(deadline=None)
@given(draft_flows)
def test_truncated_anywhere(flow):
    octets = Draft().data(flow)
    whole = {6}  # the fixed part alone is a flow option, and so is it with the first sub-option
    if flow.binding_reference is not None:
        whole.add(6 + 2 + 2 * len(flow.binding_reference))
    for length in set(range(len(octets))) - whole:
        assert Draft().parse(octets[:length]).malformed is not None


def test_what_is_missing_of_the_fixed_part_is_zero():
    flow = parse("05 0001")
    assert (flow.fid, flow.priority, flow.action, flow.pro) == (1, 5, 0, Pro.ADD)
    assert flow.malformed == "flow option has 3 octets of data, expected 6 or more"
    assert parse("").malformed is not None


@pytest.mark.parametrize(
    "sub_options, reason",
    [
        ("01", "sub-option 1 has no length"),
        ("01 00", "sub-option 1 has length 0, expected 2 or more"),
        ("01 01", "sub-option 1 has length 1, expected 2 or more"),
        ("01 06 0001", "sub-option 1 runs past the end"),
        ("01 02", "binding reference has 0 octets"),
        ("01 03 00", "binding reference has 1 octets"),
        ("03 03 02", "traffic selector is too short for its format"),
        ("03 04 02 00", "shorter than its flags"),
        ("03 08 02 00 0080 0000", "truncated at source_port"),
        ("03 0a 02 00 0040 0000 0016", "end but no start of source_port"),
        ("03 08 02 00 0000 0000" * 2, "more than one traffic selector"),
        ("fe 05 00", "sub-option 254 runs past the end"),
    ],
)
def test_malformed_sub_options(sub_options, reason):
    flow = parse(FIXED + sub_options)
    assert reason in flow.malformed
    assert (flow.fid, flow.priority) == (1, 5)


def test_what_came_before_the_fault_is_kept():
    flow = parse(FIXED + "01 04 0007" + "03 ff")
    assert flow.malformed is not None and flow.binding_reference == (7,)


@pytest.mark.requirement("draft §3.1: 3 n-cast, one or more Binding Reference sub-options")
def test_several_binding_references_add_up_in_the_draft():
    flow = parse(FIXED + "01 06 0001 0002" + "01 04 0003")
    assert flow.binding_reference == (1, 2, 3) and flow.malformed is None


@pytest.mark.requirement("RFC 6089 §4.2.1.3: not more than one Binding Reference sub-option")
def test_several_binding_references_are_malformed_in_rfc6089():
    flow = RFC6089().parse(bytes.fromhex("0001 0005 00 00 02 02 0001 02 02 0002"))
    assert "more than one binding reference" in flow.malformed


@pytest.mark.requirement("RFC 6089 §4.2.1.2: PadN sub-options are skipped")
def test_padding_in_rfc6089():
    flow = RFC6089().parse(bytes.fromhex("0001 0005 00 00 01 02 ffff 00 02 02 0001 01 00"))
    assert flow.malformed is None and flow.binding_reference == (1,)


@pytest.mark.requirement("draft §3.1: 137 classifier language not supported")
def test_unknown_selector_format():
    flow = parse(FIXED + "03 06 09 00 abcd" + "01 04 0001")
    assert flow.unknown_selector_format == 9
    assert flow.selector is None and flow.malformed is None and flow.binding_reference == (1,)


@pytest.mark.requirement("RFC 6089 §4.2.1: unknown sub-options are silently skipped")
def test_unknown_sub_options_are_skipped():
    flow = parse(FIXED + "c8 05 010203" + "00" + "03 0a 02 00 0080 0000 0016" + "c9 02")
    assert flow == FlowIdentification(1, 5, selector=SSH)


@pytest.mark.requirement("draft §3.1: Res. is zero when sent and ignored by the receiver")
def test_reserved_bits():
    assert parse("05 0001 01 00 1f") == FlowIdentification(1, 5, pro=Pro.REPLACE)
    assert Draft().data(FlowIdentification(1, 5, pro=Pro.REPLACE))[5] == 0x10
    assert parse(FIXED + "03 0a 02 ff 0080 0000 0016").selector == SSH


@pytest.mark.parametrize("pro", range(3, 15))
def test_undefined_pro_is_malformed(pro):
    flow = parse(f"05 0001 01 00 {pro:x}0")
    assert flow.malformed == f"PRO {pro} is not defined" and flow.pro == pro


@pytest.mark.requirement("draft §4.8: the acknowledgement has a copy of the 8 octets with the status")
def test_answer():
    request = FlowIdentification(1, 5, 3, 0, Pro.REPLACE, (1, 2), SSH)
    answer = request.answer(FlowStatus.N_CAST_NOT_SUPPORTED)
    octets = Draft().data(answer)
    assert octets == Draft().data(request)[:4] + bytes((139,)) + Draft().data(request)[5:6]


@pytest.mark.parametrize(
    "wrong, reason",
    [
        ({"fid": 65536}, "fid"),
        ({"priority": -1}, "priority"),
        ({"action": 256}, "action"),
        ({"status": 256}, "status"),
        ({"pro": 16}, "pro"),
        ({"flow_binding_action": 256}, "flow_binding_action"),
        ({"binding_reference": (65536,)}, "binding_reference"),
    ],
)
def test_the_constructor_names_the_field(wrong, reason):
    with pytest.raises(ValueError, match=reason):
        FlowIdentification(**{"fid": 1, "priority": 1, **wrong})


@pytest.mark.requirement("RFC 7109 §6.2.1: Flow Binding Action sub-option")
def test_flow_binding_action():
    flow = FlowIdentification(1, 5, flow_binding_action=FlowBindingAction.MOVE)
    assert RFC6089().data(flow) == bytes.fromhex("0001 0005 00 00 04 02 00 0f")
    assert RFC6089().parse(RFC6089().data(flow)) == flow
    wrong = RFC6089().parse(bytes.fromhex("0001 0005 00 00 04 03 00 0f 00"))
    assert "flow binding action has 3 octets" in wrong.malformed
    assert Draft().parse(bytes.fromhex(FIXED + "04 04 00 0f")).flow_binding_action is None


@pytest.mark.parametrize("wrong", [{"pro": Pro.REMOVE}, {"action": 3}])
def test_what_rfc6089_cannot_say(wrong):
    with pytest.raises(ValueError, match="neither action nor PRO"):
        RFC6089().data(FlowIdentification(1, 1, **wrong))


@pytest.mark.parametrize(
    "flow, reason",
    [
        (FlowIdentification(1, 1, flow_binding_action=11), "flow_binding_action does not exist"),
        (FlowIdentification(1, 256), "priority must be from 0 to 255"),
        (FlowIdentification(1, 1, binding_reference=()), "binding_reference must name at least one BID"),
        (FlowIdentification(1, 1, binding_reference=tuple(range(127))), "more than a length can say"),
    ],
)
def test_what_cannot_be_sent(flow, reason):
    with pytest.raises(ValueError, match=reason):
        Draft().data(flow)
