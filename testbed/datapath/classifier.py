"""The nf_tables table `ip6 flowbind`: which path each packet takes. Class: `Classifier`.

Packets meet, in this order:

- `prerouting`: what is just data goes straight to the home addresses;
- `signalling` (prerouting): mobility messages to this node, and what carries a Home Address option or a type
  2 routing header, end here: the agent's packet socket has seen them, and the kernel without CONFIG_IPV6_MIP6
  would answer with ICMPv6 Parameter Problem;
- `tunnel` (prerouting): tunnel packets are accepted only with the (outer, inner) addresses of a registered
  path, whatever the number of paths in constant time, and counted and dropped otherwise;
- `home_<home address>` (prerouting and output, through a verdict map): its flow bindings in order of
  priority, each with a counter, then the default. What they decide is a mark, which policy rules read; a
  mobile node's own packets that have the default path's route already need none (see `mark.entrance`), and
  are not routed twice. Where there are many, a connection goes through them once (see `recent_flows`).

`output` serves packets of this node itself; `fit` is where what goes into a tunnel is made to fit it;
`postrouting` completes the outer header and, as `forward` does where tunnels are a device, clamps the maximum
segment size of TCP connections that come out of a tunnel.

Each expression takes its time for every packet, and each chain of a hook the more, as the kernel looks for
the upper-layer header anew: what is cheap and seldom true stands first.
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
    AT_LEAST,
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
    load_next_hop,
    mark_is,
    masked,
    protocol_is,
    reassemble,
    set_mark,
    store_maximum_segment_size,
    untracked,
    verdict,
    within,
)
from testbed.datapath.recent_flows import KEY, MANY_RULES, RECENT_FLOWS, SIZE, TIMEOUT_S
from testbed.datapath.regional_rules import EXTENSION_HEADERS, EXTENSIONS, regional_chains
from testbed.datapath.tunnel_packets import (
    IPV6,
    NESTED_PREFIXES,
    NESTED_SOURCES,
    REGIONALS,
    REJECTED,
    ROUTING_HEADER,
    SIGNALLING,
    SOURCES,
    TUNNEL_ENDS,
    TUNNEL_PREFIXES,
    TUNNELS,
    UNROUTED,
    TunnelPackets,
    marked,
)
from testbed.mobility.forwarding import Action, FlowRule, HomeBinding, Path, Side

MOBILITY_HEADER, ICMPV6, TCP = 135, 58, 6
_FRAGMENT, _DESTINATION_OPTIONS = 44, 60
#: Router Solicitation to Redirect (RFC 4861).
_NEIGHBOUR_DISCOVERY = bytes([133]), bytes([137])
_REDIRECT = bytes([137])
_HEADERS_OF_SIGNALLING = 0, 43, 60, MOBILITY_HEADER
#: Set of the next headers of all packets that may be more than data for or from a home address: extension
#: headers, Neighbour Discovery, signalling. TCP and UDP go past what is asked of those.
_NOT_DATA = "not_data"
_HEADERS_NOT_OF_DATA = 0, 43, 44, 51, ICMPV6, 60, MOBILITY_HEADER
_HOME_ADDRESS_OPTION = 0xC9
_TCP_HEADERS = 60

#: What IPsec and the kernel's own Mobile IPv6 do is none of our business (see `exemption`).
_LEFT_ALONE = Rule(mark_is(mark.value(mark.LEFT_ALONE), mark.NUMBER_MASK) + verdict(ACCEPT), "for IPsec")

HOMES, HOME_PREFIXES = "homes", "home_prefixes"
#: At an anchor: home addresses on the home link for which the mobile node itself does not answer.
KEPT_HERE = "kept_here"


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


def clamp_segments(mtu: int, where: bytes = b"") -> bytes:
    """Expressions that have TCP leave room for a header, if `where` matches: segments fit packets of `mtu`
    octets."""
    size = struct.pack(">H", mtu - _TCP_HEADERS)
    return (
        protocol_is(TCP)
        + load(TRANSPORT, 13, 1)
        + masked(b"\6")
        + compare(EQUAL, b"\2")
        + where
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
        self._tunnel_packets = TunnelPackets(self._anchor, by_route)

    # -- what is always there

    def base_chains(self) -> dict[str, tuple[tuple[str, int, int] | None, tuple[Rule, ...]]]:
        """Name -> (type, hook, priority) or None, and rules; every chain after those that it jumps to."""
        chains: dict[str, tuple[tuple[str, int, int] | None, tuple[Rule, ...]]] = {
            "signalling": (None, self._signalling()),
            **{name: (None, rules) for name, rules in self._tunnel_packets.decapsulation().items()},
            "tunnel": (None, self._tunnel_packets.arrival()),
            "fit": (None, self._fit()),
            "detour": (None, self._detour()),
            "not_data": (None, self._not_data()),
            "prerouting": (("filter", PREROUTING, -300), self._prerouting()),
        }
        if not self._anchor:
            chains |= {"marked": (None, self._with_number()), "scoped": (None, self._scoped())}
        chains["output"] = ("route", OUTPUT, -150), self._output()
        if self._tunnel_device is not None:
            decapsulated = load_meta(IN_INTERFACE) + compare(EQUAL, self._tunnel_device)
            chains["forward"] = ("filter", FORWARD, -150), (Rule(decapsulated + self._clamp()),)
        if self._by_route or not self._anchor:
            chains |= self._postrouting()
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
            (_NOT_DATA, (TYPE_PROTOCOL,), None, False),
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
            sets.append((REGIONALS, (TYPE_ADDRESS,), None, False))
            sets.append((NESTED_PREFIXES, (TYPE_ADDRESS,), TYPE_VERDICT, True))
        else:
            sets.append((KEPT_HERE, (TYPE_ADDRESS,), None, False))
            sets.append((EXTENSION_HEADERS, (TYPE_PROTOCOL,), None, False))
        return sets

    def base_elements(self) -> frozenset[tuple[str, tuple[Element, ...]]]:
        ports = {(PORT_PROTOCOLS, (Element(bytes([number])),)) for number in WITH_PORTS}
        headers = {
            ("headers_of_signalling", (Element(bytes([number])),)) for number in _HEADERS_OF_SIGNALLING
        }
        headers |= {(_NOT_DATA, (Element(bytes([number])),)) for number in _HEADERS_NOT_OF_DATA}
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

    def _fit(self) -> tuple[Rule, ...]:
        """Packets that go into a tunnel: large ones (RFC 2473 §7.1)."""
        rules = [Rule(self._clamp())]
        if self._by_route:
            large = (
                load_meta(UPPER_PROTOCOL)
                + compare(NOT_EQUAL, bytes([TCP]))
                + load_length()
                + compare(MORE, struct.pack(">I", self._mtu))
                + load_meta(IN_INTERFACE)
                + compare(NOT_EQUAL, bytes(4))
                + compare(NOT_EQUAL, self._detour_exit)
                + marked(mark.DETOUR)
                + verdict(ACCEPT)
            )
            rules.insert(0, Rule(large, "the detour answers Packet Too Big"))
        return tuple(rules)

    def _clamp(self) -> bytes:
        return clamp_segments(self._mtu)

    def _neighbour_discovery(self) -> bytes:
        return protocol_is(ICMPV6) + load(TRANSPORT, 0, 1) + within(*_NEIGHBOUR_DISCOVERY)

    def _homes(self, name: str) -> Rule:
        """Look for the home address, whose chain says where the packet goes."""
        return Rule(load(NETWORK, self._home_offset, 16) + dispatch(name))

    def _prerouting(self) -> tuple[Rule, ...]:
        detour = load_meta(IN_INTERFACE) + compare(EQUAL, self._detour_exit) + verdict(JUMP, "detour")
        return (
            Rule(detour),
            Rule(load(NETWORK, 6, 1) + compare(EQUAL, bytes([IPV6])) + verdict(JUMP, "tunnel")),
            Rule(load(NETWORK, 6, 1) + found_in(_NOT_DATA) + verdict(JUMP, _NOT_DATA)),
            *((self._homes(HOMES),) if self._anchor else ()),
            self._homes(HOME_PREFIXES),
        )

    def _not_data(self) -> tuple[Rule, ...]:
        signalling = load(NETWORK, 6, 1) + found_in("headers_of_signalling")
        signalling += load_meta(IN_INTERFACE) + compare(NOT_EQUAL, self._detour_exit)
        if self._tunnel_device is not None:  # what came out of a tunnel has not been seen by the agent
            signalling += compare(NOT_EQUAL, self._tunnel_device)
        return (
            # also what our own rules would take for a packet to a home address (see `exemption`)
            *((_LEFT_ALONE,) if self._anchor else ()),
            Rule(signalling + verdict(JUMP, "signalling")),
            Rule(protocol_is(IPV6) + verdict(GOTO, "tunnel"), "behind extension headers"),
            Rule(self._neighbour_discovery() + verdict(ACCEPT)),
        )

    def _detour(self) -> tuple[Rule, ...]:
        """What comes out of the detour device."""
        source = load(NETWORK, 8, 16)
        return (
            *((_LEFT_ALONE,) if self._anchor else ()),
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
        """Packets of this node itself."""
        if self._anchor:  # they reach prerouting by the detour
            redirect = protocol_is(ICMPV6) + load(TRANSPORT, 0, 1) + compare(EQUAL, _REDIRECT)
            redirect += load(TRANSPORT, 24, 16) + found_in(KEPT_HERE) + verdict(DROP)
            return (self._copies(), Rule(redirect, "its neighbours go on to send by this node"))
        with_mark = load_meta(MARK) + masked(struct.pack("=I", mark.COPY | mark.NUMBER_MASK))
        # a raw socket's packet was routed before its source was known
        care_of = load(NETWORK, 8, 16) + found_in(TUNNEL_ENDS) + marked(mark.CARE_OF) + verdict(ACCEPT)
        return (
            Rule(with_mark + compare(NOT_EQUAL, bytes(4)) + verdict(JUMP, "marked")),
            Rule(self._neighbour_discovery() + verdict(ACCEPT)),
            Rule(load(NETWORK, 24, 1) + compare(AT_LEAST, b"\xfe") + verdict(JUMP, "scoped")),
            self._homes(HOMES),
            Rule(care_of, "leaves by the interface of its source"),
            self._homes(HOME_PREFIXES),
        )

    @staticmethod
    def _copies() -> Rule:
        copy = load_meta(MARK) + masked(struct.pack("=I", mark.COPY)) + compare(NOT_EQUAL, bytes(4))
        return Rule(copy + set_mark(0, mark.KEPT | mark.NUMBER_MASK) + verdict(ACCEPT), "a copy: by its mark")

    def _with_number(self) -> tuple[Rule, ...]:
        return self._copies(), _LEFT_ALONE

    @staticmethod
    def _scoped() -> tuple[Rule, ...]:
        """To destinations that no tunnel leads to."""
        link_local = load(NETWORK, 24, 2) + masked(b"\xff\xc0") + compare(EQUAL, b"\xfe\x80")
        multicast = load(NETWORK, 24, 1) + compare(EQUAL, b"\xff")
        return Rule(link_local + verdict(ACCEPT)), Rule(multicast + verdict(ACCEPT), "multicast")

    def _postrouting(self) -> dict[str, tuple[tuple[str, int, int] | None, tuple[Rule, ...]]]:
        """What leaves: tunnel packets, and what came in one and goes on."""
        chains = self._tunnel_packets.departure()
        if self._by_route:
            decapsulated = mark_is(mark.value(mark.DECAPSULATE), mark.NUMBER_MASK)
            chains["postrouting"] += (Rule(clamp_segments(self._mtu, decapsulated)),)
        hook = "filter", POSTROUTING, 300
        return {name: (hook if name == "postrouting" else None, rules) for name, rules in chains.items()}

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
        routed = load_next_hop() + compare(EQUAL, mark.entrance(home_address).packed)
        routed += mark_is(0, mark.NUMBER_MASK) + default + verdict(GOTO, "fit")
        default += self._dropped() if path is None else self._towards(path, slots)
        of_tunnel = not self._anchor and path is not None and path.on_link is None
        defaults = (routed, default) if of_tunnel else (default,)

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
            remembered, beside, about = self._many.translate(binding, known, chain, defaults, translation)
            rules = [self._signalling_first(default), *remembered]
        else:
            self._many.forget(home_address)
            for rule in binding.rules:
                found, action = translation(rule)
                rules += [Rule(match + action, f"fid {rule.fid}") for match in found]
            if rules:
                rules.insert(0, self._signalling_first(default))
            rules += [Rule(way, "default") for way in defaults]
        chains = {chain: tuple(rules), **beside.chains}
        elements = set(beside.elements)
        elements.add((HOMES, (Element(home_address.packed, chain, goto=True),)))
        elements |= {(HOME_PREFIXES, _interval(prefix, chain)) for prefix in binding.prefixes}
        if binding.paths and binding.prefixes:
            for name, (inside, accepted) in self._tunnel_packets.prefix_chains(chain, binding.paths).items():
                chains[inside] = accepted
                elements |= {(name, _interval(prefix, inside)) for prefix in binding.prefixes}
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
            marked(mark.slot_number(slots[path.bid]), copy=True)
            + immediate(mark.COPY_GATEWAY.packed)
            + duplicate()
            for path in others
        )
        return copies + self._towards(first, slots)

    def _towards(self, path: Path, slots: dict[int, int]) -> bytes:
        """What goes into a tunnel has to fit it, what goes to the home link not."""
        end = verdict(GOTO, "fit") if path.on_link is None else verdict(ACCEPT)
        return marked(mark.slot_number(slots[path.bid])) + end

    def _dropped(self) -> bytes:
        if self._anchor:
            return verdict(DROP)
        # a drop in output would be an error for the application that sent it
        return marked(mark.DISCARD) + verdict(ACCEPT)


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
