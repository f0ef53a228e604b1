"""The rules for tunnel packets (RFC 2473). Class: `TunnelPackets`.

They are accepted only with the (outer, inner) addresses of a registered path, whatever the number of paths in
constant time, and counted and dropped otherwise; those that leave get what the kernel cannot write into an
outer header by itself.
"""

import struct
from collections.abc import Iterable
from ipaddress import IPv6Address

from testbed.datapath import mark
from testbed.datapath.nftables import (
    ACCEPT,
    DROP,
    EQUAL,
    GOTO,
    JUMP,
    MARK,
    NETWORK,
    NOT_EQUAL,
    TRANSPORT,
    Rule,
    compare,
    count,
    dispatch,
    found_in,
    immediate,
    load,
    load_meta,
    mark_is,
    masked,
    set_mark,
    store,
    translate,
    verdict,
    within,
)
from testbed.datapath.tunnel import HOP_LIMIT
from testbed.mobility.forwarding import Path

IPV6, ROUTING_HEADER = 41, 43

TUNNELS, TUNNEL_PREFIXES, TUNNEL_ENDS = "tunnels", "tunnel_prefixes", "tunnel_ends"
SOURCES = "outer_sources"
#: At a mobile node: its regional addresses, and the sources of tunnels within tunnels (RFC 5380).
REGIONALS, NESTED_SOURCES = "regional_addresses", "nested_sources"
#: Mobile network prefixes to which tunnels within tunnels lead.
NESTED_PREFIXES = "nested_prefixes"
#: Counters.
REJECTED, SIGNALLING, UNROUTED = "rejected_tunnel_packets", "signalling_packets", "dropped_outer_packets"


def marked(number: int, copy: bool = False) -> bytes:
    """Give the packet this number."""
    return set_mark(mark.value(number) | (mark.COPY if copy else 0), mark.KEPT)


class TunnelPackets:
    """Their rules at one side. `by_route`: see `Tunnel`.

    What is cheap and seldom true is asked first: every packet of a tunnel goes through here, on both ends.
    """

    def __init__(self, anchor: bool, by_route: bool) -> None:
        self._anchor = anchor
        self._by_route = by_route
        #: The chain for tunnel packets whose inner packets are for others.
        self.onward = "decapsulate" if anchor or not by_route else "onward"

    def arrival(self) -> tuple[Rule, ...]:
        """Chain `tunnel`: whose tunnel packets are taken."""
        inner = 8 if self._anchor else 24  # whose addresses are the home addresses: source or destination
        addresses = load(NETWORK, 8, 16) + load(TRANSPORT, inner, 16, register=2)
        taken = mark_is(mark.value(mark.TAKEN), mark.NUMBER_MASK)
        spoofed = load(NETWORK, 24, 16) + found_in(REGIONALS) + count(REJECTED) + verdict(DROP)
        return (
            Rule(addresses + found_in(TUNNELS) + verdict(GOTO, "decapsulate")),
            Rule(load(TRANSPORT, inner, 16) + dispatch(TUNNEL_PREFIXES)),
            *(() if self._anchor else (Rule(taken + verdict(GOTO, "decapsulate"), "by an anchor point"),)),
            Rule(load(NETWORK, 24, 16) + found_in(TUNNEL_ENDS) + count(REJECTED) + verdict(DROP), "spoofed"),
            *(() if self._anchor or self._by_route else (Rule(spoofed, "spoofed inside"),)),
        )

    def decapsulation(self) -> dict[str, tuple[Rule, ...]]:
        """Chains `decapsulate` and, at a mobile node, `onward`, behind what they go to."""
        if self._anchor:
            return {"decapsulate": self._for_others() if self._by_route else (Rule(verdict(ACCEPT)),)}
        regional = self._inside(ROUTING_HEADER) + load(TRANSPORT, 24, 16) + found_in(REGIONALS)
        regional += count(SIGNALLING) + verdict(DROP)
        signalling = Rule(regional, "to a regional address: the agent has it")
        if not self._by_route:
            return {"decapsulate": (signalling, Rule(verdict(ACCEPT)))}
        nested = Rule(self._inside(IPV6) + verdict(GOTO, "nested"), "tunnel within the tunnel")
        either = load(TRANSPORT, 6, 1) + within(bytes([IPV6]), bytes([ROUTING_HEADER]))
        here = Rule(marked(mark.DECAPSULATE_HERE) + verdict(ACCEPT), "to a home address")
        return {
            "nested": self._nested(),
            "seldom": (signalling, nested),
            "decapsulate": (Rule(either + verdict(JUMP, "seldom")), here),
            "onward": (Rule(marked(mark.DECAPSULATE) + verdict(ACCEPT)),),
        }

    @staticmethod
    def _inside(header: int) -> bytes:
        """The tunnel packet has a packet that begins with this header."""
        return load(TRANSPORT, 6, 1) + compare(EQUAL, bytes([header]))

    @staticmethod
    def _for_others() -> tuple[Rule, ...]:
        """At an anchor, what is inside is for others. By a policy rule, what is not would be decapsulated
        again, for which that rule would want to know protocols (see `PolicyRule`)."""
        here = load(TRANSPORT, 24, 16) + found_in(TUNNEL_ENDS) + marked(mark.DECAPSULATE_OTHER)
        return Rule(here + verdict(ACCEPT), "to this node"), Rule(marked(mark.DECAPSULATE) + verdict(ACCEPT))

    @staticmethod
    def _nested() -> tuple[Rule, ...]:
        """At a mobile node: tunnels within tunnels to its regional addresses (RFC 5380)."""
        other = marked(mark.DECAPSULATE_OTHER) + verdict(ACCEPT)
        known = load(TRANSPORT, 8, 16) + load(TRANSPORT, 64, 16, register=2) + found_in(TUNNELS)
        to_us = load(TRANSPORT, 24, 16) + found_in(REGIONALS)
        return (
            Rule(known + other, "to a regional address"),
            Rule(load(TRANSPORT, 64, 16) + dispatch(NESTED_PREFIXES)),
            Rule(to_us + count(REJECTED) + verdict(DROP), "spoofed inside"),
            Rule(other),
        )

    def prefix_chains(self, chain: str, paths: Iterable[Path]) -> dict[str, tuple[str, tuple[Rule, ...]]]:
        """Map that leads there for a mobile network prefix -> chain and its rules: whose tunnel packets are
        taken for the prefix, if these are the paths; `chain`: what the names begin with."""
        tunnels = [path for path in paths if path.on_link is None]
        nested = {path.remote for path in tunnels if path.via is not None and self._by_route}

        def from_one_of(base: int, ends: set[IPv6Address], then: bytes) -> tuple[Rule, ...]:
            return tuple(Rule(load(base, 8, 16) + compare(EQUAL, end.packed) + then) for end in sorted(ends))

        ends = {path.remote for path in tunnels if path.via is None or not self._by_route}
        onward = verdict(GOTO, self.onward)
        chains = {TUNNEL_PREFIXES: (f"{chain}.tunnels", from_one_of(NETWORK, ends, onward))}
        if nested:
            other = marked(mark.DECAPSULATE_OTHER) + verdict(ACCEPT)
            chains[NESTED_PREFIXES] = f"{chain}.nested", from_one_of(TRANSPORT, nested, other)
        return chains

    def departure(self) -> dict[str, tuple[Rule, ...]]:
        """Chain `postrouting`, behind what it goes to: what outer headers get."""
        number = load_meta(MARK) + masked(struct.pack("=I", mark.NUMBER_MASK))
        hop_limit = immediate(bytes([HOP_LIMIT])) + store(NETWORK, 7, 1)
        tunnel_packet = load(NETWORK, 6, 1) + compare(EQUAL, bytes([IPV6]))
        if self._anchor:
            ours = number + compare(NOT_EQUAL, bytes(4)) + load(NETWORK, 8, 16) + found_in(TUNNEL_ENDS)
            return {"postrouting": (Rule(tunnel_packet + ours + hop_limit + verdict(ACCEPT)),)}
        placeholder = load(NETWORK, 8, 16) + compare(EQUAL, mark.PLACEHOLDER.packed)
        chains = {"postrouting": (Rule(tunnel_packet + placeholder + verdict(GOTO, "outer")),)}
        unrouted = Rule(count(UNROUTED) + verdict(DROP))
        if not self._by_route:
            inner = number + translate(NESTED_SOURCES) + store(NETWORK, 8, 16) + verdict(ACCEPT)
            return {"outer": (Rule(inner, "the regional address: inside a tunnel"), unrouted), **chains}
        nested = load(TRANSPORT, 6, 1) + compare(EQUAL, bytes([IPV6]))
        nested += load(TRANSPORT, 8, 16) + compare(EQUAL, mark.PLACEHOLDER.packed)
        nested += number + translate(NESTED_SOURCES) + store(TRANSPORT, 8, 16)
        source = number + translate(SOURCES) + store(NETWORK, 8, 16) + verdict(ACCEPT)
        other = load(NETWORK, 7, 1) + compare(NOT_EQUAL, bytes([HOP_LIMIT]))
        outer = (
            Rule(nested, "source of the tunnel within: the regional address"),
            Rule(other + hop_limit, "seldom: it has that of the packet inside"),
            Rule(source, "outer source: the path's care-of address"),
            unrouted,
        )
        return {"outer": outer, **chains}
