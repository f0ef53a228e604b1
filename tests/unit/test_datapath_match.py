"""Expressions of nf_tables against the reference semantics of a selector, on arbitrary packets."""

import struct
from ipaddress import IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from testbed.datapath.match import AH, ESP, PORT_PROTOCOLS, WITH_PORTS, matches
from testbed.datapath.netlink import attribute_list, attributes
from testbed.wire.selector import IPv4TrafficSelector, IPv6TrafficSelector

FIELDS = {
    "source_address": 128,
    "destination_address": 128,
    "spi": 32,
    "flow_label": 20,
    "source_port": 16,
    "destination_port": 16,
    "traffic_class": 8,
    "next_header": 8,
}


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def holds(expressions: bytes, packet: dict[str, int]) -> bool:
    """Evaluate the expressions as the kernel does (nft_do_chain), on a packet with these fields."""
    protocol = packet["next_header"]
    header = struct.pack(
        "!IHBB", 6 << 28 | packet["traffic_class"] << 20 | packet["flow_label"], 0, protocol, 64
    )
    header += packet["source_address"].to_bytes(16, "big") + packet["destination_address"].to_bytes(16, "big")
    spi = packet["spi"].to_bytes(4, "big")
    extension = {ESP: spi, AH: b"\x3b\x04\0\0" + spi}.get(protocol)
    ports = struct.pack("!HH", packet["source_port"], packet["destination_port"])
    register = b""
    for _, expression in attribute_list(expressions):
        parts = attributes(expression)
        name, data = parts[1].rstrip(b"\0").decode(), attributes(parts[2])
        if name == "payload":
            assert number(data[2]) in (1, 2)
            source = header if number(data[2]) == 1 else ports
            register = source[number(data[3]) : number(data[3]) + number(data[4])]
        elif name == "meta":
            assert number(data[2]) == 16
            register = bytes([59 if protocol == AH else protocol])
        elif name == "exthdr":
            if data[2][0] != protocol or extension is None:
                return False
            register = extension[number(data[3]) : number(data[3]) + number(data[4])]
        elif name == "bitwise":
            mask = attributes(data[4])[1]
            register = bytes(a & b for a, b in zip(register, mask, strict=True))
        elif name == "lookup":
            assert data[1].rstrip(b"\0").decode() == PORT_PROTOCOLS
            if register[0] not in WITH_PORTS:
                return False
        elif name == "cmp":
            wanted = attributes(data[3])[1]
            assert len(wanted) == len(register)
            operation = number(data[2])
            if not {0: register == wanted, 3: register <= wanted, 5: register >= wanted}[operation]:
                return False
        else:
            raise AssertionError(name)
    return True


def edges(bits: int):
    """Numbers, near powers of two more often than not."""
    near = st.builds(
        lambda bit, step: min(max((1 << bit) + step, 0), (1 << bits) - 1),
        st.integers(0, bits),
        st.integers(-2, 2),
    )
    return st.one_of(near, st.integers(0, (1 << bits) - 1))


def ranges(name: str):
    bits = FIELDS[name]
    pairs = st.tuples(edges(bits), edges(bits)).map(lambda pair: tuple(sorted(pair)))
    single = edges(bits).map(lambda value: (value, value))
    if bits == 128:
        prefix = st.builds(
            lambda value, length: (value >> length << length, value | (1 << length) - 1),
            edges(bits),
            st.integers(0, bits),
        )
        return st.one_of(pairs, single, prefix).map(lambda pair: tuple(map(IPv6Address, pair)))
    if name == "next_header":
        single = st.sampled_from([6, 17, 33, 132, 136, ESP, AH, 58, 59]).map(lambda value: (value, value))
    return st.one_of(pairs, single)


@st.composite
def cases(draw):
    """A selector, and a packet that is likely to be at the edge of it."""
    names = draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=4))
    selector = IPv6TrafficSelector(**{name: draw(ranges(name)) for name in names})
    packet = {}
    for name, bits in FIELDS.items():
        limits = getattr(selector, name)
        choices = [edges(bits)]
        if limits is not None:
            start, end = map(int, limits)
            top = (1 << bits) - 1
            choices.append(st.sampled_from([start, end, max(start - 1, 0), min(end + 1, top)]))
        packet[name] = draw(st.one_of(*choices))
    if draw(st.booleans()):
        packet["next_header"] = draw(st.sampled_from([*WITH_PORTS, ESP, AH, 58]))
    if packet["next_header"] in (0, 43, 44, 60):  # extension headers, whose next header is another packet
        packet["next_header"] = 58
    return selector, packet


def reference(selector: IPv6TrafficSelector, packet: dict[str, int]) -> bool:
    protocol = packet["next_header"]
    fields = dict(packet)
    if protocol not in WITH_PORTS:
        fields["source_port"] = fields["destination_port"] = None
    if protocol not in (ESP, AH):
        fields["spi"] = None
    for name in ("source_address", "destination_address"):
        fields[name] = IPv6Address(fields[name])
    if protocol == AH:  # both AH itself and what follows it are next headers of the packet
        return any(selector.matches(**{**fields, "next_header": header}) for header in (AH, 59))
    return selector.matches(**fields)


@pytest.mark.requirement(
    "RFC 6088 §3.2: every field of the binary traffic selector is matched, ends included"
)
@given(cases())
@example((IPv6TrafficSelector(), dict.fromkeys(FIELDS, 0)))
def test_expressions_mean_what_the_selector_says(case):
    selector, packet = case
    found = any(holds(alternative, packet) for alternative in matches(selector))
    assert found == reference(selector, packet)


def test_wild_card_has_no_condition():
    assert matches(None) == [b""]
    assert matches(IPv6TrafficSelector()) == [b""]


def test_impossible_selectors_yield_nothing():
    assert matches(IPv4TrafficSelector(protocol=(6, 6))) == []
    assert matches(IPv6TrafficSelector(source_port=(1, 1), next_header=(58, 58))) == []


def test_prefix_needs_one_comparison():
    start, end = IPv6Address("2001:db8::"), IPv6Address("2001:db8::ffff:ffff:ffff:ffff")
    (alternative,) = matches(IPv6TrafficSelector(source_address=(start, end)))
    names = [attributes(data)[1].rstrip(b"\0") for _, data in attribute_list(alternative)]
    assert names == [b"payload", b"bitwise", b"cmp"]
