"""The nf_tables table of route optimisation: which care-of address each packet takes, on either side; and
what becomes of the headers of packets that arrive.

Class: `OptimisationClassifier`, which a `Ruleset` puts into the kernel. Its marks hold the number
`FIRST_NUMBER | way << PEER_BITS | peer`: the way out to take, with a Home Address option, and the BID of the
mobile node that it goes to, for the type 2 routing header; 0 where there is none. What leaves from a regional
care-of address has the mark of the slot that this one's tunnel has (see `mark`) instead.

What leaves: packets of this node itself meet these rules after those of the tunnels, whose mark they replace.
Signalling is none of their business, nor is what a flow binding discards or n-casts at a mobile node: that
stays as the tunnels have it, as does what has no way of its own, but goes to a mobile node.

What arrives: the addresses of the IPv6 header are replaced by the home addresses, in place. The emptied
headers stay in the packet, as ones that the kernel skips: a routing header of an experimental type without
segments left, an option of such a type (RFC 4727). No checksum of an upper layer changes, as it is computed
with the home addresses. A packet whose Home Address option no binding allows (RFC 6275 §9.3.1) is for
`RejectedPackets`.
"""

import struct
from collections.abc import Iterable, Mapping
from ipaddress import IPv6Address

from testbed.datapath import mark
from testbed.datapath.classifier import HOMES, ICMPV6, MOBILITY_HEADER, HomeRules, clamp_segments
from testbed.datapath.match import AH, ESP, PORT_PROTOCOLS, WITH_PORTS, matches
from testbed.datapath.nftables import (
    ACCEPT,
    DROP,
    EQUAL,
    IN_NAME,
    JUMP,
    LOCAL,
    MARK,
    NETWORK,
    NOT_EQUAL,
    OUTPUT,
    PREROUTING,
    RETURN,
    TRANSPORT,
    TYPE_ADDRESS,
    TYPE_PROTOCOL,
    TYPE_VERDICT,
    Element,
    Rule,
    Table,
    compare,
    count,
    dispatch,
    duplicate,
    found_in,
    immediate,
    load,
    load_destination_type,
    load_extension,
    load_meta,
    mark_is,
    masked,
    protocol_is,
    remember,
    set_mark,
    store,
    untracked,
    verdict,
)
from testbed.datapath.rejected import EMPTY_OPTION, REJECTED_PROTOCOL
from testbed.datapath.tunnel import OVERHEAD
from testbed.mobility.forwarding import Action, RouteOptimisation, Side

#: Marks of route optimisation; those of the tunnels lie below.
FIRST_NUMBER = 8192
WAY_BITS, PEER_BITS = 6, 7
_WAY, _PEER = (1 << WAY_BITS) - 1 << PEER_BITS, (1 << PEER_BITS) - 1
#: The bits of a mark that hold a way, and those that hold a peer.
WAY_MASK, PEER_MASK = mark.value(FIRST_NUMBER | _WAY), mark.value(FIRST_NUMBER | _PEER)
PAIRS, PEERS, BINDINGS, HEADERS = "pairs", "peers", "bindings", "headers"
CARE_OF_ADDRESSES = "care_of_addresses"
#: Of a mobile node: anchor point and regional care-of address (RFC 5380).
REGIONAL_TUNNELS = "regional_tunnels"
#: Who has sent through the tunnel is remembered for so many seconds that an agent finds it, even one that has
#: stood still for a while.
TALKERS, MAX_TALKERS, TALKER_TIMEOUT_S = "talkers", 256, 5
HEADERS_OF_FRAGMENTS = "headers_before_fragments"
_ROUTING, _FRAGMENT, _DESTINATION_OPTIONS, _IPV6 = 43, 44, 60, 41
_HOME_ADDRESS_OPTION = 0xC9
#: What mobility messages, ESP and AH have in their Home Address option is not for us to judge.
_LEFT_ALONE = MOBILITY_HEADER, ESP, AH
_MOBILE_PREFIX_ADVERTISEMENT = 147
_HEADER_OCTETS, _IPV6_OCTETS = 24, 40
#: Type and segments left.
_EMPTY_ROUTING = b"\xfd\0"


def chain_of(wanted: RouteOptimisation) -> str:
    """Name of the chain of a pair, in what nft takes for a name."""
    return f"pair_{wanted.home_address}_{wanted.correspondent}".replace(":", "_")


def number_of(way: int = 0, peer: int = 0) -> int:
    """The number of a way and a peer."""
    return FIRST_NUMBER | way << PEER_BITS | peer


class OptimisationClassifier:
    """Translates route optimisations into rules. Nothing in here talks to the kernel.

    `sides`: what this node is, one of MOBILE and CORRESPONDENT or both. `mtu`: what packets may have before
    they get their headers, octets. `homes`: home addresses of this node. `talkers`: remember, in a set, who
    sends to them through the tunnel from the home agent. `devices`: names of the devices that finished
    packets come from begin with this; None if there are none. `regional`: what comes to regional care-of
    addresses, in the tunnels of anchor points, is taken, too.
    """

    BASE_COUNTERS = ("signalling_packets", "unverified_packets")

    def __init__(
        self,
        sides: Iterable[Side],
        table: str,
        mtu: int,
        homes: Iterable[IPv6Address] = (),
        devices: str | None = None,
        talkers: bool = False,
        regional: bool = False,
    ) -> None:
        self.table = Table(table)
        self._mobile, self._correspondent = (s in sides for s in (Side.MOBILE, Side.CORRESPONDENT))
        self._mtu = mtu
        self._own = list(homes)
        self._devices = devices
        self._talkers = talkers
        self._regional = regional

    def base_chains(self) -> dict[str, tuple[tuple[str, int, int] | None, tuple[Rule, ...]]]:
        """As for Ruleset."""
        first = struct.pack("=I", mark.value(FIRST_NUMBER))
        number = struct.pack("=I", mark.NUMBER_MASK)
        tunnelled = load_meta(MARK) + masked(first) + compare(EQUAL, bytes(4))
        tunnelled += load_meta(MARK) + masked(number) + compare(NOT_EQUAL, bytes(4))
        output = (
            Rule(protocol_is(MOBILITY_HEADER) + verdict(ACCEPT), "signalling"),
            Rule(load(NETWORK, 8, 32) + dispatch(PAIRS)),
            Rule(tunnelled + verdict(ACCEPT), "left to the tunnels"),
            Rule(load(NETWORK, 24, 16) + dispatch(PEERS)),
        )
        left_alone = mark_is(mark.value(mark.LEFT_ALONE), mark.NUMBER_MASK) + verdict(ACCEPT)
        prerouting = [
            Rule(left_alone, "signalling, for IPsec"),
            Rule(load(NETWORK, 6, 1) + dispatch(HEADERS)),
        ]
        if self._devices is not None:
            ready = self._ready() + load(NETWORK, 24, 16) + duplicate() + verdict(DROP)
            prerouting.insert(0, Rule(ready, "ready to leave"))
        if not self._mobile:  # at a mobile node, the table of the tunnels does this
            prerouting += self._signalling()
        return {
            **{name: (None, rules) for name, rules in self._arriving().items()},
            "fragments": (("filter", PREROUTING, -450), self._fragments()),
            "prerouting": (("filter", PREROUTING, -310), tuple(prerouting)),
            "output": (("route", OUTPUT, -140), output),
            **({"talking": (("filter", PREROUTING, -290), self._talking())} if self._talkers else {}),
        }

    def _arriving(self) -> dict[str, tuple[Rule, ...]]:
        """The chains for packets with such headers; each after those that it jumps to."""
        first, second = _IPV6_OCTETS, _IPV6_OCTETS + _HEADER_OCTETS
        chains: dict[str, tuple[Rule, ...]] = {}
        if self._correspondent:
            chains["behind"] = self._home_address(second, 8)
            chains["options"] = self._home_address(first, 8)
            if self._mobile:
                chains["in_tunnel"] = self._home_address(2 * _IPV6_OCTETS, _IPV6_OCTETS + 8)
                chains["in_tunnels"] = self._home_address(3 * _IPV6_OCTETS, 2 * _IPV6_OCTETS + 8)
        if self._mobile:
            chains["routing"] = self._routing()
            tunnel: tuple[Rule, ...] = ()
            if self._regional:
                if self._correspondent:
                    at = 2 * _IPV6_OCTETS + _HEADER_OCTETS
                    chains["behind_in_tunnel"] = self._home_address(at, _IPV6_OCTETS + 8)
                chains["regional"] = self._routing(_IPV6_OCTETS)
                tunnel = self._to_regional()
            if self._correspondent:
                tunnel += self._tunnel()
            if tunnel:
                chains["tunnel"] = tunnel
        return chains

    def _talking(self) -> tuple[Rule, ...]:
        """Tunnel packets that the tunnels' rules have let pass, with anything but signalling inside."""
        rules = self._talking_in(0)
        if self._regional:  # in the tunnel of an anchor point, one from the home agent
            rules += self._talking_in(_IPV6_OCTETS)
        return rules

    def _talking_in(self, outer: int) -> tuple[Rule, ...]:
        """The same of tunnel packets with so many octets more outside of their own header."""
        home = protocol_is(_IPV6)
        if outer:
            home += load(TRANSPORT, 6, 1) + compare(EQUAL, bytes([_IPV6]))
        home += load(TRANSPORT, outer + 24, 16) + found_in(HOMES)
        sender = load(TRANSPORT, outer + 8, 16) + remember(TALKERS)
        first, second = load(TRANSPORT, outer + 6, 1), load(TRANSPORT, outer + _IPV6_OCTETS, 1)
        for protocol in (MOBILITY_HEADER, _DESTINATION_OPTIONS):
            first += compare(NOT_EQUAL, bytes([protocol]))
        options = load(TRANSPORT, outer + 6, 1) + compare(EQUAL, bytes([_DESTINATION_OPTIONS])) + second
        for protocol in (MOBILITY_HEADER, REJECTED_PROTOCOL):
            options += compare(NOT_EQUAL, bytes([protocol]))
        return Rule(home + first + sender), Rule(home + options + sender)

    def _fragments(self) -> tuple[Rule, ...]:
        """Fragments behind our headers: the kernel loses its way where they are put together early, or puts
        its Fragment header before the Home Address option where it cuts them again."""
        header = load(NETWORK, 6, 1) + found_in(HEADERS_OF_FRAGMENTS)
        first, second = (load(NETWORK, _IPV6_OCTETS + n, 1) for n in (0, _HEADER_OCTETS))
        fragment, options = (compare(EQUAL, bytes([n])) for n in (_FRAGMENT, _DESTINATION_OPTIONS))
        end = _local() + untracked() + verdict(ACCEPT)
        both = first + options + second
        rules = [Rule(header + before + fragment + end) for before in (first, both)]
        if self._devices is not None:
            rules.insert(0, Rule(self._ready() + untracked() + verdict(ACCEPT)))
        return tuple(rules)

    def _ready(self) -> bytes:
        """A finished packet."""
        return load_meta(IN_NAME) + compare(EQUAL, self._devices.encode())

    def _routing(self, packet: int = 0) -> tuple[Rule, ...]:
        """RFC 6275 §6.4: the routing header's home address is the destination. `packet`: where the packet
        begins; one in the tunnel of an anchor point, whose ends have been looked at, is told of by a mark."""
        header = packet + _IPV6_OCTETS
        home = load(NETWORK, header + 8, 16)
        ours = load(NETWORK, header, 1) + compare(NOT_EQUAL, bytes([MOBILITY_HEADER]))
        ours += load(NETWORK, header + 1, 3) + compare(EQUAL, b"\2\2\1")
        if not packet:
            ours += load(NETWORK, 24, 16) + found_in(CARE_OF_ADDRESSES)
        take = store(NETWORK, packet + 24, 16) + immediate(_EMPTY_ROUTING) + store(NETWORK, header + 2, 2)
        if packet:
            take += set_mark(mark.value(mark.TAKEN), mark.KEPT)
        icmp = load(NETWORK, header, 1) + compare(EQUAL, bytes([ICMPV6]))
        icmp += load(NETWORK, header + _HEADER_OCTETS, 1)
        icmp += compare(EQUAL, bytes([_MOBILE_PREFIX_ADVERTISEMENT])) + verdict(RETURN)
        rules = [
            Rule(icmp, "signalling (RFC 6275 §6.8)"),
            Rule(ours + home + found_in(HOMES) + take, "to the home address"),
        ]
        if self._correspondent:
            taken = load(NETWORK, header + 2, 2) + compare(EQUAL, _EMPTY_ROUTING)
            options = load(NETWORK, header, 1) + compare(EQUAL, bytes([_DESTINATION_OPTIONS]))
            behind = "behind_in_tunnel" if packet else "behind"
            rules.append(Rule(taken + options + verdict(JUMP, behind)))
        return tuple(rules)

    def _to_regional(self) -> tuple[Rule, ...]:
        """RFC 5380 §6.1: what the anchor point tunnels is processed in the normal manner."""
        routed = load(NETWORK, _IPV6_OCTETS + 6, 1) + compare(EQUAL, bytes([_ROUTING]))
        ends = load(NETWORK, 8, 16) + load(NETWORK, _IPV6_OCTETS + 24, 16, register=2)
        return (Rule(routed + ends + found_in(REGIONAL_TUNNELS) + verdict(JUMP, "regional")),)

    def _tunnel(self) -> tuple[Rule, ...]:
        """In tunnels from the home agent; what is no such tunnel is dropped later, as ever."""
        options, tunnel = bytes([_DESTINATION_OPTIONS]), bytes([_IPV6])
        once = load(NETWORK, _IPV6_OCTETS + 6, 1) + compare(EQUAL, options)
        twice = load(NETWORK, _IPV6_OCTETS + 6, 1) + compare(EQUAL, tunnel)
        twice += load(NETWORK, 2 * _IPV6_OCTETS + 6, 1) + compare(EQUAL, options)
        home = found_in(HOMES)
        return (
            Rule(once + load(NETWORK, _IPV6_OCTETS + 24, 16) + home + verdict(JUMP, "in_tunnel")),
            Rule(twice + load(NETWORK, 2 * _IPV6_OCTETS + 24, 16) + home + verdict(JUMP, "in_tunnels")),
        )

    def _home_address(self, at: int, source: int) -> tuple[Rule, ...]:
        """RFC 6275 §9.3.1: for an options header at the offset `at`, of a packet whose source address is at
        the offset `source`."""
        option = load(NETWORK, at + 1, 1) + compare(EQUAL, b"\2")
        option += load(NETWORK, at + 6, 2) + compare(EQUAL, bytes((_HOME_ADDRESS_OPTION, 16)))
        upper = load(NETWORK, at, 1)
        for protocol in _LEFT_ALONE:
            upper += compare(NOT_EQUAL, bytes([protocol]))
        addresses = load(NETWORK, at + 8, 16) + load(NETWORK, source, 16, register=2)
        empty = immediate(bytes([EMPTY_OPTION])) + store(NETWORK, at + 6, 1)
        take = store(NETWORK, source, 16) + empty + verdict(ACCEPT)
        report = empty + immediate(bytes([REJECTED_PROTOCOL])) + store(NETWORK, at, 1)
        report += count("unverified_packets") + verdict(ACCEPT)
        in_tunnel = source != 8
        local = b"" if in_tunnel else _local()
        rules = []
        if in_tunnel:  # the agent will find the option beside the message
            message = load(NETWORK, at, 1) + compare(EQUAL, bytes([MOBILITY_HEADER]))
            rules.append(Rule(option + message + empty + verdict(ACCEPT), "signalling"))
        rules.append(Rule(option + upper + local + addresses + found_in(BINDINGS) + take, "bound"))
        rules.append(Rule(option + upper + local + report, "not bound"))
        return tuple(rules)

    def _signalling(self) -> list[Rule]:
        """What the agent has had by now, and the kernel does not understand."""
        end = _local() + count("signalling_packets") + verdict(DROP)
        option = compare(EQUAL, bytes([_HOME_ADDRESS_OPTION]))
        return [
            Rule(protocol_is(MOBILITY_HEADER) + end, "the agent has it"),
            Rule(load_extension(43, 2, 1) + compare(EQUAL, b"\2") + end, "type 2 routing header"),
            *(Rule(load_extension(60, at, 1) + option + end, "Home Address option") for at in (6, 14, 22)),
        ]

    def base_sets(self) -> list[tuple]:
        addresses = (TYPE_ADDRESS, TYPE_ADDRESS)
        talkers = [(TALKERS, (TYPE_ADDRESS,), None, False, (MAX_TALKERS, TALKER_TIMEOUT_S))]
        return [
            (PORT_PROTOCOLS, (TYPE_PROTOCOL,), None, False),
            (HEADERS, (TYPE_PROTOCOL,), TYPE_VERDICT, False),
            (HEADERS_OF_FRAGMENTS, (TYPE_PROTOCOL,), None, False),
            (PAIRS, addresses, TYPE_VERDICT, False),
            (PEERS, (TYPE_ADDRESS,), TYPE_VERDICT, False),
            (BINDINGS, addresses, None, False),
            (HOMES, (TYPE_ADDRESS,), None, False),
            (CARE_OF_ADDRESSES, (TYPE_ADDRESS,), None, False),
            *([(REGIONAL_TUNNELS, addresses, None, False)] if self._regional else []),
            *(talkers if self._talkers else []),
        ]

    def base(
        self,
        care_of_addresses: Iterable[IPv6Address] = (),
        regional: Iterable[tuple[IPv6Address, IPv6Address]] = (),
    ) -> HomeRules:
        """What is there whatever the pairs; `care_of_addresses`: those of this node; `regional`: anchor
        points and the regional care-of addresses that these bind."""
        chains = {"routing": _ROUTING, "options": _DESTINATION_OPTIONS, "tunnel": _IPV6}
        there = self._arriving()
        elements = {(PORT_PROTOCOLS, (Element(bytes([number])),)) for number in WITH_PORTS}
        elements |= {(HEADERS, (Element(bytes([n]), name),)) for name, n in chains.items() if name in there}
        before = _ROUTING, _DESTINATION_OPTIONS
        elements |= {(HEADERS_OF_FRAGMENTS, (Element(bytes([number])),)) for number in before}
        elements |= {(HOMES, (Element(home.packed),)) for home in self._own}
        elements |= {(CARE_OF_ADDRESSES, (Element(each.packed),)) for each in care_of_addresses}
        elements |= {(REGIONAL_TUNNELS, (Element(a.packed + r.packed),)) for a, r in regional}
        return HomeRules({}, {}, frozenset(elements))

    def pair(self, wanted: RouteOptimisation, numbers: Mapping[int, int]) -> HomeRules:
        """The rules of one pair; `numbers`: BID -> the number of its way, or its peer."""
        chain = chain_of(wanted)
        mobile = wanted.side is Side.MOBILE
        counters: dict[str, tuple[IPv6Address, int | None]] = {}

        def counted(fid: int | None) -> bytes:
            name = f"{chain}.{'default' if fid is None else f'fid{fid}'}"
            counters[name] = wanted.home_address, fid
            return count(name)

        def towards(bid: int) -> bytes:
            if mobile:
                return set_mark(mark.value(numbers[bid]), mark.KEPT) + verdict(RETURN)
            kept = mark.KEPT | mark.value(_WAY)
            return set_mark(mark.value(number_of(peer=numbers[bid])), kept) + verdict(ACCEPT)

        tunnelled = any(path.via is not None for path in wanted.paths)
        # the other end is to leave room for the headers
        rules = [Rule(clamp_segments(self._mtu - OVERHEAD * tunnelled))]
        for rule in wanted.rules:
            selector = rule.selector
            if selector is not None and mobile:
                selector = selector.mirrored()
            if rule.action is Action.FORWARD and rule.bids:
                action = counted(rule.fid) + towards(rule.bids[0])
            elif mobile:
                action = verdict(ACCEPT)
            else:
                action = counted(rule.fid) + verdict(DROP)
            rules += [Rule(match + action, f"fid {rule.fid}") for match in matches(selector)]
        rules.append(Rule(counted(None) + towards(wanted.default_bid), "default"))
        return HomeRules({chain: tuple(rules)}, counters, frozenset(self._elements(wanted, chain)))

    def _elements(self, wanted: RouteOptimisation, chain: str) -> set[tuple[str, tuple[Element, ...]]]:
        home = wanted.home_address.packed
        if wanted.side is Side.MOBILE:
            return {
                (PAIRS, (Element(home + wanted.correspondent.packed, chain),)),
                (HOMES, (Element(home),)),
                *(
                    (CARE_OF_ADDRESSES, (Element(path.local.packed),))
                    for path in wanted.paths
                    if path.via is None
                ),
            }
        bound = {(BINDINGS, (Element(home + path.remote.packed),)) for path in wanted.paths}
        return {(PEERS, (Element(home, chain),)), *bound}


def _local() -> bytes:
    """To an address of this node."""
    return load_destination_type() + compare(EQUAL, struct.pack("=I", LOCAL))
