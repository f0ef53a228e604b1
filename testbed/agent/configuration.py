"""The configuration of an agent: one TOML file, validated.

Classes: `MobileNodeFile`, `HomeAgentFile` and their tables. Functions: `load`, `check`, `flow_binding`,
`policy`, `association`, `resolve_bids`, `socket_path`. Exception: `ConfigurationError`. The keys are
described in docs/configuration.md.
"""

from dataclasses import fields
from ipaddress import IPv6Address, IPv6Network
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from testbed.agent.ipsec_tables import (
    AnchorIpsec,
    EspTable,
    HomeIpsec,
    Ipsec,
    MapIpsec,
    check_associations,
    check_ipsec,
    check_tunnel,
)
from testbed.agent.security import security_association
from testbed.agent.selector_text import SELECTOR_KEYS, parse_selector
from testbed.agent.validation import ConfigurationError, Table, decode_address, read_toml, validation_sentence
from testbed.mobility.authentication import SecurityAssociation
from testbed.mobility.binding import FlowBinding
from testbed.mobility.forwarding import Action
from testbed.mobility.policy import Policy
from testbed.mobility.prefix_advertiser import MAX_MOB_PFX_ADV_INTERVAL, MIN_MOB_PFX_ADV_INTERVAL
from testbed.mobility.return_routability import MAX_RR_BINDING_LIFETIME

#: Where control sockets are unless the configuration says otherwise.
SOCKET_FOLDER = "/run/flowbind"
#: What sockaddr_un holds, less the final zero.
MAX_SOCKET_PATH = 107

Name = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
InterfaceName = Annotated[str, Meta(pattern="^[^/ \t]{1,15}$")]
Number16 = Annotated[int, Meta(ge=1, le=65535)]
BindingPriority = Annotated[int, Meta(ge=1, le=127)]
FlowPriority = Annotated[int, Meta(ge=0, le=255)]
Lifetime = Annotated[int, Meta(ge=4, le=65535 * 4, multiple_of=4)]
Rate = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, Meta(ge=0)]
ActionName = Literal["forward", "discard", "n-cast"]
DialectName = Literal["draft", "rfc6089"]
Text = str | int

#: The priority of a flow binding for which none is given.
DEFAULT_FLOW_PRIORITY = 10


class Interface(Table):
    """An interface of the mobile node and the BID of the care-of address that it gets."""

    name: InterfaceName
    bid: Number16
    priority: BindingPriority


class SelectorKeys(Table, kw_only=True):
    """Which packets a flow is (see `testbed.agent.selector_text`)."""

    source_address: Text | None = None
    destination_address: Text | None = None
    source_port: Text | None = None
    destination_port: Text | None = None
    next_header: Text | None = None
    protocol: Text | None = None
    traffic_class: Text | None = None
    dscp: Text | None = None
    flow_label: Text | None = None
    spi: Text | None = None


class Flow(SelectorKeys):
    """A flow binding. `bids` are numbers, or names of interfaces as `resolve_bids` takes them."""

    fid: Number16
    bids: list[int | str] = []
    priority: FlowPriority = DEFAULT_FLOW_PRIORITY
    action: ActionName = "forward"


class MobileNetworkTable(Table):
    """What is behind a mobile router (RFC 3963). `interfaces` are those that its nodes are behind."""

    prefixes: Annotated[list[IPv6Network], Meta(min_length=1)]
    interfaces: list[InterfaceName] = []
    mode: Literal["explicit", "implicit"] = "explicit"
    fall_back: bool = False


class MobileRouter(Table):
    """An entry of a home agent's prefix table (RFC 3963 §6.1.2)."""

    home_address: IPv6Address
    prefixes: Annotated[list[IPv6Network], Meta(min_length=1)]


class DatapathTable(Table):
    """How the kernel carries the packets. `native_uplink` (of a mobile node): answer without a tunnel where
    packets come without one (see `testbed.datapath.native_uplink`)."""

    tunnel_backend: Literal["auto", "seg6", "ip6tnl"] = "auto"
    tunnel_mtu: Annotated[int, Meta(ge=1280, le=65535)] = 1460
    route_carrier: Literal["auto", "bpf", "xfrm", "tun"] = "auto"
    native_uplink: bool = False


class Control(Table):
    """The control socket; "" is /run/flowbind/NAME.sock."""

    socket: str = ""


class Log(Table):
    """What is written: `level` to standard error, `events` to a file, "" to none."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    events: str = ""


#: The table [policy]: the fields of `testbed.mobility.policy.Policy`, with its defaults.
PolicyTable = msgspec.defstruct(
    "PolicyTable",
    [(f.name, f.type if f.type is bool else Annotated[int, Meta(ge=0)], f.default) for f in fields(Policy)],
    bases=(Table,),
    frozen=True,
    forbid_unknown_fields=True,
)


class Security(Table, kw_only=True):
    """The key that mobile node and home agent share (RFC 4285): 32 hexadecimal digits, here or in a file."""

    spi: Annotated[int, Meta(ge=256, le=0xFFFFFFFF)]
    key: str = ""
    key_file: str = ""
    window_s: float = 7.0


class HomeSecurity(Security, kw_only=True):
    """The same at the home agent, for each home address."""

    home_address: IPv6Address


class Correspondent(Table):
    """A node to which the route is to be optimised."""

    address: IPv6Address


class AgentTables(Table, kw_only=True):
    """What the configurations of all roles have."""

    name: Name
    dialect: DialectName = "draft"
    state: str = ""
    datapath: DatapathTable = field(default_factory=DatapathTable)
    control: Control = field(default_factory=Control)
    log: Log = field(default_factory=Log)


class ReceiverTables(AgentTables, kw_only=True):
    """What those have that receive Binding Updates."""

    max_lifetime_s: Lifetime = 3600
    max_refusals_per_s: Rate = 100
    max_refusals_per_sender_per_s: Rate = 10
    policy: PolicyTable = field(default_factory=PolicyTable)


class RegistrarTables(ReceiverTables, kw_only=True):
    """What home agents and mobility anchor points have."""

    address: IPv6Address
    accept_unauthenticated: bool = False
    duplicate_address_detection: bool = True


class MobileNodeFile(AgentTables, tag_field="role", tag="mobile-node", kw_only=True):
    """The configuration of a mobile node."""

    home_address: IPv6Address
    interface: Annotated[list[Interface], Meta(min_length=1)]
    home_agent: IPv6Address | None = None
    home_prefix: IPv6Network | None = None
    lifetime_s: Lifetime = 60
    flow: list[Flow] = []
    correspondent: list[Correspondent] = []
    security: Security | None = None
    ipsec: Ipsec | None = None
    accept_unauthenticated: bool = False
    mobile_network: MobileNetworkTable | None = None
    flow_updates: Literal["together", "each"] = "together"
    correspondent_node: bool = True
    optimise: Literal["named", "traffic"] = "named"
    max_optimised: Annotated[int, Meta(ge=1, le=1000)] = 32
    optimise_by: Literal["auto", "regional", "on-link"] = "auto"
    multiple_care_of_addresses: bool = True
    returning_home: Literal["complete", "simultaneous"] = "complete"
    hierarchical: bool = False
    map_security: Security | None = None
    map_ipsec: list[MapIpsec] = []


class HomeAgentFile(RegistrarTables, tag_field="role", tag="home-agent", kw_only=True):
    """The configuration of a home agent."""

    home_interface: InterfaceName
    home_prefixes: Annotated[list[IPv6Network], Meta(min_length=1)]
    mobile_router: list[MobileRouter] = []
    ipsec: list[HomeIpsec] = []
    security_association: list[HomeSecurity] = []
    other_routers: bool = False
    preference: Annotated[int, Meta(ge=0, le=65535)] = 0
    prefix_interval_s: tuple[Seconds, Seconds] = (MIN_MOB_PFX_ADV_INTERVAL, MAX_MOB_PFX_ADV_INTERVAL)


class AnchorPointFile(RegistrarTables, tag_field="role", tag="anchor-point", kw_only=True):
    """The configuration of a mobility anchor point (RFC 5380)."""

    regional_interface: InterfaceName
    regional_prefixes: Annotated[list[IPv6Network], Meta(min_length=1)]
    local_prefixes: list[IPv6Network] = []
    security_association: list[Security] = []
    ipsec: list[AnchorIpsec] = []

    @property
    def home_interface(self) -> str:
        """What is to a home agent its home link."""
        return self.regional_interface


class CorrespondentNodeFile(ReceiverTables, tag_field="role", tag="correspondent-node", kw_only=True):
    """The configuration of a correspondent node: a host that mobile nodes register with."""

    max_lifetime_s: Annotated[int, Meta(ge=4, le=MAX_RR_BINDING_LIFETIME, multiple_of=4)] = (
        MAX_RR_BINDING_LIFETIME
    )
    max_tests_per_s: Rate = 1000
    max_tests_per_sender_per_s: Rate = 30


AgentFile = MobileNodeFile | HomeAgentFile | AnchorPointFile | CorrespondentNodeFile


def load(path: str) -> AgentFile:
    """Read and check a configuration file. Raises ConfigurationError."""
    tables = read_toml(path)
    try:
        return check(tables)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def check(tables: dict[str, Any]) -> AgentFile:
    """The configuration in parsed TOML. Raises ConfigurationError that names the key."""
    if "role" not in tables:
        raise ConfigurationError(
            'role: is missing; expected "mobile-node", "home-agent", "anchor-point" or "correspondent-node"'
        )
    try:
        file = msgspec.convert(tables, AgentFile, dec_hook=decode_address)
    except msgspec.ValidationError as error:
        raise ConfigurationError(validation_sentence(error, tables, AgentFile)) from None
    if len(socket_path(file).encode()) > MAX_SOCKET_PATH:
        raise ConfigurationError(
            f"control.socket: expected a path of at most {MAX_SOCKET_PATH} octets, not {socket_path(file)!r}"
        )
    if isinstance(file, MobileNodeFile):
        _check_mobile_node(file)
    elif isinstance(file, HomeAgentFile):
        _check_unique("mobile_router", file.mobile_router, "home_address")
        _check_unique("security_association", file.security_association, "home_address")
        _check_unique("ipsec", file.ipsec, "home_address")
        if file.security_association or not file.ipsec:
            _check_keys("security_association", list(enumerate(file.security_association)), file)
        _check_home_ipsec(file)
    elif isinstance(file, AnchorPointFile):
        _check_unique("security_association", file.security_association, "spi")
        if file.security_association or not file.ipsec:
            _check_keys("security_association", list(enumerate(file.security_association)), file)
        _check_unique("ipsec", file.ipsec, "regional_address")
        check_associations("ipsec", file.ipsec, "to_anchor_point")
        for index, table in enumerate(file.ipsec):
            if not any(table.regional_address in prefix for prefix in file.regional_prefixes):
                raise ConfigurationError(
                    f"ipsec[{index}].regional_address: expected one of regional_prefixes, "
                    f"not {table.regional_address}"
                )
    return file


def _check_mobile_node(file: MobileNodeFile) -> None:
    for key in ("home_address", "home_agent"):
        address = getattr(file, key)
        if address is None:
            if file.home_prefix is None:
                raise ConfigurationError("home_agent: is missing")
            continue  # it is to be discovered
        if address.is_multicast or address.is_unspecified or address.is_loopback or address.is_link_local:
            raise ConfigurationError(f"{key}: expected a global unicast address, not {address}")
    if file.home_address == file.home_agent:
        raise ConfigurationError("home_address: expected another address than that of the home agent")
    for kind, items, key in (
        ("interface", file.interface, "name"),
        ("interface", file.interface, "bid"),
        ("flow", file.flow, "fid"),
        ("correspondent", file.correspondent, "address"),
    ):
        _check_unique(kind, items, key)
    if not file.multiple_care_of_addresses:
        for key in ("flow", "hierarchical"):
            if getattr(file, key):
                raise ConfigurationError(f"{key}: does not go with multiple_care_of_addresses = false")
    _check_mobile_network(file)
    if file.returning_home == "simultaneous":
        for key, alone in (
            ("hierarchical", not file.hierarchical),
            ("mobile_network", file.mobile_network is None),
            ("multiple_care_of_addresses = false", file.multiple_care_of_addresses),
            ("[ipsec]", file.ipsec is None),
        ):
            if not alone:
                raise ConfigurationError(f'returning_home: "simultaneous" does not go with {key}')
    if file.ipsec is None:
        _check_keys("security", [(None, file.security)] if file.security else [], file)
    else:
        if file.security:
            raise ConfigurationError("security: does not go with [ipsec]")
        if file.hierarchical:
            raise ConfigurationError(
                "hierarchical: does not go with [ipsec], as the kernel would send from a regional address "
                "outside of the anchor point's tunnel; [[map_ipsec]] is for anchor points"
            )
        if file.home_agent is None:
            raise ConfigurationError(
                "home_agent: is missing; [ipsec] is with one home agent, as several would disturb each "
                "other's sequence numbers"
            )
        check_ipsec("ipsec", file.ipsec)
        check_tunnel("ipsec", file.ipsec)
    if file.hierarchical:
        if file.map_security or not file.map_ipsec:
            _check_keys("map_security", [(None, file.map_security)] if file.map_security else [], file)
    elif file.map_ipsec:
        raise ConfigurationError("map_ipsec: does not go without hierarchical = true")
    elif file.optimise_by != "auto":
        raise ConfigurationError("optimise_by: does not go without hierarchical = true")
    for key in ("anchor_point", "regional_address"):
        _check_unique("map_ipsec", file.map_ipsec, key)
    check_associations("map_ipsec", file.map_ipsec, "to_mobile_node")
    for index, flow in enumerate(file.flow):
        try:
            flow_binding(flow, file.interface)
        except ValueError as error:
            raise ConfigurationError(f"flow[{index}].{error}") from None


def _check_unique(kind: str, items: list[Table], key: str) -> None:
    values = [getattr(item, key) for item in items]
    for index, value in enumerate(values):
        if value in values[:index]:
            shown = repr(str(value) if isinstance(value, IPv6Address) else value)
            raise ConfigurationError(f"{kind}[{index}].{key}: {shown} is used already")


def _check_keys(
    name: str, tables: list[tuple[int | None, Security]], file: MobileNodeFile | HomeAgentFile
) -> None:
    if not tables and not file.accept_unauthenticated:
        whose = "a key for each home address" if isinstance(file, HomeAgentFile) else "the home agent's key"
        raise ConfigurationError(
            f"{name}: is missing; expected {whose} (or accept_unauthenticated = true, to do without)"
        )
    for index, table in tables:
        try:
            association(table)
        except ValueError as error:
            raise ConfigurationError(f"{name}{'' if index is None else f'[{index}]'}.{error}") from None


def _check_home_ipsec(file: HomeAgentFile) -> None:
    other_homes = [table.home_address for table in file.security_association]
    check_associations("ipsec", file.ipsec, "to_home_agent")
    for index, table in enumerate(file.ipsec):
        check_tunnel(f"ipsec[{index}]", table)
        if table.home_address in other_homes:
            raise ConfigurationError(f"ipsec[{index}].home_address: has a [[security_association]] already")


def _check_mobile_network(file: MobileNodeFile) -> None:
    if file.mobile_network is None:
        return
    for index, prefix in enumerate(file.mobile_network.prefixes):
        if file.home_agent is not None and file.home_agent in prefix:
            raise ConfigurationError(
                f"mobile_network.prefixes[{index}]: expected a prefix without the home agent, not {prefix}"
            )
    outside = {interface.name for interface in file.interface}
    for index, name in enumerate(file.mobile_network.interfaces):
        if name in outside:
            raise ConfigurationError(
                f"mobile_network.interfaces[{index}]: {name!r} is an interface to access networks"
            )


def association(table: Security) -> SecurityAssociation:
    """The association that a table describes. Raises ValueError, "key: what was expected"."""
    return security_association(table.spi, table.key, table.key_file, table.window_s)


def key_files(file: AgentFile) -> list[str]:
    """The files beside the configuration itself that keys are in."""
    names = ("key_file", "encryption_key_file")
    found = (getattr(table, name, "") for table in _tables_with_keys(file) for name in names)
    return [path for path in found if path]


def has_keys(file: AgentFile) -> bool:
    """Whether the configuration itself has keys in it."""
    tables = _tables_with_keys(file)
    return any(table.key or getattr(table, "encryption_key", "") for table in tables)


def _tables_with_keys(file: AgentFile) -> list[Security | EspTable]:
    tables = [getattr(file, "security", None), getattr(file, "map_security", None)]
    tables += getattr(file, "security_association", ())
    ipsec = getattr(file, "ipsec", None) or ()
    of_maps = getattr(file, "map_ipsec", ())
    for each in [*([ipsec] if isinstance(ipsec, Ipsec) else ipsec), *of_maps]:
        tables += each.associations.values()
    return [table for table in tables if table is not None]


def socket_path(file: AgentFile) -> str:
    """Where the control socket of this agent is."""
    return file.control.socket or f"{SOCKET_FOLDER}/{file.name}.sock"


def policy(file: ReceiverTables) -> Policy:
    """The policy of a node that others register with."""
    return Policy(**msgspec.structs.asdict(file.policy))


def mobile_network(file: MobileNodeFile) -> dict[str, Any]:
    """What a MobileNodeConfiguration says of the mobile network, if there is one."""
    table = file.mobile_network
    if table is None:
        return {}
    return {
        "prefixes": tuple(table.prefixes),
        "explicit_prefixes": table.mode == "explicit",
        "prefix_fall_back": table.fall_back,
    }


def flow_binding(flow: Flow, interfaces: list[Interface]) -> FlowBinding:
    """The flow binding that a table or command describes. Raises ValueError, "key: what was expected"."""
    bids = resolve_bids(flow.bids, interfaces)
    if not bids and flow.action == "discard":  # it belongs to a binding all the same (draft §4.7)
        bids = (min(interfaces, key=lambda interface: (interface.priority, interface.bid)).bid,)
    selector = parse_selector(selector_keys(flow))
    binding = FlowBinding(flow.fid, flow.priority, action_of(flow.action), bids, selector)
    check_flow(binding)
    return binding


def selector_keys(table: SelectorKeys) -> dict[str, Text]:
    """The selector keys that a table has."""
    values = ((key, getattr(table, key)) for key in SELECTOR_KEYS)
    return {key: value for key, value in values if value is not None}


def action_of(name: ActionName) -> Action:
    """The action of this name."""
    return Action[name.upper().replace("-", "_")]


def check_flow(flow: FlowBinding) -> None:
    """Raise ValueError, "key: what was expected", if the BIDs do not go with the action."""
    if not flow.bids:
        raise ValueError("bids: is missing; expected at least one BID or interface")
    if flow.action is Action.N_CAST and len(flow.bids) < 2:
        raise ValueError("bids: expected at least two for n-cast")


def resolve_interface(name: str, interfaces: list[Interface]) -> str:
    """The whole name of an interface ("mn-wlan", or "wlan" if only one ends so). Raises ValueError."""
    (bid,) = resolve_bids([name], interfaces)
    return next(interface.name for interface in interfaces if interface.bid == bid)


def resolve_bids(names: list[int | str], interfaces: list[Interface]) -> tuple[int, ...]:
    """BIDs from numbers or interface names ("mn-wlan", or "wlan" if only one ends so). Raises ValueError."""
    bids = []
    for name in names:
        found = [i.bid for i in interfaces if str(i.bid) == str(name) or i.name == name]
        found = found or [i.bid for i in interfaces if i.name.endswith(f"-{name}")]
        if len(found) != 1:
            known = ", ".join(f"{i.bid} ({i.name})" for i in interfaces)
            raise ValueError(f"bids: there is no BID or interface {name!r}; known are {known}")
        if found[0] in bids:
            raise ValueError(f"bids: BID {found[0]} is named twice")
        bids += found
    return tuple(bids)
