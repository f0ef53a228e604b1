"""The rules of a regional care-of address at an anchor point (RFC 5380 §6.2; draft §9): what they classify is
what the packets to it carry.

- In tunnel packets, that is the packet inside, and its upper-layer header behind up to two extension headers
  of 8 or 24 octets (Fragment; Home Address option, type 2 routing header: RFC 6275 §6.3, §6.4). There are
  rules for each of these lengths, as nf_tables finds no header inside of a tunnel by itself. Behind other
  extension headers, and in fragments but the first, only what stands before is compared.
- In packets with a type 2 routing header, the home address there is the destination.
- Others are what they are.

Functions: `regional_chains`.
"""

from collections.abc import Callable, Iterable

from testbed.datapath.match import Inside, matches, matches_inside
from testbed.datapath.nftables import (
    EQUAL,
    GOTO,
    NETWORK,
    NOT_EQUAL,
    TRANSPORT,
    Rule,
    compare,
    found_in,
    load,
    masked,
    protocol_is,
    verdict,
)
from testbed.mobility.forwarding import FlowRule
from testbed.wire.selector import IPv6TrafficSelector, TrafficSelector

IPV6, ROUTING, FRAGMENT, MOBILITY_HEADER = 41, 43, 44, 135
#: Set of the table with the extension headers that are stepped over.
EXTENSION_HEADERS, EXTENSIONS = "extension_headers", (0, 43, 44, 60)
_IPV6_OCTETS, _SHORT, _LONG = 40, 8, 24
#: Where the home address is in a packet that begins with a type 2 routing header.
_ROUTED_DESTINATION = _IPV6_OCTETS + 8
#: The second octet of an extension header of so many octets.
_LENGTH = {_SHORT: b"\0", _LONG: b"\2"}
_OFFSET_OF_FRAGMENT = b"\xff\xf8"

#: By the name of their chain, where the next headers and the upper-layer header are in the packet inside.
LAYOUTS = {
    "tunnel": Inside((6,), _IPV6_OCTETS),
    "behind8": Inside((6, _IPV6_OCTETS), _IPV6_OCTETS + _SHORT),
    "behind24": Inside((6, _IPV6_OCTETS), _IPV6_OCTETS + _LONG),
    "behind24_8": Inside((6, _IPV6_OCTETS, _IPV6_OCTETS + _LONG), _IPV6_OCTETS + _LONG + _SHORT),
    "behind24_24": Inside((6, _IPV6_OCTETS, _IPV6_OCTETS + _LONG), _IPV6_OCTETS + 2 * _LONG),
    "behind": Inside((6, _IPV6_OCTETS), None),
}


def regional_chains(
    chain: str, rules: Iterable[tuple[FlowRule, bytes]], default: bytes
) -> dict[str, tuple[Rule, ...]]:
    """`chain` and those beside it. `rules`: in order, each with what is done with its packets; `default` is
    done with those that belong to none."""
    rules = list(rules)
    routed = load(NETWORK, 6, 1) + compare(EQUAL, bytes([ROUTING]))
    routed += load(NETWORK, _IPV6_OCTETS + 2, 1) + compare(EQUAL, b"\2")

    def written(match: Callable[[TrafficSelector | None], list[bytes]]) -> list[Rule]:
        found = [
            Rule(each + action, f"fid {rule.fid}") for rule, action in rules for each in match(rule.selector)
        ]
        return [*found, Rule(default, "default")]

    def goto(name: str) -> bytes:
        return verdict(GOTO, f"{chain}.{name}")

    chains = {
        chain: [
            Rule(protocol_is(MOBILITY_HEADER) + default, "signalling follows no flow binding"),
            Rule(protocol_is(IPV6) + goto("tunnel")),
            Rule(routed + goto("routed")),
            *written(matches),
        ],
        f"{chain}.routed": written(lambda selector: matches(selector, _ROUTED_DESTINATION)),
    }
    # what does not look behind extension headers has the same rules whatever they are
    upper = any(_looks_behind(rule.selector) for rule, _ in rules)
    for name, inside in LAYOUTS.items():
        if upper or name == "tunnel":
            signalling = load(TRANSPORT, inside.next_headers[-1], 1)
            signalling += compare(EQUAL, bytes([MOBILITY_HEADER])) + default
            found = [Rule(signalling, "nor does signalling inside a tunnel")]
            found += written(lambda selector, inside=inside: matches_inside(selector, inside))
            chains[f"{chain}.{name}"] = found
    if upper:
        extended = load(TRANSPORT, 6, 1) + found_in(EXTENSION_HEADERS) + goto("extended")
        chains[f"{chain}.tunnel"].insert(0, Rule(extended))
        chains[f"{chain}.extended"] = _extended(goto)
        chains[f"{chain}.twice"] = _twice(goto)
    return {name: tuple(found) for name, found in chains.items()}


def _looks_behind(selector: TrafficSelector | None) -> bool:
    if not isinstance(selector, IPv6TrafficSelector):
        return False
    ports = selector.source_port, selector.destination_port
    return any(each is not None for each in (selector.next_header, selector.spi, *ports))


def _extended(goto: Callable[[str], bytes]) -> list[Rule]:
    """Where there is an extension header inside."""
    return [
        Rule(load(TRANSPORT, _IPV6_OCTETS, 1) + found_in(EXTENSION_HEADERS) + goto("twice")),
        _later_fragment(6, _IPV6_OCTETS, goto),
        *_of_length(_IPV6_OCTETS, {_SHORT: "behind8", _LONG: "behind24"}, goto),
    ]


def _twice(goto: Callable[[str], bytes]) -> list[Rule]:
    """Where there is another one behind it."""
    second = _IPV6_OCTETS + _LONG
    first_other = load(TRANSPORT, _IPV6_OCTETS + 1, 1) + compare(NOT_EQUAL, _LENGTH[_LONG])
    return [
        Rule(first_other + goto("behind")),
        Rule(load(TRANSPORT, second, 1) + found_in(EXTENSION_HEADERS) + goto("behind")),
        _later_fragment(_IPV6_OCTETS, second, goto),
        *_of_length(second, {_SHORT: "behind24_8", _LONG: "behind24_24"}, goto),
    ]


def _later_fragment(next_header: int, at: int, goto: Callable[[str], bytes]) -> Rule:
    fragment = load(TRANSPORT, next_header, 1) + compare(EQUAL, bytes([FRAGMENT]))
    offset = load(TRANSPORT, at + 2, 2) + masked(_OFFSET_OF_FRAGMENT) + compare(NOT_EQUAL, bytes(2))
    return Rule(fragment + offset + goto("behind"), "not the first fragment")


def _of_length(at: int, chains: dict[int, str], goto: Callable[[str], bytes]) -> list[Rule]:
    found = [
        Rule(load(TRANSPORT, at + 1, 1) + compare(EQUAL, _LENGTH[octets]) + goto(name))
        for octets, name in chains.items()
    ]
    return [*found, Rule(goto("behind"))]
