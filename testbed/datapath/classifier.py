"""The nf_tables table `ip6 flowbind`: which path each packet takes. Class: `Classifier`.

Packets meet, in this order:

- `signalling` (prerouting): mobility messages to this node, and what carries a Home Address option or a type
  2 routing header, end here: the agent's packet socket has seen them, and the kernel without CONFIG_IPV6_MIP6
  would answer with ICMPv6 Parameter Problem;
- `tunnel` (prerouting): tunnel packets are accepted only with the (outer, inner) addresses of a registered
  path, whatever the number of paths in constant time, and counted and dropped otherwise;
- `home_<home address>` (prerouting and output, through a verdict map): its flow bindings in order of
  priority, each with a counter, then the default. What they decide is a mark, which policy rules read. Where
  there are many, a connection goes through them once (see `recent_flows`).

`output` serves packets of this node itself; `forward` and the first rule of each home chain clamp TCP's
maximum segment size; `postrouting` completes the outer header.
"""

import struct
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network

from testbed.datapath import mark
from testbed.datapath.many_rules import HomeRules, ManyRules
from testbed.datapath.match import PORT_PROTOCOLS, WITH_PORTS, matches
from testbed.datapath.nftables import (
    ACCEPT,
    DROP,
    EQUAL,
    FORWARD,
    GOTO,
    IN_INTERFACE,
    JUMP,
    LOCAL,
    MARK,
    MORE,
    NETWORK,
    NOT_EQUAL,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    RETURN,
    TRANSPORT,
    TYPE_ADDRESS,
    TYPE_MARK,
    TYPE_PROTOCOL,
    TYPE_VERDICT,
    UPPER_PROTOCOL,
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
    load_length,
    load_maximum_segment_size,
    load_meta,
    mark_is,
    masked,
    protocol_is,
    reassemble,
    set_mark,
    store,
    store_maximum_segment_size,
    translate,
    untracked,
    verdict,
    within,
)
from testbed.datapath.recent_flows import KEY, MANY_RULES, RECENT_FLOWS, SIZE, TIMEOUT_S
from testbed.datapath.regional_rules import EXTENSION_HEADERS, EXTENSIONS, regional_chains
from testbed.datapath.tunnel import HOP_LIMIT
from testbed.mobility.forwarding import Action, FlowRule, HomeBinding, Path, Side

MOBILITY_HEADER, ICMPV6, IPV6, TCP, ROUTING_HEADER = 135, 58, 41, 6, 43
_FRAGMENT, _DESTINATION_OPTIONS = 44, 60
#: Router Solicitation to Redirect (RFC 4861).
_NEIGHBOUR_DISCOVERY = bytes([133]), bytes([137])
_REDIRECT = bytes([137])
_HEADERS_OF_SIGNALLING = 0, 43, 60, MOBILITY_HEADER
_HOME_ADDRESS_OPTION = 0xC9
_TCP_HEADERS = 60

HOMES, HOME_PREFIXES = "homes", "home_prefixes"
TUNNELS, TUNNEL_PREFIXES, TUNNEL_ENDS = "tunnels", "tunnel_prefixes", "tunnel_ends"
SOURCES = "outer_sources"
#: At a mobile node: its regional addresses, and the sources of tunnels within tunnels (RFC 5380).
REGIONALS, NESTED_SOURCES = "regional_addresses", "nested_sources"
#: At an anchor: home addresses on the home link for which the mobile node itself does not answer.
KEPT_HERE = "kept_here"
REJECTED, SIGNALLING, UNROUTED = "rejected_tunnel_packets", "signalling_packets", "dropped_outer_packets"


def chain_of(home_address: IPv6Address) -> str:
    """Name of the chain of a home address, in what nft takes for a name."""
    return "home_" + str(home_address).replace(":", "_")


def counter_of(home_address: IPv6Address, fid: int | None) -> str:
    """Name of the counter of a flow binding, or of the default."""
    return f"{chain_of(home_address)}." + ("default" if fid is None else f"fid{fid}")


def counters_of(
    home_address: IPv6Address, rules: Iterable[FlowRule]
) -> dict[str, tuple[IPv6Address, int | None]]:
    """Names of the counters of a home address, with what they count."""
    fids = (None, *(rule.fid for rule in rules))
    return {counter_of(home_address, fid): (home_address, fid) for fid in fids}


#: Mobile nodes tend to want the same.
_matches = lru_cache(maxsize=1024)(matches)


def clamp_segments(mtu: int) -> bytes:
    """Expressions that have TCP leave room for a header: segments fit packets of `mtu` octets."""
    size = struct.pack(">H", mtu - _TCP_HEADERS)
    return (
        protocol_is(TCP)
        + load(TRANSPORT, 13, 1)
        + masked(b"\6")
        + compare(EQUAL, b"\2")
        + load_maximum_segment_size()
        + compare(MORE, size)
        + immediate(size)
        + store_maximum_segment_size()
    )


EMPTY = HomeRules({}, {}, frozenset())

#: Sets of which each element belongs to one home address, at an anchor; tunnels end where those of others do.
OWN_SETS = frozenset({HOMES, HOME_PREFIXES, TUNNELS, TUNNEL_PREFIXES, KEPT_HERE})


class Classifier:
    """Translates bindings into rules. Nothing in here talks to the kernel.

    `detour`: indices of the detour device and of its exit. `by_route`: see `Tunnel`. `tunnel_device`: index
    of the device that decapsulated packets come from, 0 if there is none. `mtu`: of the tunnels.
    """

    def __init__(
        self,
        side: Side,
        table: str,
        detour: tuple[int, int],
        by_route: bool,
        tunnel_device: int,
        mtu: int,
        reassembly: bool = True,
    ) -> None:
        self.table = Table(table)
        self._anchor = side is Side.ANCHOR
        self._detour_exit = struct.pack("=I", detour[1])
        self._by_route = by_route
        self._tunnel_device = struct.pack("=I", tunnel_device) if tunnel_device else None
        self._mtu = mtu
        self._reassembly = reassembly
        self._home_offset = 24 if self._anchor else 8
        self._many = ManyRules()

    # -- what is always there

    def base_chains(self) -> dict[str, tuple[tuple[str, int, int] | None, tuple[Rule, ...]]]:
        """Name -> (type, hook, priority) or None, and rules; every chain after those that it jumps to."""
        chains: dict[str, tuple[tuple[str, int, int] | None, tuple[Rule, ...]]] = {
            "signalling": (None, self._signalling()),
            "decapsulate": (None, self._decapsulate()),
            "tunnel": (None, self._tunnel()),
            "fit": (None, self._fit()),
            "detour": (None, self._detour()),
            "prerouting": (("filter", PREROUTING, -300), self._prerouting()),
            "output": (("route", OUTPUT, -150), self._output()),
            "forward": (("filter", FORWARD, -150), self._forward()),
        }
        if self._by_route or not self._anchor:
            chains["postrouting"] = ("filter", POSTROUTING, 300), self._postrouting()
        if self._reassembly:
            if self._anchor:
                chains["fragments"] = ("filter", PREROUTING, -450), self._fragments()
            rule = Rule(protocol_is(TCP) + reassemble(), "never reached; it is enough that it is there")
            chains["reassembly"] = None, (rule,)
        return chains

    def base_sets(self) -> list[tuple]:
        """Name, types of key, type of data, whether keys are intervals; of those that rules fill, how many
        elements at most for how many seconds."""
        sets: list[tuple] = [
            (PORT_PROTOCOLS, (TYPE_PROTOCOL,), None, False),
            ("headers_of_signalling", (TYPE_PROTOCOL,), None, False),
            (HOMES, (TYPE_ADDRESS,), TYPE_VERDICT, False),
            (HOME_PREFIXES, (TYPE_ADDRESS,), TYPE_VERDICT, True),
            (TUNNELS, (TYPE_ADDRESS, TYPE_ADDRESS), None, False),
            (TUNNEL_PREFIXES, (TYPE_ADDRESS,), TYPE_VERDICT, True),
            (TUNNEL_ENDS, (TYPE_ADDRESS,), None, False),
            (RECENT_FLOWS, KEY, TYPE_MARK, False, (SIZE, TIMEOUT_S)),
        ]
        if not self._anchor:
            sets.append((SOURCES, (TYPE_MARK,), TYPE_ADDRESS, False))
            sets.append((NESTED_SOURCES, (TYPE_MARK,), TYPE_ADDRESS, False))
        if not self._anchor:
            sets.append((REGIONALS, (TYPE_ADDRESS,), None, False))
        else:
            sets.append((KEPT_HERE, (TYPE_ADDRESS,), None, False))
            sets.append((EXTENSION_HEADERS, (TYPE_PROTOCOL,), None, False))
        return sets

    def base_elements(self) -> frozenset[tuple[str, tuple[Element, ...]]]:
        ports = {(PORT_PROTOCOLS, (Element(bytes([number])),)) for number in WITH_PORTS}
        headers = {
            ("headers_of_signalling", (Element(bytes([number])),)) for number in _HEADERS_OF_SIGNALLING
        }
        if not self._anchor:
            return frozenset(ports | headers)
        extensions = {(EXTENSION_HEADERS, (Element(bytes([number])),)) for number in EXTENSIONS}
        return frozenset(ports | headers | extensions)

    BASE_COUNTERS = (REJECTED, SIGNALLING, UNROUTED)

    def _fragments(self) -> tuple[Rule, ...]:
        """Fragments that pass between others by an optimised route stay as they are: the kernel would put the
        Fragment header before the Home Address option (RFC 6275 §6.3)."""
        routed = load(NETWORK, 6, 1) + compare(EQUAL, bytes([ROUTING_HEADER]))
        options = load(NETWORK, 40, 1) + compare(EQUAL, bytes([_DESTINATION_OPTIONS]))
        fragment = load(NETWORK, 64, 1) + compare(EQUAL, bytes([_FRAGMENT]))
        return (Rule(routed + options + fragment + untracked() + verdict(ACCEPT)),)

    def _signalling(self) -> tuple[Rule, ...]:
        ours = load_destination_type() + compare(EQUAL, struct.pack("=I", LOCAL))
        end = ours + count(SIGNALLING) + verdict(DROP)
        option = bytes([_HOME_ADDRESS_OPTION])
        return (
            Rule(mark_is(mark.value(mark.LEFT_ALONE), mark.NUMBER_MASK) + verdict(RETURN), "the kernel's"),
            Rule(protocol_is(MOBILITY_HEADER) + end, "the agent has it"),
            Rule(load_extension(43, 2, 1) + compare(EQUAL, b"\2") + end, "type 2 routing header"),
            # the option is aligned to 8n+6 (RFC 6275 §6.3)
            *(
                Rule(load_extension(60, offset, 1) + compare(EQUAL, option) + end, "Home Address option")
                for offset in (6, 14, 22)
            ),
        )

    def _tunnel(self) -> tuple[Rule, ...]:
        inner = 8 if self._anchor else 24  # whose addresses are the home addresses: source or destination
        addresses = load(NETWORK, 8, 16) + load(TRANSPORT, inner, 16, register=2)
        regional = load(TRANSPORT, inner, 16) + found_in(REGIONALS) + load(TRANSPORT, 6, 1)
        regional += compare(EQUAL, bytes([ROUTING_HEADER])) + count(SIGNALLING) + verdict(DROP)
        taken = mark_is(mark.value(mark.TAKEN), mark.NUMBER_MASK)
        spoofed = load(NETWORK, 24, 16) + found_in(REGIONALS) + count(REJECTED) + verdict(DROP)
        return (
            *(() if self._anchor else (Rule(regional, "to a regional address: the agent has it"),)),
            Rule(addresses + found_in(TUNNELS) + verdict(GOTO, "decapsulate")),
            Rule(load(TRANSPORT, inner, 16) + dispatch(TUNNEL_PREFIXES)),
            *(() if self._anchor else (Rule(taken + verdict(GOTO, "decapsulate"), "by an anchor point"),)),
            Rule(load(NETWORK, 24, 16) + found_in(TUNNEL_ENDS) + count(REJECTED) + verdict(DROP), "spoofed"),
            *(() if self._anchor or self._by_route else (Rule(spoofed, "spoofed inside"),)),
        )

    def _decapsulate(self) -> tuple[Rule, ...]:
        if not self._by_route:
            return (Rule(verdict(ACCEPT)),)
        other = self._marked(mark.DECAPSULATE_OTHER) + verdict(ACCEPT)
        nested = load(TRANSPORT, 6, 1) + compare(EQUAL, bytes([IPV6]))
        known = load(TRANSPORT, 8, 16) + load(TRANSPORT, 64, 16, register=2) + found_in(TUNNELS)
        to_us = load(TRANSPORT, 24, 16) + found_in(REGIONALS)
        inside = (
            Rule(nested + known + other, "tunnel within the tunnel, to a regional address"),
            Rule(nested + to_us + count(REJECTED) + verdict(DROP), "spoofed inside"),
        )
        return (
            *(() if self._anchor else inside),
            Rule(load(TRANSPORT, 6, 1) + compare(EQUAL, bytes([IPV6])) + other, "tunnel within the tunnel"),
            Rule(load(NETWORK, 6, 1) + compare(NOT_EQUAL, bytes([IPV6])) + other, "extension headers"),
            Rule(self._marked(mark.DECAPSULATE) + verdict(ACCEPT)),
        )

    def _fit(self) -> tuple[Rule, ...]:
        """Packets that go into a tunnel: large ones (RFC 2473 §7.1)."""
        rules = [Rule(self._clamp())]
        if self._by_route:
            rules.append(
                Rule(
                    load_length()
                    + compare(MORE, struct.pack(">I", self._mtu))
                    + load_meta(UPPER_PROTOCOL)
                    + compare(NOT_EQUAL, bytes([TCP]))
                    + load_meta(IN_INTERFACE)
                    + compare(NOT_EQUAL, bytes(4))
                    + compare(NOT_EQUAL, self._detour_exit)
                    + self._marked(mark.DETOUR)
                    + verdict(ACCEPT),
                    "the detour answers Packet Too Big",
                )
            )
        return tuple(rules)

    def _clamp(self) -> bytes:
        return clamp_segments(self._mtu)

    def _neighbour_discovery(self) -> bytes:
        return protocol_is(ICMPV6) + load(TRANSPORT, 0, 1) + within(*_NEIGHBOUR_DISCOVERY)

    def _homes(self, *maps: str) -> list[Rule]:
        """Look for the home address; what it has marked for a tunnel is made to fit it."""
        first = mark.value(mark.FIRST_SLOT)
        of_slot = load_meta(MARK) + masked(struct.pack("=I", mark.NUMBER_MASK & -first))
        tunnelled = Rule(of_slot + compare(NOT_EQUAL, bytes(4)) + verdict(GOTO, "fit"))
        rules = []
        for name in maps:
            rules += [Rule(load(NETWORK, self._home_offset, 16) + dispatch(name)), tunnelled]
        return rules

    def _prerouting(self) -> tuple[Rule, ...]:
        here = load_meta(IN_INTERFACE)
        signalling = load(NETWORK, 6, 1) + found_in("headers_of_signalling")
        signalling += here + compare(NOT_EQUAL, self._detour_exit)
        if self._tunnel_device is not None:  # what came out of a tunnel has not been seen by the agent
            signalling += compare(NOT_EQUAL, self._tunnel_device)
        # also what our own rules would take for a packet to a home address (see `exemption`)
        left_alone = mark_is(mark.value(mark.LEFT_ALONE), mark.NUMBER_MASK) + verdict(ACCEPT)
        return (
            *((Rule(left_alone, "for IPsec"),) if self._anchor else ()),
            Rule(here + compare(EQUAL, self._detour_exit) + verdict(JUMP, "detour")),
            Rule(signalling + verdict(JUMP, "signalling")),
            Rule(protocol_is(IPV6) + verdict(JUMP, "tunnel")),
            Rule(self._neighbour_discovery() + verdict(ACCEPT)),
            *(self._homes(HOMES, HOME_PREFIXES) if self._anchor else self._homes(HOME_PREFIXES)),
        )

    def _detour(self) -> tuple[Rule, ...]:
        """What comes out of the detour device."""
        source = load(NETWORK, 8, 16)
        return (
            Rule(mark_is(mark.value(mark.DISCARD), mark.NUMBER_MASK) + verdict(DROP)),
            Rule(
                source + compare(EQUAL, mark.PLACEHOLDER.packed) + count(UNROUTED) + verdict(DROP),
                "outer packet without a way out",
            ),
            Rule(set_mark(0, mark.KEPT)),
            Rule(self._neighbour_discovery() + verdict(DROP)),
            # at a mobile node: its own packets must not get out without a tunnel
            *(() if self._anchor else (Rule(source + dispatch(HOMES)),)),
        )

    def _output(self) -> tuple[Rule, ...]:
        marked = load_meta(MARK) + masked(struct.pack("=I", mark.COPY)) + compare(NOT_EQUAL, bytes(4))
        copy = Rule(
            marked + set_mark(0, mark.KEPT | mark.NUMBER_MASK) + verdict(ACCEPT), "a copy: by its mark"
        )
        if self._anchor:  # an anchor's own packets reach prerouting by the detour
            redirect = protocol_is(ICMPV6) + load(TRANSPORT, 0, 1) + compare(EQUAL, _REDIRECT)
            redirect += load(TRANSPORT, 24, 16) + found_in(KEPT_HERE) + verdict(DROP)
            return (copy, Rule(redirect, "its neighbours go on to send by this node"))
        # a raw socket's packet was routed before its source was known
        care_of = Rule(
            load(NETWORK, 8, 16) + found_in(TUNNEL_ENDS) + self._marked(mark.CARE_OF) + verdict(ACCEPT),
            "leaves by the interface of its source",
        )
        link_local = load(NETWORK, 24, 2) + masked(b"\xff\xc0") + compare(EQUAL, b"\xfe\x80")
        left_alone = mark_is(mark.value(mark.LEFT_ALONE), mark.NUMBER_MASK) + verdict(ACCEPT)
        return (
            copy,
            Rule(left_alone, "signalling, for IPsec"),
            Rule(self._neighbour_discovery() + verdict(ACCEPT)),
            Rule(link_local + verdict(ACCEPT)),
            Rule(load(NETWORK, 24, 1) + compare(EQUAL, b"\xff") + verdict(ACCEPT), "multicast"),
            care_of,
            *self._homes(HOMES, HOME_PREFIXES),
        )

    def _forward(self) -> tuple[Rule, ...]:
        if self._by_route:
            decapsulated = mark_is(mark.value(mark.DECAPSULATE), mark.NUMBER_MASK)
        elif self._tunnel_device is not None:
            decapsulated = load_meta(IN_INTERFACE) + compare(EQUAL, self._tunnel_device)
        else:
            return ()
        return (Rule(decapsulated + self._clamp()),)

    def _postrouting(self) -> tuple[Rule, ...]:
        hop_limit = immediate(bytes([HOP_LIMIT])) + store(NETWORK, 7, 1)
        tunnel_packet = load(NETWORK, 6, 1) + compare(EQUAL, bytes([IPV6])) + load(NETWORK, 8, 16)
        if self._anchor:
            marked = (
                load_meta(MARK) + masked(struct.pack("=I", mark.NUMBER_MASK)) + compare(NOT_EQUAL, bytes(4))
            )
            return (Rule(tunnel_packet + found_in(TUNNEL_ENDS) + marked + hop_limit),)
        placeholder = tunnel_packet + compare(EQUAL, mark.PLACEHOLDER.packed)
        unrouted = Rule(placeholder + count(UNROUTED) + verdict(DROP))
        if not self._by_route:
            inner = load_meta(MARK) + masked(struct.pack("=I", mark.NUMBER_MASK)) + translate(NESTED_SOURCES)
            inner += store(NETWORK, 8, 16, address=True) + verdict(ACCEPT)
            return Rule(placeholder + inner, "source of the tunnel within: the regional address"), unrouted
        source = (
            load_meta(MARK)
            + masked(struct.pack("=I", mark.NUMBER_MASK))
            + translate(SOURCES)
            + store(NETWORK, 8, 16, address=True)
        )
        nested = load(TRANSPORT, 8, 16) + compare(EQUAL, mark.PLACEHOLDER.packed)
        nested += load_meta(MARK) + masked(struct.pack("=I", mark.NUMBER_MASK)) + translate(NESTED_SOURCES)
        nested += store(TRANSPORT, 8, 16)
        return (
            Rule(placeholder + nested, "source of the tunnel within: the regional address"),
            Rule(placeholder + hop_limit),
            Rule(placeholder + source + verdict(ACCEPT), "outer source: the path's care-of address"),
            unrouted,
        )

    # -- what each home address adds

    def home(
        self,
        binding: HomeBinding,
        slots: dict[int, int],
        other: HomeBinding | None = None,
        other_slots: dict[int, int] | None = None,
    ) -> HomeRules:
        """What one home address has; `slots`: BID -> slot. Without rules that `other`, the binding before or
        after it, has just so."""
        elements = self._elements(binding, slots)
        known: tuple[FlowRule, ...] = ()
        if other is not None and self._act_alike(binding, slots, other, other_slots):
            if binding.rules == other.rules:
                return HomeRules({}, {}, frozenset(elements))
            known = other.rules if self._are_many(other) else ()
        found = self._rules(binding, slots, known)
        return HomeRules(found.chains, found.counters, found.elements | elements, found.sets)

    def forget(self, home_address: IPv6Address) -> None:
        """It has nothing any more."""
        self._many.forget(home_address)

    def _are_many(self, binding: HomeBinding) -> bool:
        return len(binding.rules) >= MANY_RULES and not (binding.regional and self._anchor)

    @staticmethod
    def _act_alike(
        one: HomeBinding, slots: dict[int, int], other: HomeBinding, other_slots: dict[int, int]
    ) -> bool:
        """Whether the same rules do the same in both: care-of addresses may differ."""
        if slots != other_slots or one.default_bid != other.default_bid or one.regional != other.regional:
            return False
        if one.prefixes or other.prefixes:
            return False
        if any(len(rule.bids) > 1 for rule in one.rules):  # copies: one for each tunnel
            return one.paths == other.paths
        ways, other_ways = ([(p.bid, p.on_link is None) for p in b.paths] for b in (one, other))
        return ways == other_ways

    def _rules(
        self, binding: HomeBinding, slots: dict[int, int], known: tuple[FlowRule, ...]
    ) -> HomeRules:
        """Chains with their counters, and the elements that lead there; without those of `known` rules that
        stay, where there are many."""
        home_address = binding.home_address
        chain = chain_of(home_address)
        paths = {path.bid: path for path in binding.paths}
        default = count(counter_of(home_address, None))
        path = paths.get(binding.default_bid)
        default += self._dropped() if path is None else self._towards(path, slots)

        def translation(rule: FlowRule) -> tuple[list[bytes], bytes]:
            """The alternatives that match, and the action."""
            action = self._counted(home_address, rule, paths, slots)
            selector = rule.selector
            if selector is not None and not self._anchor:
                selector = selector.mirrored()
            return _matches(selector), action

        rules, about = [], binding.rules
        beside = EMPTY
        if binding.regional and self._anchor and binding.rules:
            actions = [self._counted(home_address, rule, paths, slots) for rule in binding.rules]
            its = zip(binding.rules, actions, strict=True)
            beside = HomeRules(regional_chains(chain, its, default), {}, frozenset())
        elif self._are_many(binding):
            remembered, beside, about = self._many.translate(binding, known, chain, default, translation)
            rules = [self._signalling_first(default), *remembered]
        else:
            self._many.forget(home_address)
            for rule in binding.rules:
                found, action = translation(rule)
                rules += [Rule(match + action, f"fid {rule.fid}") for match in found]
            if rules:
                rules.insert(0, self._signalling_first(default))
            rules.append(Rule(default, "default"))
        chains = {chain: tuple(rules), **beside.chains}
        elements = set(beside.elements)
        elements.add((HOMES, (Element(home_address.packed, chain),)))
        elements |= {(HOME_PREFIXES, _interval(prefix, chain)) for prefix in binding.prefixes}
        if binding.paths and binding.prefixes:
            inside = f"{chain}.tunnels"
            remotes = sorted({path.remote for path in binding.paths if path.on_link is None})
            chains[inside] = tuple(
                Rule(load(NETWORK, 8, 16) + compare(EQUAL, remote.packed) + verdict(GOTO, "decapsulate"))
                for remote in remotes
            )
            elements |= {(TUNNEL_PREFIXES, _interval(prefix, inside)) for prefix in binding.prefixes}
        return HomeRules(chains, counters_of(home_address, about), frozenset(elements), beside.sets)

    @staticmethod
    def _signalling_first(default: bytes) -> Rule:
        return Rule(protocol_is(MOBILITY_HEADER) + default, "signalling follows no flow binding")

    def _elements(
        self, binding: HomeBinding, slots: dict[int, int]
    ) -> set[tuple[str, tuple[Element, ...]]]:
        """What depends on the ends of the tunnels."""
        home_address = binding.home_address
        elements: set[tuple[str, tuple[Element, ...]]] = set()
        for path in binding.paths:
            if path.on_link is not None:
                if self._anchor and not path.on_link.neighbour_discovery:
                    elements.add((KEPT_HERE, (Element(home_address.packed),)))
                continue
            elements.add((TUNNELS, (Element(path.remote.packed + home_address.packed),)))
            if path.via is None:
                elements.add((TUNNEL_ENDS, (Element(path.local.packed),)))
            elements |= self.sources(mark.value(mark.slot_number(slots[path.bid])), path)
        if binding.regional and not self._anchor:
            elements.add((REGIONALS, (Element(home_address.packed),)))
        return elements

    def sources(self, number: int, path: Path) -> set[tuple[str, tuple[Element, ...]]]:
        """At a mobile node: outer source of the packets with a mark (0: without one), and source of the
        tunnel inside of theirs."""
        if self._anchor or path.on_link is not None:
            return set()
        key, outer = struct.pack("=I", number), path.via or path
        elements = {(SOURCES, (Element(key, outer.local.packed),))} if self._by_route else set()
        if path.via is not None:
            elements.add((NESTED_SOURCES, (Element(key, path.local.packed),)))
        return elements

    def _counted(
        self, home_address: IPv6Address, rule: FlowRule, paths: dict, slots: dict[int, int]
    ) -> bytes:
        return count(counter_of(home_address, rule.fid)) + self._action(rule, paths, slots)

    def _action(self, rule: FlowRule, paths: dict, slots: dict[int, int]) -> bytes:
        if rule.action is Action.DISCARD or not rule.bids:
            return self._dropped()
        ways: dict[tuple, Path] = {}
        for bid in rule.bids:  # two BIDs may be one tunnel: one copy is enough
            path = paths[bid]
            ways.setdefault((path.local, path.remote, path.interface), path)
        first, *others = ways.values()
        copies = b"".join(
            self._marked(mark.slot_number(slots[path.bid]), copy=True)
            + immediate(mark.COPY_GATEWAY.packed)
            + duplicate()
            for path in others
        )
        return copies + self._towards(first, slots)

    def _towards(self, path: Path, slots: dict[int, int]) -> bytes:
        """What goes into a tunnel has to fit it, what goes to the home link not."""
        end = RETURN if path.on_link is None else ACCEPT
        return self._marked(mark.slot_number(slots[path.bid])) + verdict(end)

    def _dropped(self) -> bytes:
        if self._anchor:
            return verdict(DROP)
        # a drop in output would be an error for the application that sent it
        return self._marked(mark.DISCARD) + verdict(ACCEPT)

    def _marked(self, number: int, copy: bool = False) -> bytes:
        return set_mark(mark.value(number) | (mark.COPY if copy else 0), mark.KEPT)


def _interval(prefix: IPv6Network, chain: str) -> tuple[Element, ...]:
    end = int(prefix.broadcast_address) + 1
    start = Element(prefix.network_address.packed, chain)
    return (start,) if end >> 128 else (start, Element(end.to_bytes(16, "big"), end=True))


def flat(elements: Iterable[tuple[str, tuple[Element, ...]]]) -> dict[str, list[Element]]:
    """Set name -> its elements."""
    sets: dict[str, list[Element]] = {}
    for name, group in elements:
        sets.setdefault(name, []).extend(group)
    return sets
