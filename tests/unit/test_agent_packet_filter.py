"""The kernel runs the filter: a filtered socket gets what the program accepts."""

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.agent.packet_filter import MAX_EXTENSION_HEADERS, attach, mobility_header_filter

MOBILITY_HEADER = bytes(16)


@pytest.fixture(scope="module")
def accepts():
    sending, receiving = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiving.setblocking(False)
    attach(receiving, mobility_header_filter())

    def accepts(packet: bytes) -> bool:
        sending.send(packet)
        try:
            return receiving.recv(65536) == packet
        except BlockingIOError:
            return False

    with sending, receiving:
        yield accepts


def packet(*chain: tuple[int, int]) -> bytes:
    """An IPv6 packet with these extension headers (number, length field), before a header 135 or as said."""
    numbers = [*(number for number, _ in chain), 135]
    headers = [bytes([numbers[i + 1], length]) + bytes(6 + 8 * length) for i, (_, length) in enumerate(chain)]
    return bytes(6) + bytes([numbers[0], 64]) + bytes(32) + b"".join(headers) + MOBILITY_HEADER


def test_mobility_headers_are_accepted_behind_extension_headers(accepts):
    assert accepts(packet())
    assert accepts(packet((60, 2)))
    assert accepts(packet((43, 2)))
    assert accepts(packet((0, 0), (60, 2), (43, 2), (60, 5)))
    assert accepts(packet(*[(60, 255)] * MAX_EXTENSION_HEADERS))


def test_all_else_is_dropped_by_the_kernel(accepts):
    for next_header in (1, 6, 17, 41, 50, 58, 59, 134, 136):
        assert not accepts(packet()[:6] + bytes([next_header]) + packet()[7:])
        behind_options = bytearray(packet((60, 2)))
        behind_options[40] = next_header
        assert not accepts(bytes(behind_options))
    assert not accepts(packet(*[(60, 0)] * (MAX_EXTENSION_HEADERS + 1)))


def test_icmpv6_messages_of_mobile_ipv6_are_accepted(accepts):
    for chain in ((), ((60, 2),), ((43, 2),), ((43, 2), (60, 2))):
        for kind in range(256):
            whole = bytearray(packet(*chain))
            whole[6 if not chain else len(whole) - 16 - 24] = 58
            whole[-16] = kind
            assert accepts(bytes(whole)) == (144 <= kind <= 147)


def test_messages_inside_tunnels_are_accepted_where_that_is_wanted(accepts):
    sending, receiving = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiving.setblocking(False)
    attach(receiving, mobility_header_filter(tunnelled=True))

    def accepted(data):
        sending.send(data)
        try:
            return receiving.recv(65536) == data
        except BlockingIOError:
            return False

    outer = bytes(6) + bytes([41, 64]) + bytes(32)
    with sending, receiving:
        for inner in (packet(), packet((43, 2)), packet((60, 2))):
            assert accepted(outer + inner) and accepted(inner)
            assert not accepts(outer + inner)
        tcp = packet()[:6] + bytes([6]) + packet()[7:]
        assert not accepted(outer + tcp) and not accepted(tcp)
        assert not accepted(outer)


def test_what_is_cut_off_before_it_says_what_it_is_is_dropped(accepts):
    whole = packet((60, 2), (43, 2))
    assert not any(accepts(whole[:length]) for length in range(1, 65))


def reference(data: bytes) -> bool:
    """What the filter is to decide, in Python."""
    if len(data) < 7:
        return False
    next_header, offset = data[6], 40
    for _ in range(MAX_EXTENSION_HEADERS):
        if next_header == 135:
            return True
        if next_header not in (0, 43, 44, 60) or offset + 1 >= len(data):
            return False
        next_header, offset = data[offset], offset + 8 * (data[offset + 1] + 1)
    return next_header == 135


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.sampled_from([0, 43, 44, 60, 135, 6, 17]), st.integers(0, 3)), max_size=6),
    st.integers(0, 200),
)
def test_it_decides_as_the_reference_does(accepts, chain, length):
    data = packet(*chain)[: max(1, len(packet(*chain)) - length)]
    assert accepts(data) == reference(data)
