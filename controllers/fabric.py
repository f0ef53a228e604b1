"""Which switches there are and what each is for, as one TOML file says it.

Classes: `Fabric`, `Access`, `FabricError`. Functions: `load`, `check`, `hardware_address_of`.

::

    edge_ports = ["s0-cn"]          # of the core switch: where packets of correspondent nodes come in
    core = 1                        # datapath number of the core switch
    feeds = ["/run/flowbind/ha.sock"]

    [[access]]
    name = "wlan"
    prefix = "2001:db8:201::/64"    # care-of addresses in it are reached through this access network
    switch = 2                      # datapath number of its switch
    core_port = "s0-s1"             # port of the core switch that leads to it
    network_ports = ["s1-ar1", "s1-s0"]  # of its switch: towards the network, not towards mobile nodes

    [neighbours]                    # only for care-of addresses that do not tell (RFC 4291 appendix A)
    "2001:db8:201::7" = "02:00:00:00:00:07"
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv6Address, IPv6Network
from typing import Any

MAX_DATAPATH = (1 << 64) - 1
#: An OpenFlow table number that a rule can go on to: 254 is the last, and switches keep high ones for
#: themselves.
MAX_TABLE = 253


class FabricError(Exception):
    """The description cannot be used; the text is one sentence that names the key."""


@dataclass(frozen=True, slots=True)
class Access:
    """An access network: its switch and the way there from the core switch.

    `network_ports` of its switch lead to routers and other switches; mobile nodes are at all others.
    """

    name: str
    prefix: IPv6Network
    switch: int
    core_port: str
    network_ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fabric:
    """The switches, and how bindings are mirrored into them.

    table: where our rules are, apart from the gates in table 0. lease_s: for how long a switch goes on
    by itself once the controller is silent. feed_grace_s: for how long rules stay once an agent's feed
    is lost. max_matches: per flow binding and network. mirror_default: also mirror what matches no flow
    binding.
    """

    core: int
    edge_ports: tuple[str, ...]
    access: tuple[Access, ...]
    neighbours: Mapping[IPv6Address, int] = field(default_factory=dict)
    feeds: tuple[str, ...] = ()
    table: int = 10
    lease_s: int = 2
    feed_grace_s: float = 5.0
    audit_s: float = 5.0
    max_matches: int = 256
    mirror_default: bool = False

    def access_of(self, care_of_address: IPv6Address) -> Access | None:
        """The access network that a care-of address is in."""
        return next((access for access in self.access if care_of_address in access.prefix), None)

    def hardware_address(self, care_of_address: IPv6Address) -> int | None:
        """Of the mobile node's interface that has this care-of address, if it is known."""
        return self.neighbours.get(care_of_address) or hardware_address_of(care_of_address)

    @property
    def switches(self) -> set[int]:
        """All datapath numbers."""
        return {self.core, *(access.switch for access in self.access)}

    def ports_of(self, number: int) -> list[str]:
        """Names of the ports that matter of the switch with this datapath number."""
        if number != self.core:
            return [port for a in self.access if a.switch == number for port in a.network_ports]
        return [*self.edge_ports, *(access.core_port for access in self.access)]


def hardware_address_of(address: IPv6Address) -> int | None:
    """The Ethernet address that a modified EUI-64 interface identifier was made from (RFC 4291 appendix
    A)."""
    identifier = int(address) & (1 << 64) - 1
    if identifier >> 24 & 0xFFFF != 0xFFFE:
        return None
    return (identifier >> 40 << 24 | identifier & 0xFFFFFF) ^ 0x02 << 40


def load(path: str) -> Fabric:
    """Read a description. Raises FabricError."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    try:
        with open(path, "rb") as file:
            return check(tomllib.load(file))
    except OSError as error:
        raise FabricError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FabricError(f"{path}: is not TOML: {error}") from None
    except FabricError as error:
        raise FabricError(f"{path}: {error}") from None


def check(tables: Mapping[str, Any]) -> Fabric:
    """The description in parsed TOML. Raises FabricError that names the key."""
    known = [item.name for item in fields(Fabric)]
    _check_keys(tables, known, "")
    for key in ("core", "edge_ports", "access"):
        if not tables.get(key):
            raise FabricError(f"{key}: is missing")
    access = tuple(_access(table, f"access[{index}].") for index, table in enumerate(tables["access"]))
    values: dict[str, Any] = {
        "core": _number(tables, "core", "", 0, MAX_DATAPATH),
        "edge_ports": _texts(tables, "edge_ports"),
        "access": access,
        "neighbours": {
            _address(key): _hardware_address(text, f"neighbours.{key}")
            for key, text in tables.get("neighbours", {}).items()
        },
        "feeds": _texts(tables, "feeds"),
    }
    for key, low, high in (("table", 1, MAX_TABLE), ("lease_s", 1, 65535), ("max_matches", 1, 65536)):
        if key in tables:
            values[key] = _number(tables, key, "", low, high)
    for key in ("feed_grace_s", "audit_s"):
        if key in tables:
            if isinstance(tables[key], bool) or not isinstance(tables[key], (int, float)) or tables[key] <= 0:
                raise FabricError(f"{key}: expected a number of seconds, not {tables[key]!r}")
            values[key] = float(tables[key])
    if "mirror_default" in tables:
        if not isinstance(tables["mirror_default"], bool):
            raise FabricError(f"mirror_default: expected true or false, not {tables['mirror_default']!r}")
        values["mirror_default"] = tables["mirror_default"]
    for index, one in enumerate(access):
        for other in access[:index]:
            if one.name == other.name:
                raise FabricError(f"access[{index}].name: {one.name!r} stands twice")
            if one.prefix.overlaps(other.prefix):
                raise FabricError(f"access[{index}].prefix: {one.prefix} overlaps that of {other.name}")
            if one.switch == other.switch:
                raise FabricError(f"access[{index}].switch: {one.switch} is the switch of {other.name}, too")
        if one.switch == values["core"]:
            raise FabricError(f"access[{index}].switch: {one.switch} is the core switch")
    return Fabric(**values)


def _access(table: Any, path: str) -> Access:
    if not isinstance(table, Mapping):
        raise FabricError(f"{path[:-1]}: expected a table")
    _check_keys(table, [item.name for item in fields(Access)], path)
    for key in ("name", "prefix", "switch", "core_port", "network_ports"):
        if key not in table:
            raise FabricError(f"{path}{key}: is missing")
    try:
        prefix = IPv6Network(table["prefix"])
    except ValueError as error:
        raise FabricError(f"{path}prefix: expected an IPv6 prefix: {error}") from None
    switch = _number(table, "switch", path, 0, MAX_DATAPATH)
    ports = _texts(table, "network_ports", path)
    return Access(str(table["name"]), prefix, switch, str(table["core_port"]), ports)


def _check_keys(table: Mapping[str, Any], known: list[str], path: str) -> None:
    for key in table:
        if key not in known:
            raise FabricError(f"{path}{key}: is not a known key; known are {', '.join(known)}")


def _number(table: Mapping[str, Any], key: str, path: str, low: int, high: int) -> int:
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise FabricError(f"{path}{key}: expected a number from {low} to {high}, not {value!r}")
    return value


def _texts(tables: Mapping[str, Any], key: str, path: str = "") -> tuple[str, ...]:
    values = tables.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise FabricError(f"{path}{key}: expected a list of texts, not {values!r}")
    return tuple(values)


def _address(text: str) -> IPv6Address:
    try:
        return IPv6Address(text)
    except ValueError:
        raise FabricError(f"neighbours.{text}: expected an IPv6 address as the key") from None


def _hardware_address(text: Any, path: str) -> int:
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", text):
        raise FabricError(f"{path}: expected an Ethernet address, not {text!r}")
    return int(text.replace(":", ""), 16)
