"""Traffic selectors as people write them: the keys of a configuration file, the options of the command line.

Functions: `parse_selector`, `selector_texts`, `describe`. Exception: `SelectorError`.

A selector is a dictionary: key → value or range. Addresses are written as an address, a prefix or
"first-last", numbers as "22", "1-5" or "0x10"; protocols may go by name.
"""

import re
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, NetmaskValueError

from testbed.wire.selector import IPv4TrafficSelector, IPv6TrafficSelector, TrafficSelector

#: key → (the largest number, None for an address; what it is, for people)
SELECTOR_KEYS: dict[str, tuple[int | None, str]] = {
    "source_address": (None, "source address"),
    "destination_address": (None, "destination address"),
    "next_header": (0xFF, "next header"),
    "protocol": (0xFF, "IPv4 protocol"),
    "source_port": (0xFFFF, "source port"),
    "destination_port": (0xFFFF, "destination port"),
    "traffic_class": (0xFF, "traffic class"),
    "dscp": (0xFF, "IPv4 differentiated services field"),
    "flow_label": (0xFFFFF, "flow label"),
    "spi": (0xFFFFFFFF, "SPI"),
}
PROTOCOLS = {
    "icmp": 1,
    "tcp": 6,
    "udp": 17,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "sctp": 132,
    "udplite": 136,
}
_IPV4_KEYS = {"protocol", "dscp"}
_IPV6_KEYS = {"next_header", "traffic_class", "flow_label"}
_NAMES = {number: name for name, number in PROTOCOLS.items()}


class SelectorError(ValueError):
    """A selector that cannot be: `key` is the offending key, the text says what was expected."""

    def __init__(self, key: str, expected: str) -> None:
        super().__init__(f"{key}: {expected}")
        self.key = key
        self.expected = expected


def parse_selector(texts: Mapping[str, str | int]) -> TrafficSelector | None:
    """The traffic selector (RFC 6088) that `texts` describe; None, the wild card, if there are none.

    It is of the IPv4 format if an address or a key is IPv4's, else of the IPv6 format. Raises SelectorError.
    """
    if not texts:
        return None
    fields = {}
    version, because = 6, None
    for key, text in texts.items():
        if key not in SELECTOR_KEYS:
            raise SelectorError(key, f"unknown; known are {', '.join(SELECTOR_KEYS)}")
        limit, _ = SELECTOR_KEYS[key]
        fields[key] = _addresses(key, str(text)) if limit is None else _numbers(key, text, limit)
        of = 4 if key in _IPV4_KEYS else 6 if key in _IPV6_KEYS else None
        if limit is None:
            of = fields[key][0].version
        if of is not None:
            if because is not None and of != version:
                raise SelectorError(key, f"is of IPv{of}, but {because} is of IPv{version}")
            version, because = of, key
    try:
        return (IPv4TrafficSelector if version == 4 else IPv6TrafficSelector)(**fields)
    except ValueError as error:
        raise SelectorError("selector", str(error)) from error


def selector_texts(selector: TrafficSelector | None) -> dict[str, str]:
    """The inverse of `parse_selector`."""
    texts = {}
    for key, (limit, _) in SELECTOR_KEYS.items():
        pair = getattr(selector, key, None)
        if pair is not None:
            texts[key] = _address_text(*pair) if limit is None else _number_text(key, *pair)
    return texts


def describe(selector: TrafficSelector | None) -> str:
    """One line for people, for example "tcp, source port 22"."""
    texts = selector_texts(selector)
    if not texts:
        return "everything"
    words = []
    for key, text in texts.items():
        is_name = key in ("next_header", "protocol") and text in PROTOCOLS
        words.append(text if is_name else f"{SELECTOR_KEYS[key][1]} {text}")
    return ", ".join(words)


def _numbers(key: str, text: str | int, limit: int) -> tuple[int, int]:
    expected = f"expected a number or a range from 0 to {limit}, for example {_example(key)}"
    first, dash, last = str(text).strip().partition("-")
    try:
        start = _number(key, first)
        end = _number(key, last) if dash else start
    except ValueError:
        raise SelectorError(key, f"{expected}, not {text!r}") from None
    if not 0 <= start <= end <= limit:
        raise SelectorError(key, f"{expected}, not {text!r}")
    return start, end


def _number(key: str, text: str) -> int:
    text = text.strip().lower()
    if key in ("next_header", "protocol") and text in PROTOCOLS:
        return PROTOCOLS[text]
    if re.fullmatch("0x[0-9a-f]+|[0-9]+", text) is None:
        raise ValueError
    return int(text, 16) if text.startswith("0x") else int(text)


def _example(key: str) -> str:
    return "tcp" if key in ("next_header", "protocol") else "5000-5999" if key.endswith("port") else "10"


def _addresses(key: str, text: str) -> tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address]:
    expected = "expected an address, a prefix or a range, for example 2001:db8::/64 or 2001:db8::-2001:db8::9"
    version4 = ":" not in text
    address = IPv4Address if version4 else IPv6Address
    try:
        if "/" in text:
            network = (IPv4Network if version4 else IPv6Network)(text.strip())
            return network.network_address, network.broadcast_address
        first, dash, last = text.partition("-")
        start = address(first.strip())
        end = address(last.strip()) if dash else start
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        detail = f" ({error})" if "host bits" in str(error) else ""
        raise SelectorError(key, f"{expected}, not {text!r}{detail}") from None
    if end < start:
        raise SelectorError(key, f"{expected}; {text!r} ends before it begins")
    return start, end


def _address_text(start: IPv4Address | IPv6Address, end: IPv4Address | IPv6Address) -> str:
    if start == end:
        return str(start)
    length = start.max_prefixlen - (int(start) ^ int(end)).bit_length()
    network = (IPv4Network if start.version == 4 else IPv6Network)((int(start), length), strict=False)
    if (network.network_address, network.broadcast_address) == (start, end):
        return str(network)
    return f"{start}-{end}"


def _number_text(key: str, start: int, end: int) -> str:
    if start != end:
        return f"{start}-{end}"
    if key in ("next_header", "protocol"):
        return _NAMES.get(start, str(start))
    return str(start)
