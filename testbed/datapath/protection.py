"""IPsec for the signalling between mobile nodes and a home agent (RFC 6275 §5.1, RFC 3776), in the kernel.

Classes: `Keys` (of one home address), `Protection`.

For each home address, two security associations in transport mode and policies that demand them for Mobility
Header messages and ICMPv6 between the two, all of it, as the kernel does not find the type of a message
behind a type 2 routing header (RFC 3776 §5.2.1, §5.2.3). The Home Address option and this header are the
kernel's affair, too (XFRM in mode ro, CONFIG_IPV6_MIP6), as IPsec goes by the home address while packets go
by care-of addresses; a policy rule of `proto 179` keeps them out of our tunnels. In table
`ip6 flowbind_ipsec` of nf_tables, packets with ESP, and what comes out of it, get a mark by which our other
tables leave them alone; what has none they drop as ever (see `exemption`).

Where there are keys for it, two more associations in tunnel mode, between care-of address and home agent, for
Home Test Init and Home Test of a mobile node that is away (RFC 3776 §3.2). They move with it; the policies
that demand them are there only while it is away (§4.2).

In the network namespace of the calling thread. Keys are configured, hence sequence numbers must never go
back: they begin at the time of day, and what has been received is for the caller to keep over a restart.
"""

import errno
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, IPv6Network

from testbed.datapath import mark, xfrm
from testbed.datapath.classifier import EMPTY, ICMPV6, MOBILITY_HEADER
from testbed.datapath.error import DatapathError
from testbed.datapath.exemption import HOME_TEST_INIT, Exemption, tunnelled
from testbed.datapath.netlink import CREATE, NETFILTER, REPLACE, ROUTE, Netlink, NetlinkError, attribute
from testbed.datapath.probe import in_private_namespace
from testbed.datapath.route import HomeAddress, LinkIndices, PolicyRule
from testbed.datapath.ruleset import Ruleset
from testbed.datapath.tunnel import explain
from testbed.datapath.xfrm import (
    ANY,
    DESTINATION_OPTIONS,
    ESP,
    FIRST_REQUEST,
    FORWARD,
    IN,
    OUT,
    ROUTE_OPTIMISATION,
    ROUTING,
    TRANSPORT,
    TUNNEL,
    UNSPECIFIED,
    Esp,
    Selector,
    State,
    Template,
    Transformations,
    TransformPolicy,
)
from testbed.mobility.forwarding import Side

_REQUEST = FIRST_REQUEST + 256
#: Those of tunnels; their policies come behind the others.
_TUNNEL_REQUEST = _REQUEST + 2
_NEIGHBOUR_DISCOVERY = 135, 136
#: Sequence numbers: eighths of a second since 2025; they last until 2042. A mobile node sends three messages
#: a second at most (MAX_UPDATE_RATE), so that those after a restart are beyond all earlier ones.
_FIRST_SECOND, _NUMBERS_PER_S = 1_735_689_600, 8
_NEW_NEIGHBOUR, _REACHABLE = 28, 2
#: Signalling leaves by the interface that it is sent by, at a mobile node, whatever tunnels there are.
_BY_MAIN_TABLE = PolicyRule(
    mark.CARE_OF_PRIORITY + 1, mark.MAIN_TABLE, mark.value(mark.LEFT_ALONE), mark.NUMBER_MASK, owner=179
)

#: The number of the last packet sent, the greatest that was received, and which of the 32 up to that.
Sequence = tuple[int, int, int]
_NONE: Sequence = (0, 0, 0)
#: Of the associations in transport mode and in tunnel mode.
Sequences = tuple[Sequence, Sequence]


@dataclass(frozen=True, slots=True)
class Keys:
    """The security associations of one home address with one home agent: in transport mode, and, where the
    Home Test is to be protected, in tunnel mode."""

    home_address: IPv6Address
    home_agent: IPv6Address
    to_home_agent: Esp
    to_mobile_node: Esp
    tunnel_to_home_agent: Esp | None = None
    tunnel_to_mobile_node: Esp | None = None

    def towards_home_agent(self, mode: int) -> Esp | None:
        """The keys in one direction for this mode of IPsec, None if there are none."""
        return self.tunnel_to_home_agent if mode == TUNNEL else self.to_home_agent

    def towards_mobile_node(self, mode: int) -> Esp | None:
        """As `towards_home_agent`, in the other direction."""
        return self.tunnel_to_mobile_node if mode == TUNNEL else self.to_mobile_node


class Protection:
    """The associations and policies of one node. `side`: MOBILE or ANCHOR.

    Raises DatapathError, where this kernel cannot do it with a sentence that says what to do.
    """

    def __init__(self, side: Side, keys: Iterable[Keys], name: str = "flowbind_ipsec") -> None:
        self._mobile = side is Side.MOBILE
        self._keys = {each.home_address: each for each in keys}
        self._name = name
        self._opened = False
        self._sequences: dict[IPv6Address, Sequences] = {}
        #: Tunnels that there are, or have been: by home address, the associations (out, in).
        self._tunnels: dict[IPv6Address, tuple[State, State]] = {}
        #: The other end of each tunnel that is in use: the care-of address.
        self._tunnelled: dict[IPv6Address, IPv6Address] = {}

    def open(self, sequences: Mapping[IPv6Address, Sequences] | None = None) -> None:
        """Put everything in place. `sequences`: what `sequences()` of an earlier life has told."""
        missing = why_not()
        if missing is not None:
            raise DatapathError(
                f"this kernel cannot protect signalling by IPsec: {missing}; use a kernel with ESP for "
                "IPv6 and CONFIG_IPV6_MIP6, as distributions have, or RFC 4285 (see docs/security.md)."
            )
        self._route, self._filter = Netlink(ROUTE), Netlink(NETFILTER)
        self._transformations = Transformations(_REQUEST)
        self._ruleset = Ruleset(self._filter, self._name, "owned by flowbind (IPsec)")
        home_agents = {keys.home_agent for keys in self._keys.values()}
        tunnels = any(keys.tunnel_to_home_agent for keys in self._keys.values())
        self._ruleset.classifier = Exemption(self._name, self._mobile, home_agents, tunnels)
        self._opened = True
        try:
            before = [o for o in self._transformations.there() if isinstance(o, State) and o.protocol == ESP]
            self._sequences = self._begin(sequences or {}, before)
            self._transformations.clean()
            self._ruleset.repair({None: EMPTY})
            error = self._route.attempt([_BY_MAIN_TABLE.install(LinkIndices())])[0]
            if error is not None and error.errno != errno.EEXIST:
                raise error
            self._transformations.become([o for keys in self._keys.values() for o in self._parts(keys)])
        except OSError as error:
            raise DatapathError(f"the kernel refused IPsec: {_words(error)}.") from error

    def towards(self, home_address: IPv6Address, care_of_address: IPv6Address | None) -> None:
        """What is sent next between this home address and its home agent goes from, or to, this care-of
        address; None: the mobile node is at home. Raises DatapathError."""
        try:
            if self._mobile:  # IPsec goes by the home address, which must be there before there is a binding
                address = HomeAddress(home_address, for_kernel=True)
                self._route.execute([address.install(LinkIndices())])
            state = self._header(self._keys[home_address], OUT, care_of_address or UNSPECIFIED)
            if care_of_address is None:
                self._transformations.drop(state.key)
            else:
                self._transformations.put(state)
        except OSError as error:
            raise DatapathError(f"the kernel refused IPsec: {_words(error)}.") from error

    def tunnel(self, home_address: IPv6Address, care_of_address: IPv6Address | None) -> None:
        """From now on, Home Test Init and Home Test of this home address go between this care-of address and
        the home agent, under ESP, and are not taken otherwise; None: they go as everything else (RFC 3776
        §4.2, §4.3). Nothing is done where there are no keys for that. Raises DatapathError."""
        keys = self._keys.get(home_address)
        if keys is None or keys.tunnel_to_home_agent is None:
            return
        if self._tunnelled.get(home_address) == care_of_address:
            return
        there, nothing = {home_address: tunnelled(home_address)}, {home_address: EMPTY}
        try:
            if care_of_address is None:
                self._ruleset.change(there, nothing)
                for policy in self._tunnel_policies(keys, UNSPECIFIED):
                    self._transformations.drop(policy.key)
                del self._tunnelled[home_address]
            else:
                self._move_tunnel(keys, care_of_address)
                if home_address not in self._tunnelled:
                    self._ruleset.change(nothing, there)
                self._tunnelled[home_address] = care_of_address
        except OSError as error:
            raise DatapathError(f"the kernel refused IPsec: {_words(error)}.") from error

    def _move_tunnel(self, keys: Keys, care_of_address: IPv6Address) -> None:
        """The same associations, with the numbers that they have got to, between other addresses."""
        before = self._tunnels.get(keys.home_address, ())
        sent, received, bitmap = self._tunnel_sequence(keys.home_address)
        wanted = (
            self._tunnel_state(keys, OUT, care_of_address, (max(sent, _first_number()), 0, 0)),
            self._tunnel_state(keys, IN, care_of_address, (0, received, bitmap)),
        )
        for state in wanted:
            self._transformations.put(state)
        self._tunnels[keys.home_address] = wanted
        for policy in self._tunnel_policies(keys, care_of_address):
            self._transformations.put(policy)
        for state in before:
            if state.key not in [other.key for other in wanted]:
                self._transformations.drop(state.key)

    def neighbour(self, address: IPv6Address, interface: str, hardware: bytes) -> None:
        """The link-layer address of a node on the link, which must not be asked for (RFC 6275 §11.5.5).
        Raises DatapathError."""
        header = struct.pack("=BBHiHBB", socket.AF_INET6, 0, 0, LinkIndices()(interface), _REACHABLE, 0, 0)
        body = header + attribute(1, address.packed) + attribute(2, hardware)
        try:
            self._route.execute([(_NEW_NEIGHBOUR, CREATE | REPLACE, body)])
        except OSError as error:
            raise DatapathError(f"the kernel refused a neighbour: {_words(error)}.") from error

    def sequences(self) -> dict[IPv6Address, Sequences]:
        """For each home address, the numbers of the associations in transport mode and in tunnel mode."""
        if not self._opened:
            return dict(self._sequences)
        states = self._transformations.there()
        return self._begin(self._sequences, [o for o in states if isinstance(o, State) and o.protocol == ESP])

    def close(self) -> None:
        """Remove everything from the kernel."""
        if not self._opened:
            return
        self._opened = False
        try:
            self._transformations.close()
            self._ruleset.delete()
            links = LinkIndices()
            addresses = [HomeAddress(home) for home in self._keys] if self._mobile else []
            self._route.attempt([o.remove(links) for o in (_BY_MAIN_TABLE, *addresses)])
        except OSError as error:
            raise DatapathError(f"IPsec cannot be removed: {_words(error)}.") from error
        finally:
            self._route.close()
            self._filter.close()

    def _begin(
        self, known: Mapping[IPv6Address, Sequences], states: Iterable[State]
    ) -> dict[IPv6Address, Sequences]:
        """The numbers that are known, and those of states that are there, where these are greater."""
        # in tunnel mode addresses change, and a home agent may have several with one SPI: the greatest counts
        by_key: dict[tuple, Sequence] = {}
        for state in states:
            key = (TUNNEL, state.esp.spi) if state.mode == TUNNEL else state.key
            by_key[key] = _greatest(by_key.get(key, _NONE), state.sequence)
        found = {}
        for home, keys in self._keys.items():
            transport, tunnel = known.get(home, (_NONE, _NONE))
            leaving, arriving = (self._esp(keys, direction).key for direction in (OUT, IN))
            transport = _later(transport, by_key.get(leaving, _NONE), by_key.get(arriving, _NONE))
            if keys.tunnel_to_home_agent is not None:
                ends = (self._ends(keys, direction, TUNNEL)[2].spi for direction in (OUT, IN))
                tunnel = _later(tunnel, *(by_key.get((TUNNEL, spi), _NONE) for spi in ends))
            found[home] = transport, tunnel
        return found

    def _tunnel_sequence(self, home_address: IPv6Address) -> Sequence:
        """The same of one tunnel, now."""
        numbers = self._sequences[home_address][1]
        if home_address in self._tunnels:
            there = [self._transformations.now(state) for state in self._tunnels[home_address]]
            numbers = _later(numbers, *(state.sequence if state else _NONE for state in there))
        return numbers

    def _ends(
        self, keys: Keys, direction: int, mode: int = TRANSPORT
    ) -> tuple[IPv6Address, IPv6Address, Esp]:
        """Source, destination and association of what goes in that direction."""
        if (direction == OUT) == self._mobile:
            return keys.home_address, keys.home_agent, keys.towards_home_agent(mode)
        return keys.home_agent, keys.home_address, keys.towards_mobile_node(mode)

    def _esp(self, keys: Keys, direction: int, sequence: Sequence = _NONE) -> State:
        source, destination, esp = self._ends(keys, direction)
        selector = Selector(IPv6Network(source), IPv6Network(destination))
        return State(source, destination, ESP, TRANSPORT, _REQUEST, selector, esp, sequence=sequence)

    def _tested(self, keys: Keys, direction: int) -> Selector:
        """What may go through a tunnel in that direction."""
        home = IPv6Network(keys.home_address)
        ends = (home, ANY) if (direction == OUT) == self._mobile else (ANY, home)
        return Selector(*ends, MOBILITY_HEADER)

    def _tunnel_ends(
        self, keys: Keys, direction: int, care_of_address: IPv6Address
    ) -> tuple[IPv6Address, IPv6Address]:
        """Outer source and destination. Who sends is not looked at: its key says enough (RFC 3776 §3.2)."""
        ends = care_of_address, keys.home_agent
        local, remote = ends if self._mobile else reversed(ends)
        return (local, remote) if direction == OUT else (UNSPECIFIED, local)

    def _tunnel_state(
        self, keys: Keys, direction: int, care_of_address: IPv6Address, sequence: Sequence
    ) -> State:
        """What comes out of it is for our other tables, as what comes out of other tunnels; at a mobile node,
        that is nothing."""
        out = mark.value(mark.LEFT_ALONE) if direction == OUT else 0
        return State(
            *self._tunnel_ends(keys, direction, care_of_address), ESP, TUNNEL, _TUNNEL_REQUEST,
            self._tested(keys, direction), self._ends(keys, direction, TUNNEL)[2],
            mark_after=(out, mark.NUMBER_MASK), sequence=sequence,
        )  # fmt: skip

    def _tunnel_policies(self, keys: Keys, care_of_address: IPv6Address) -> Iterator[TransformPolicy]:
        """What goes through the tunnel while there is this care-of address, and what may come out of it.
        That nothing comes without is seen to by nf_tables (see `exemption`)."""
        out, into = self._tested(keys, OUT), self._tested(keys, IN)
        ends, marked = self._tunnel_ends(keys, OUT, care_of_address), (0, 0)
        if self._mobile:
            out = replace(out, kind=HOME_TEST_INIT)
        else:
            marked = (mark.value(mark.LEFT_ALONE), mark.NUMBER_MASK)
        leaving, arriving = (self._ends(keys, direction, TUNNEL)[2].spi for direction in (OUT, IN))
        template = Template(ESP, TUNNEL, _TUNNEL_REQUEST, *ends, spi=leaving)
        yield TransformPolicy(OUT, out, (template,), _TUNNEL_REQUEST, marked)
        template = Template(ESP, TUNNEL, _TUNNEL_REQUEST, spi=arriving, optional=True)
        yield TransformPolicy(IN if self._mobile else FORWARD, into, (template,), _TUNNEL_REQUEST)

    def _parts(self, keys: Keys) -> Iterator[State | TransformPolicy]:
        sent, received, bitmap = self._sequences[keys.home_address][0]
        yield self._esp(keys, OUT, (max(sent, _first_number()), 0, 0))
        yield self._esp(keys, IN, (0, received, bitmap))
        yield self._header(keys, IN, UNSPECIFIED)
        for direction in (OUT, IN):
            source, destination, esp = self._ends(keys, direction)
            templates = (
                Template(ESP, TRANSPORT, _REQUEST, spi=esp.spi),
                Template(self._protocol(direction), ROUTE_OPTIMISATION, _REQUEST, optional=True),
            )
            ends = IPv6Network(source), IPv6Network(destination)
            for protocol in (MOBILITY_HEADER, ICMPV6):
                yield TransformPolicy(direction, Selector(*ends, protocol), templates, _REQUEST + 1)
            for kind in _NEIGHBOUR_DISCOVERY:  # at home; as addresses are resolved before anything else
                yield TransformPolicy(direction, Selector(*ends, ICMPV6, kind), (), _REQUEST)

    def _protocol(self, direction: int) -> int:
        """The header that has the home address: what mobile nodes send has another one than what they get."""
        return DESTINATION_OPTIONS if (direction == OUT) == self._mobile else ROUTING

    def _header(self, keys: Keys, direction: int, care_of_address: IPv6Address) -> State:
        source, destination, _ = self._ends(keys, direction)
        protocol = self._protocol(direction)
        marked = (mark.value(mark.LEFT_ALONE), mark.NUMBER_MASK) if direction == OUT else (0, 0)
        return State(
            source, destination, protocol, ROUTE_OPTIMISATION, _REQUEST,
            care_of_address=care_of_address, mark_after=marked,
        )  # fmt: skip


def _first_number() -> int:
    """Beyond all sequence numbers of earlier lives."""
    return int((time.time() - _FIRST_SECOND) * _NUMBERS_PER_S)


def _greatest(one: Sequence, other: Sequence) -> Sequence:
    return max(one[0], other[0]), *max(one[1:], other[1:])


def _later(known: Sequence, leaving: Sequence, arriving: Sequence) -> Sequence:
    """The numbers of a pair of associations: what is known, and what the kernel has of either."""
    return max(known[0], leaving[0]), *max(known[1:], arriving[1:])


def why_not() -> str | None:
    """What this kernel lacks of what signalling is protected with; None if nothing."""
    try:
        for protocol, mode, name in (
            (ESP, TRANSPORT, "ESP"),
            (DESTINATION_OPTIONS, ROUTE_OPTIMISATION, "CONFIG_IPV6_MIP6"),
        ):
            missing = in_private_namespace(lambda protocol=protocol, mode=mode: xfrm.why_not(protocol, mode))
            if missing is not None:
                return f"{name}: {missing}"
    except OSError as error:
        return f"no private network namespace to try it in ({error.strerror})"
    return None


def _words(error: OSError) -> str:
    return explain(error) if isinstance(error, NetlinkError) else str(error.strerror)
