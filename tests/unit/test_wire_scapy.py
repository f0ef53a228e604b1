"""scapy as an oracle: it builds the same octets from the same fields, and finds the same fields in ours."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet6 import IPv6, Pad1, PadN
from scapy.packet import Raw
from wire_scapy import packet_layers, same_fields
from wire_strategies import draft_flows, messages, packets, plain_options, rfc6089_flows, rfc6089_options

from testbed.wire.codec import Codec
from testbed.wire.message import UnknownMessage
from testbed.wire.option import BindingAuthorizationData, LinkLayerAddress
from testbed.wire.packet import build_packet, parse_packet

#: scapy expects Ethernet addresses and an octet of padding in it.
NOT_ALIKE = LinkLayerAddress


def known_to_scapy(options):
    return messages(options).filter(
        lambda message: not isinstance(message, UnknownMessage)
        and not any(
            isinstance(option, NOT_ALIKE)
            or (isinstance(option, BindingAuthorizationData) and len(option.authenticator) != 12)
            for option in message.options
        )
    )


CASES = {
    "draft": packets(known_to_scapy(plain_options | draft_flows)),
    "rfc6089": packets(known_to_scapy(plain_options | rfc6089_flows | rfc6089_options)),
}


@pytest.mark.parametrize("dialect", sorted(CASES))
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_scapy_builds_the_same_octets(dialect, data):
    packet = data.draw(CASES[dialect])
    octets = bytes(packet_layers(packet, dialect))
    assert build_packet(packet, Codec(dialect)).hex() == octets.hex()
    assert parse_packet(octets, Codec(dialect)) == packet


paddings = st.builds(Pad1) | st.builds(lambda n: PadN(optdata=bytes(n)), st.integers(0, 6))


@pytest.mark.parametrize("dialect", sorted(CASES))
@settings(deadline=None, max_examples=60)
@given(data=st.data())
@pytest.mark.requirement("RFC 6275 §6.2.3: padding may stand before any option")
def test_options_are_found_behind_any_padding(dialect, data):
    packet = data.draw(CASES[dialect])
    made = packet_layers(packet, dialect)
    message = made.lastlayer()
    message.options = [
        layer for option in message.options for layer in (*data.draw(st.lists(paddings, max_size=3)), option)
    ]
    assert parse_packet(bytes(made), Codec(dialect)) == packet


@pytest.mark.parametrize("dialect", sorted(CASES))
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_scapy_finds_the_same_fields(dialect, data):
    packet = data.draw(CASES[dialect])
    dissected = IPv6(build_packet(packet, Codec(dialect)))
    made = packet_layers(packet, dialect)
    while made:
        assert same_fields(dissected, made), (dissected, made)
        dissected, made = dissected.payload, made.payload
    assert Raw not in dissected
