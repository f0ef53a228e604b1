"""The nf_tables table of route optimisation: which care-of address each packet takes.

Class: `OptimisationClassifier`, which a `Ruleset` puts into the kernel. Its marks hold numbers from
`FIRST_NUMBER` on: which way to take at a mobile node, which BID at a correspondent node.

Packets of this node itself meet these rules after those of the tunnels, whose mark they replace. Signalling
is none of their business, nor is what a flow binding discards or n-casts at a mobile node: that stays as the
tunnels have it.
"""

import struct
from collections.abc import Mapping
from ipaddress import IPv6Address

from testbed.datapath import mark
from testbed.datapath.classifier import MOBILITY_HEADER, HomeRules, clamp_segments
from testbed.datapath.match import PORT_PROTOCOLS, WITH_PORTS, matches
from testbed.datapath.nftables import (
    ACCEPT,
    DROP,
    EQUAL,
    LOCAL,
    NETWORK,
    OUTPUT,
    PREROUTING,
    TYPE_ADDRESS,
    TYPE_PROTOCOL,
    TYPE_VERDICT,
    Element,
    Rule,
    Table,
    compare,
    count,
    dispatch,
    found_in,
    load,
    load_destination_type,
    load_extension,
    log,
    protocol_is,
    protocol_is_not,
    set_mark,
    untracked,
    verdict,
)
from testbed.datapath.packet_log import GROUP
from testbed.mobility.forwarding import Action, RouteOptimisation, Side

#: Marks of route optimisation; those of the tunnels lie below.
FIRST_NUMBER = 8192
PAIRS = "pairs"
#: Care-of address and home address of each binding.
ACCEPTED = "accepted"
_HOME_ADDRESS_OPTION = 0xC9
ESP, AH = 50, 51
#: Of type 2; and a Home Address option where the kernel and we put it.
_ROUTING_HEADER = load_extension(43, 2, 1) + compare(EQUAL, b"\2")
_FIRST_OPTION = load_extension(60, 6, 1) + compare(EQUAL, bytes([_HOME_ADDRESS_OPTION]))
#: Before connection tracking puts fragments together (NF_IP6_PRI_CONNTRACK_DEFRAG).
_BEFORE_REASSEMBLY = -450


def chain_of(wanted: RouteOptimisation) -> str:
    """Name of the chain of a pair, in what nft takes for a name."""
    return f"pair_{wanted.home_address}_{wanted.correspondent}".replace(":", "_")


class OptimisationClassifier:
    """Translates route optimisations into rules. Nothing in here talks to the kernel.

    `mtu`: what packets may have before they get their header, octets. `kernel_headers`: see `Carrier`.
    """

    BASE_COUNTERS = ("signalling_packets",)

    def __init__(self, side: Side, table: str, mtu: int, kernel_headers: bool = False) -> None:
        self.table = Table(table)
        self._mobile = side is Side.MOBILE
        self._mtu = mtu
        self._kernel_headers = kernel_headers

    def base_chains(self) -> dict[str, tuple[tuple[str, int, int] | None, tuple[Rule, ...]]]:
        """As for Ruleset."""
        key = load(NETWORK, 8, 32) if self._mobile else load(NETWORK, 24, 16)
        output = (
            Rule(protocol_is(MOBILITY_HEADER) + verdict(ACCEPT), "signalling"),
            Rule(key + dispatch(PAIRS)),
        )
        chains: dict[str, tuple[tuple[str, int, int] | None, tuple[Rule, ...]]] = {
            "output": (("route", OUTPUT, -140), output)
        }
        if not self._mobile:  # at a mobile node, the table of the tunnels does this
            chains["prerouting"] = ("filter", PREROUTING, -310), self._signalling()
        if self._kernel_headers:
            chains["fragments"] = ("filter", PREROUTING, _BEFORE_REASSEMBLY), self._fragments()
            if self._mobile:
                left = protocol_is_not(MOBILITY_HEADER) + set_mark(mark.value(mark.LEFT_ALONE), mark.KEPT)
                rule = Rule(_ROUTING_HEADER + left, "the kernel takes it out")
                chains["prerouting"] = ("filter", PREROUTING, -310), (rule,)
        return chains

    def _signalling(self) -> tuple[Rule, ...]:
        """What the agent has had by now, and the kernel does not understand."""
        ours = load_destination_type() + compare(EQUAL, struct.pack("=I", LOCAL))
        end = ours + count("signalling_packets") + verdict(DROP)
        option = compare(EQUAL, bytes([_HOME_ADDRESS_OPTION]))
        return (
            Rule(protocol_is(MOBILITY_HEADER) + end, "the agent has it"),
            *(self._home_address_options() if self._kernel_headers else ()),
            Rule(_ROUTING_HEADER + end, "type 2 routing header"),
            *(Rule(load_extension(60, at, 1) + option + end, "Home Address option") for at in (6, 14, 22)),
        )

    @staticmethod
    def _fragments() -> tuple[Rule, ...]:
        """Each fragment has the header, and must keep it: what netfilter has put together, the kernel takes
        for malformed."""
        return Rule(_ROUTING_HEADER + untracked()), Rule(_FIRST_OPTION + untracked())

    def _home_address_options(self) -> tuple[Rule, ...]:
        """Those that a binding allows are for the kernel to take out; of the others, the agent hears."""
        data = b"".join(map(protocol_is_not, (ESP, AH)))
        option = _FIRST_OPTION + data
        pair = load(NETWORK, 8, 16) + load_extension(60, 8, 16, register=2)
        left = set_mark(mark.value(mark.LEFT_ALONE), mark.KEPT) + verdict(ACCEPT)
        ours = load_destination_type() + compare(EQUAL, struct.pack("=I", LOCAL))
        return (
            Rule(option + pair + found_in(ACCEPTED) + left, "of a binding"),
            Rule(option + ours + log(GROUP), "of none"),
        )

    def base_sets(self) -> list[tuple[str, tuple[int, ...], int | None, bool]]:
        key = (TYPE_ADDRESS, TYPE_ADDRESS) if self._mobile else (TYPE_ADDRESS,)
        sets = [(PORT_PROTOCOLS, (TYPE_PROTOCOL,), None, False), (PAIRS, key, TYPE_VERDICT, False)]
        if self._kernel_headers and not self._mobile:
            sets.append((ACCEPTED, (TYPE_ADDRESS, TYPE_ADDRESS), None, False))
        return sets

    def base(self) -> HomeRules:
        """What is there whatever the pairs."""
        ports = {(PORT_PROTOCOLS, (Element(bytes([number])),)) for number in WITH_PORTS}
        return HomeRules({}, {}, frozenset(ports))

    def pair(self, wanted: RouteOptimisation, numbers: Mapping[int, int]) -> HomeRules:
        """The rules of one pair; `numbers`: BID -> number of the mark."""
        chain = chain_of(wanted)
        counters: dict[str, tuple[IPv6Address, int | None]] = {}

        def counted(fid: int | None) -> bytes:
            name = f"{chain}.{'default' if fid is None else f'fid{fid}'}"
            counters[name] = wanted.home_address, fid
            return count(name)

        def towards(bid: int) -> bytes:
            return set_mark(mark.value(numbers[bid]), mark.KEPT) + verdict(ACCEPT)

        rules = [Rule(self._clamp())]
        for rule in wanted.rules:
            selector = rule.selector
            if selector is not None and self._mobile:
                selector = selector.mirrored()
            if rule.action is Action.FORWARD and rule.bids:
                action = counted(rule.fid) + towards(rule.bids[0])
            elif self._mobile:
                action = verdict(ACCEPT)
            else:
                action = counted(rule.fid) + verdict(DROP)
            rules += [Rule(match + action, f"fid {rule.fid}") for match in matches(selector)]
        rules.append(Rule(counted(None) + towards(wanted.default_bid), "default"))
        key = wanted.home_address.packed
        if self._mobile:
            key += wanted.correspondent.packed
        elements = {(PAIRS, (Element(key, chain),))}
        if self._kernel_headers and not self._mobile:
            accepted = {path.remote.packed + wanted.home_address.packed for path in wanted.paths}
            elements |= {(ACCEPTED, (Element(addresses),)) for addresses in accepted}
        return HomeRules({chain: tuple(rules)}, counters, frozenset(elements))

    def _clamp(self) -> bytes:
        """The other end is to leave room for the header."""
        return clamp_segments(self._mtu)
