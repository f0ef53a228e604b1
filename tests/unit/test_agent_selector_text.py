"""Traffic selectors in words and back."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.agent.selector_text import SelectorError, describe, parse_selector, selector_texts
from testbed.wire.selector import IPv4TrafficSelector, IPv6TrafficSelector


def v6(text):
    return IPv6Address(text)


@pytest.mark.parametrize(
    ("texts", "selector"),
    [
        ({}, None),
        ({"source_port": "22"}, IPv6TrafficSelector(source_port=(22, 22))),
        ({"source_port": 22}, IPv6TrafficSelector(source_port=(22, 22))),
        ({"destination_port": " 5000 - 5999 "}, IPv6TrafficSelector(destination_port=(5000, 5999))),
        ({"next_header": "UDP"}, IPv6TrafficSelector(next_header=(17, 17))),
        ({"next_header": "tcp-udp"}, IPv6TrafficSelector(next_header=(6, 17))),
        ({"flow_label": "0xfffff"}, IPv6TrafficSelector(flow_label=(0xFFFFF, 0xFFFFF))),
        ({"spi": "4294967295"}, IPv6TrafficSelector(spi=(0xFFFFFFFF, 0xFFFFFFFF))),
        (
            {"source_address": "2001:db8::/126"},
            IPv6TrafficSelector(source_address=(v6("2001:db8::"), v6("2001:db8::3"))),
        ),
        (
            {"source_address": "2001:db8::1-2001:db8::9"},
            IPv6TrafficSelector(source_address=(v6("2001:db8::1"), v6("2001:db8::9"))),
        ),
        (
            {"destination_address": "192.0.2.0/24", "source_port": "80"},
            IPv4TrafficSelector(
                destination_address=(IPv4Address("192.0.2.0"), IPv4Address("192.0.2.255")),
                source_port=(80, 80),
            ),
        ),
        ({"protocol": "tcp"}, IPv4TrafficSelector(protocol=(6, 6))),
    ],
)
def test_selectors_are_read(texts, selector):
    assert parse_selector(texts) == selector


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ({"port": "22"}, "port: unknown; known are source_address, "),
        ({"source_port": "65536"}, "source_port: expected a number or a range from 0 to 65535"),
        ({"source_port": "9-1"}, "source_port: expected a number or a range"),
        ({"source_port": "-1"}, "source_port: expected a number or a range"),
        ({"source_port": ""}, "source_port: expected a number or a range"),
        ({"source_port": "٣"}, "source_port: expected a number or a range"),
        ({"next_header": "ssh"}, "next_header: expected a number or a range from 0 to 255, for example tcp"),
        ({"source_address": "2001:db8::1/64"}, "source_address: expected an address, a prefix or a range"),
        ({"source_address": "example.org"}, "source_address: expected an address, a prefix or a range"),
        ({"source_address": "2001:db8::2-2001:db8::1"}, "source_address: expected an address"),
        (
            {"source_address": "192.0.2.1", "flow_label": "1"},
            "flow_label: is of IPv6, but source_address is of IPv4",
        ),
    ],
)
def test_what_is_wrong_is_said(texts, sentence):
    with pytest.raises(SelectorError) as raised:
        parse_selector(texts)
    assert str(raised.value).startswith(sentence)
    assert raised.value.key == sentence.partition(":")[0]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({}, "everything"),
        ({"next_header": "tcp", "source_port": "22"}, "tcp, source port 22"),
        ({"source_address": "2001:db8::/64", "spi": "1-9"}, "source address 2001:db8::/64, SPI 1-9"),
        ({"next_header": "200"}, "next header 200"),
    ],
)
def test_selectors_are_described(texts, words):
    assert describe(parse_selector(texts)) == words


def pairs(values):
    return st.none() | st.tuples(values, values).map(lambda pair: tuple(sorted(pair)))


def ranges(limit):
    return pairs(st.integers(0, limit))


address_ranges = pairs(st.ip_addresses(v=6))


@given(
    st.builds(
        IPv6TrafficSelector,
        source_address=address_ranges,
        destination_address=address_ranges,
        spi=ranges(0xFFFFFFFF),
        flow_label=ranges(0xFFFFF),
        source_port=ranges(0xFFFF),
        destination_port=ranges(0xFFFF),
        traffic_class=ranges(0xFF),
        next_header=ranges(0xFF),
    )
)
def test_every_selector_survives_being_written_down(selector):
    expected = None if selector == IPv6TrafficSelector() else selector
    assert parse_selector(selector_texts(selector)) == expected
