"""The scapy layers as a lab uses them: crafting, dissecting, and packets that are wrong on purpose."""

from ipaddress import IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet6 import MIP6MH_BA, MIP6MH_BU, IPv6, MIP6OptUnknown, moboptcls
from scapy.packet import Raw

from testbed.scapy import (
    FlowSubOptBindingReference,
    FlowSubOptPad1,
    FlowSubOptPadNRFC6089,
    FlowSubOptTrafficSelector,
    FlowSubOptUnknown,
    FlowSubOptUnknownRFC6089,
    MIP6OptBindingIdentifier,
    MIP6OptFlowIdentification,
    MIP6OptFlowIdentificationRFC6089,
    MIP6OptFlowSummary,
    TrafficSelectorIPv4,
    TrafficSelectorIPv6,
)
from testbed.wire.codec import Codec
from testbed.wire.flow import FlowIdentification, FlowStatus, Pro
from testbed.wire.option import BindingIdentifier, MalformedOption
from testbed.wire.packet import parse_packet
from testbed.wire.selector import IPv4TrafficSelector, IPv6TrafficSelector

IP = {"src": "2001:db8:100::100", "dst": "2001:db8:100::1"}
SSH = TrafficSelectorIPv6(source_port=22, next_header=6)


def option(layer, **settings):
    """Return the one option that our parser finds in a Binding Update with the scapy layer `layer`."""
    octets = bytes(IPv6(**IP) / MIP6MH_BU(options=[layer]))
    (parsed,) = parse_packet(octets, Codec(**settings)).message.options
    return parsed


def dissect(octets):
    """Return the options, padding included, that scapy finds in a Binding Acknowledgement."""
    option = MIP6OptUnknown(otype=octets[0], olen=octets[1], odata=octets[2:])
    return IPv6(bytes(IPv6(**IP) / MIP6MH_BA(options=[option])))[MIP6MH_BA].options


def test_the_layers_are_registered():
    assert moboptcls[18] is MIP6OptFlowIdentification
    assert moboptcls[35] is MIP6OptBindingIdentifier
    assert moboptcls[44] is MIP6OptFlowSummary
    assert moboptcls[45] is MIP6OptFlowIdentificationRFC6089


def test_a_flow_binding_is_crafted_and_dissected():
    flow = MIP6OptFlowIdentification(
        fid=1,
        pri=5,
        pro="replace",
        action="n-cast",
        suboptions=[FlowSubOptBindingReference(bids=[1, 2]), FlowSubOptTrafficSelector(selector=SSH)],
    )
    selector = IPv6TrafficSelector(source_port=(22, 22), next_header=(6, 6))
    assert option(flow) == FlowIdentification(1, 5, 3, 0, Pro.REPLACE, (1, 2), selector)
    shown = IPv6(bytes(IPv6(**IP) / MIP6MH_BU(options=[flow]))).show(dump=True)
    for text in ("Flow Identification", "= n-cast", "= replace", "source_port= 22", "[1, 2]"):
        assert text in shown


def test_statuses_have_names():
    (flow, *_) = dissect(bytes(MIP6OptFlowIdentification(fid=3, status=FlowStatus.FID_IN_USE)))
    assert flow.sprintf("%status%") == "fid in use"


def test_binding_identifiers():
    assert option(MIP6OptBindingIdentifier(bid=7, h=1, pri=9)) == BindingIdentifier(7, 0, True, 9)
    address = "2001:db8:201::5"
    expected = BindingIdentifier(7, care_of_address=IPv6Address(address))
    assert option(MIP6OptBindingIdentifier(bid=7, coa=address)) == expected
    assert str(option(MIP6OptBindingIdentifier(bid=7, coa4="192.0.2.1")).care_of_address) == "192.0.2.1"


def test_a_range_and_its_end():
    layer = TrafficSelectorIPv4(source_port=1, source_port_end=9)
    assert IPv4TrafficSelector.parse(bytes(layer)).source_port == (1, 9)
    assert bytes(layer) == bytes.fromhex("0300 0000 0001 0009")
    dissected = TrafficSelectorIPv4(bytes(layer))
    assert (dissected.source_port, dissected.source_port_end, dissected.protocol) == (1, 9, None)


def test_a_wrong_length_is_sent_as_given():
    wrong = option(MIP6OptBindingIdentifier(olen=6, bid=1, data=b"ab"))
    assert isinstance(wrong, MalformedOption) and wrong.data == bytes.fromhex("0001 00 00") + b"ab"
    flow = MIP6OptFlowIdentification(fid=1, suboptions=[FlowSubOptBindingReference(len=9, bids=[1])])
    assert "runs past the end" in option(flow).malformed


def test_wrong_flags_are_sent_as_given():
    """An end without a start, and a start that is said to be there but is not."""
    for selector in (TrafficSelectorIPv6(flags=0x0040, source_port_end=5), TrafficSelectorIPv6(flags=0x0002)):
        flow = MIP6OptFlowIdentification(fid=1, suboptions=[FlowSubOptTrafficSelector(selector=selector)])
        parsed = option(flow)
        if selector.flags == 0x0002:
            assert parsed.selector == IPv6TrafficSelector(next_header=(0, 0))
        else:
            assert "end but no start" in parsed.malformed


def test_an_unknown_format():
    selector = FlowSubOptTrafficSelector(format=9, selector=Raw(b"??"))
    assert option(MIP6OptFlowIdentification(fid=1, suboptions=[selector])).unknown_selector_format == 9
    (flow, *_) = dissect(bytes(MIP6OptFlowIdentification(fid=1, suboptions=[selector])))
    assert flow.suboptions[0].selector == Raw(b"??")


def test_unknown_sub_options_and_padding():
    unknown = FlowSubOptUnknown(type=200, data=b"x")
    suboptions = [unknown, FlowSubOptPad1(), FlowSubOptBindingReference(bids=[4])]
    layer = MIP6OptFlowIdentification(fid=1, suboptions=suboptions)
    assert option(layer) == FlowIdentification(1, 0, binding_reference=(4,))
    assert [type(each) for each in dissect(bytes(layer))[0].suboptions] == [type(each) for each in suboptions]


def test_unknown_sub_options_and_padding_in_rfc6089():
    suboptions = [FlowSubOptUnknownRFC6089(type=200, data=b"x"), FlowSubOptPadNRFC6089(data=b"\0\0")]
    layer = MIP6OptFlowIdentificationRFC6089(fid=1, fidpri=2, suboptions=suboptions)
    assert option(layer, dialect="rfc6089") == FlowIdentification(1, 2)
    assert [type(each) for each in dissect(bytes(layer))[0].suboptions] == [type(each) for each in suboptions]


def test_flow_summary():
    assert option(MIP6OptFlowSummary(fids=[1, 2, 3]), dialect="rfc6089").fids == (1, 2, 3)


@settings(deadline=None)
@given(st.sampled_from([18, 35, 44, 45]), st.binary(max_size=60))
def test_arbitrary_contents_are_dissected_to_something(kind, data):
    octets = bytes((kind, len(data))) + data
    assert dissect(octets)


@pytest.mark.parametrize("length", [0, 1])
def test_sub_option_shorter_than_its_header(length):
    flow = MIP6OptFlowIdentification(fid=1, suboptions=[FlowSubOptUnknown(type=7, len=length)])
    assert f"length {length}, expected 2 or more" in option(flow).malformed
    assert dissect(bytes(flow))
