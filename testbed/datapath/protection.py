"""IPsec for the signalling between mobile nodes and a home agent (RFC 6275 §5.1, RFC 3776), in the kernel.

Classes: `Keys` (of one home address), `Protection`.

For each home address, two security associations in transport mode and policies that demand them for Mobility
Header messages and ICMPv6 between the two, all of it, as the kernel does not find the type of a message
behind a type 2 routing header (RFC 3776 §5.2.1, §5.2.3). The Home Address option and this header are the
kernel's affair, too (XFRM in mode ro, CONFIG_IPV6_MIP6), as IPsec goes by the home address while packets go
by care-of addresses; a policy rule of `proto 179` keeps them out of the tunnels of a mobile node. In table
`ip6 flowbind_ipsec` of nf_tables, packets with ESP, and what comes out of it, get a mark by which our other
tables leave them alone; what has none they drop as ever.

In the network namespace of the calling thread. Keys are configured, hence sequence numbers must never go
back: they begin at the time of day, and what has been received is for the caller to keep over a restart.
"""

import errno
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from testbed.datapath import mark, xfrm
from testbed.datapath.classifier import ICMPV6, MOBILITY_HEADER, HomeRules
from testbed.datapath.error import DatapathError
from testbed.datapath.netlink import CREATE, NETFILTER, REPLACE, ROUTE, Netlink, NetlinkError, attribute
from testbed.datapath.nftables import (
    BY_IPSEC,
    EQUAL,
    LOCAL,
    NETWORK,
    PREROUTING,
    Rule,
    Table,
    compare,
    load,
    load_destination_type,
    load_meta,
    protocol_is,
    set_mark,
)
from testbed.datapath.probe import in_private_namespace
from testbed.datapath.route import HomeAddress, LinkIndices, PolicyRule
from testbed.datapath.ruleset import Ruleset
from testbed.datapath.tunnel import explain
from testbed.datapath.xfrm import (
    DESTINATION_OPTIONS,
    ESP,
    FIRST_REQUEST,
    IN,
    OUT,
    ROUTE_OPTIMISATION,
    ROUTING,
    TRANSPORT,
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
_NEIGHBOUR_DISCOVERY = 135, 136
#: Sequence numbers: eighths of a second since 2025; they last until 2042. A mobile node sends three messages
#: a second at most (MAX_UPDATE_RATE), so that those after a restart are beyond all earlier ones.
_FIRST_SECOND, _NUMBERS_PER_S = 1_735_689_600, 8
_NEW_NEIGHBOUR, _REACHABLE = 28, 2
#: Before our other tables get packets that arrive.
_BEFORE_OTHERS = -320
#: At a mobile node: signalling leaves by the interface that it is sent by, whatever tunnels there are.
_BY_MAIN_TABLE = PolicyRule(
    mark.CARE_OF_PRIORITY + 1, mark.MAIN_TABLE, mark.value(mark.LEFT_ALONE), mark.NUMBER_MASK, owner=179
)

Sequence = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Keys:
    """The security associations of one home address with one home agent."""

    home_address: IPv6Address
    home_agent: IPv6Address
    to_home_agent: Esp
    to_mobile_node: Esp


class _Exemption:
    """What a Ruleset puts into the table of IPsec."""

    BASE_COUNTERS = ()

    def __init__(self, name: str, mobile: bool, home_agents: Iterable[IPv6Address]) -> None:
        self.table = Table(name)
        self._agent_at = 8 if mobile else 24  # it is the source of what arrives, or the destination
        self._home_agents = sorted(home_agents)

    def base_chains(self) -> dict[str, tuple[tuple[str, int, int] | None, tuple[Rule, ...]]]:
        left = set_mark(mark.value(mark.LEFT_ALONE), mark.KEPT)
        ours = load_destination_type() + compare(EQUAL, struct.pack("=I", LOCAL))
        esp = protocol_is(ESP) + ours + load(NETWORK, self._agent_at, 16)
        agents = (compare(EQUAL, address.packed) for address in self._home_agents)
        rules = (
            *(Rule(esp + agent + left, "for the kernel") for agent in agents),
            Rule(load_meta(BY_IPSEC) + compare(EQUAL, b"\1") + left, "authentic"),
        )
        return {"prerouting": (("filter", PREROUTING, _BEFORE_OTHERS), rules)}

    def base_sets(self) -> list[tuple]:
        return []


class Protection:
    """The associations and policies of one node. `side`: MOBILE or ANCHOR.

    Raises DatapathError, where this kernel cannot do it with a sentence that says what to do.
    """

    def __init__(self, side: Side, keys: Iterable[Keys], name: str = "flowbind_ipsec") -> None:
        self._mobile = side is Side.MOBILE
        self._keys = {each.home_address: each for each in keys}
        self._name = name
        self._opened = False

    # -- the interface

    def open(self, sequences: Mapping[IPv6Address, Sequence] | None = None) -> None:
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
        self._ruleset.classifier = _Exemption(self._name, self._mobile, home_agents)
        self._opened = True
        try:
            before = [o for o in self._transformations.there() if isinstance(o, State) and o.protocol == ESP]
            self._sequences = self._begin(sequences or {}, before)
            self._transformations.clean()
            self._ruleset.repair({None: HomeRules({}, {}, frozenset())})
            if self._mobile:
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

    def neighbour(self, address: IPv6Address, interface: str, hardware: bytes) -> None:
        """The link-layer address of a node on the link, which must not be asked for (RFC 6275 §11.5.5).
        Raises DatapathError."""
        header = struct.pack("=BBHiHBB", socket.AF_INET6, 0, 0, LinkIndices()(interface), _REACHABLE, 0, 0)
        body = header + attribute(1, address.packed) + attribute(2, hardware)
        try:
            self._route.execute([(_NEW_NEIGHBOUR, CREATE | REPLACE, body)])
        except OSError as error:
            raise DatapathError(f"the kernel refused a neighbour: {_words(error)}.") from error

    def sequences(self) -> dict[IPv6Address, Sequence]:
        """For each home address: the number of the last packet sent, the greatest that was received, and
        which of the 32 up to that."""
        states = self._transformations.there() if self._opened else ()
        return self._begin({}, (o for o in states if isinstance(o, State) and o.protocol == ESP))

    def close(self) -> None:
        """Remove everything from the kernel."""
        if not self._opened:
            return
        self._opened = False
        try:
            self._transformations.close()
            self._ruleset.delete()
            if self._mobile:
                links = LinkIndices()
                addresses = [HomeAddress(home) for home in self._keys]
                self._route.attempt([o.remove(links) for o in (_BY_MAIN_TABLE, *addresses)])
        except OSError as error:
            raise DatapathError(f"IPsec cannot be removed: {_words(error)}.") from error
        finally:
            self._route.close()
            self._filter.close()

    # -- inside

    def _begin(
        self, known: Mapping[IPv6Address, Sequence], states: Iterable[State]
    ) -> dict[IPv6Address, Sequence]:
        """The numbers that are known, and those of states that are there, where these are greater."""
        by_key = {state.key: state.sequence for state in states}
        found = {}
        for home, keys in self._keys.items():
            leaving, arriving = (self._esp(keys, direction) for direction in (OUT, IN))
            sent, received, bitmap = known.get(home, (0, 0, 0))
            sent = max(sent, by_key.get(leaving.key, (0, 0, 0))[0])
            _, *arrived = by_key.get(arriving.key, (0, 0, 0))
            found[home] = sent, *max((received, bitmap), tuple(arrived))
        return found

    def _ends(self, keys: Keys, direction: int) -> tuple[IPv6Address, IPv6Address, Esp]:
        """Source, destination and association of what goes in that direction."""
        if (direction == OUT) == self._mobile:
            return keys.home_address, keys.home_agent, keys.to_home_agent
        return keys.home_agent, keys.home_address, keys.to_mobile_node

    def _esp(self, keys: Keys, direction: int, sequence: Sequence = (0, 0, 0)) -> State:
        source, destination, esp = self._ends(keys, direction)
        selector = Selector(IPv6Network(source), IPv6Network(destination))
        return State(source, destination, ESP, TRANSPORT, _REQUEST, selector, esp, sequence=sequence)

    def _parts(self, keys: Keys) -> Iterator[State | TransformPolicy]:
        sent, received, bitmap = self._sequences[keys.home_address]
        sent = max(sent, int((time.time() - _FIRST_SECOND) * _NUMBERS_PER_S))
        yield self._esp(keys, OUT, (sent, 0, 0))
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
