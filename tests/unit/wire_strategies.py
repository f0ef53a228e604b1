"""Hypothesis strategies for everything that the wire layer can send."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network

from hypothesis import strategies as st

from testbed.wire.flow import FlowIdentification, Pro
from testbed.wire.message import (
    BindingAcknowledgement,
    BindingError,
    BindingRefreshRequest,
    BindingUpdate,
    CareOfTest,
    CareOfTestInit,
    HomeTest,
    HomeTestInit,
    UnknownMessage,
)
from testbed.wire.option import (
    AlternateCareOfAddress,
    BindingAuthorizationData,
    BindingIdentifier,
    BindingRefreshAdvice,
    FlowSummary,
    LinkLayerAddress,
    MessageIdentifier,
    MobileNetworkPrefix,
    MobileNodeIdentifier,
    MobilityMessageAuthentication,
    NonceIndices,
    UnknownOption,
)
from testbed.wire.packet import Packet
from testbed.wire.selector import IPv4TrafficSelector, IPv6TrafficSelector

u7, u8, u16 = (st.integers(0, 2**bits - 1) for bits in (7, 8, 16))
u20, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (20, 32, 64))
octets8 = st.binary(min_size=8, max_size=8)
lifetimes = u16.map(lambda units: 4 * units)
ipv6_addresses = st.integers(0, 2**128 - 1).map(IPv6Address)
ipv4_addresses = u32.map(IPv4Address)
#: Unicast addresses that a router forwards.
routable = st.integers(0, 2**64 - 1).map(lambda suffix: IPv6Address((0x20010DB8 << 96) + suffix))


def ranges(values):
    proper = st.tuples(values, values).map(lambda pair: tuple(sorted(pair)))
    return proper | values.map(lambda value: (value, value))


def _optional(**fields):
    return {name: st.none() | ranges(values) for name, values in fields.items()}


ipv6_selectors = st.builds(
    IPv6TrafficSelector,
    **_optional(
        source_address=ipv6_addresses,
        destination_address=ipv6_addresses,
        spi=u32,
        flow_label=u20,
        source_port=u16,
        destination_port=u16,
        traffic_class=u8,
        next_header=u8,
    ),
)
ipv4_selectors = st.builds(
    IPv4TrafficSelector,
    **_optional(
        source_address=ipv4_addresses,
        destination_address=ipv4_addresses,
        spi=u32,
        source_port=u16,
        destination_port=u16,
        dscp=u8,
        protocol=u8,
    ),
)
selectors = ipv6_selectors | ipv4_selectors

_bids = st.none() | st.lists(u16, min_size=1, max_size=5).map(tuple)
draft_flows = st.builds(
    FlowIdentification,
    fid=u16,
    priority=u8,
    action=u8,
    status=u8,
    pro=st.sampled_from(Pro),
    binding_reference=_bids,
    selector=st.none() | selectors,
)
rfc6089_flows = st.builds(
    FlowIdentification,
    fid=u16,
    priority=u16,
    status=u8,
    binding_reference=_bids,
    selector=st.none() | selectors,
    flow_binding_action=st.none() | u8,
)

binding_identifiers = st.builds(
    BindingIdentifier,
    bid=u16,
    status=u8,
    home=st.booleans(),
    priority=u7,
    care_of_address=st.none() | ipv6_addresses | ipv4_addresses,
)
prefixes = st.builds(
    lambda address, length: IPv6Network((address, length), strict=False), ipv6_addresses, st.integers(0, 128)
)
#: Types that neither dialect knows.
_unknown_types = st.integers(46, 252)

plain_options = st.one_of(
    st.builds(BindingRefreshAdvice, lifetimes),
    st.builds(AlternateCareOfAddress, ipv6_addresses),
    st.builds(NonceIndices, u16, u16),
    st.builds(MobileNetworkPrefix, prefixes),
    st.builds(LinkLayerAddress, u8, st.binary(max_size=8)),
    st.builds(MobileNodeIdentifier, u8, st.binary(max_size=40)),
    st.builds(MobilityMessageAuthentication, u8, u32, st.binary(max_size=20)),
    st.builds(MessageIdentifier, u64),
    binding_identifiers,
    st.builds(UnknownOption, _unknown_types, st.binary(max_size=40)),
)
#: Always the last one of a message.
_authenticators = st.binary(min_size=12, max_size=12) | st.binary(max_size=32)
last_options = st.builds(BindingAuthorizationData, _authenticators)
draft_options = plain_options | draft_flows
_summaries = st.builds(FlowSummary, st.lists(u16, min_size=1, max_size=9).map(tuple))
rfc6089_options = plain_options | rfc6089_flows | _summaries


def option_lists(options):
    return st.builds(
        lambda some, last: (*some, *last), st.lists(options, max_size=6), st.lists(last_options, max_size=1)
    )


def messages(options):
    lists = option_lists(options)
    flags = st.booleans()
    return st.one_of(
        st.builds(BindingRefreshRequest, lists),
        st.builds(HomeTestInit, octets8, lists),
        st.builds(CareOfTestInit, octets8, lists),
        st.builds(HomeTest, u16, octets8, octets8, lists),
        st.builds(CareOfTest, u16, octets8, octets8, lists),
        st.builds(BindingUpdate, u16, lifetimes, flags, flags, flags, flags, flags, flags, flags, lists),
        st.builds(BindingAcknowledgement, u8, u16, lifetimes, flags, flags, lists),
        st.builds(BindingError, u8, ipv6_addresses, lists),
        st.builds(
            UnknownMessage,
            st.integers(8, 255),
            st.integers(0, 9).flatmap(lambda n: st.binary(min_size=8 * n + 2, max_size=8 * n + 2)),
        ),
    )


draft_messages = messages(draft_options)
rfc6089_messages = messages(rfc6089_options)


def packets(some_messages):
    addresses = st.none() | routable
    return st.builds(Packet, routable, routable, some_messages, addresses, addresses)
