"""The tables of a configuration that IPsec's security associations stand in.

Classes: `EspTable`, `Ipsec`, `HomeIpsec`, `AnchorIpsec`, `MapIpsec`. Functions: `check_associations`,
`check_tunnel`, `check_ipsec`, which raise ConfigurationError, and `ipsec_keys`, `map_keys`.
"""

from ipaddress import IPv6Address
from typing import Annotated

from msgspec import Meta

from testbed.agent.security import esp
from testbed.agent.validation import ConfigurationError, Table
from testbed.datapath.protection import Keys
from testbed.datapath.xfrm import Esp


class EspTable(Table):
    """A security association in one direction (RFC 3776): HMAC-SHA-256-128, and AES-CBC where there is an
    encryption key; keys in hexadecimal digits, here or in files."""

    spi: Annotated[int, Meta(ge=256, le=0xFFFFFFFF)]
    key: str = ""
    key_file: str = ""
    encryption_key: str = ""
    encryption_key_file: str = ""


class Ipsec(Table, kw_only=True):
    """What IPsec protects the messages between mobile node and home agent with, in place of RFC 4285; in a
    tunnel, Home Test Init and Home Test."""

    to_home_agent: EspTable
    to_mobile_node: EspTable
    tunnel_to_home_agent: EspTable | None = None
    tunnel_to_mobile_node: EspTable | None = None

    @property
    def associations(self) -> dict[str, EspTable]:
        """Those that there are, by key."""
        tables = ((key, getattr(self, key)) for key in Ipsec.__struct_fields__)
        return {key: table for key, table in tables if table is not None}


class HomeIpsec(Ipsec, kw_only=True):
    """The same at the home agent, for each home address."""

    home_address: IPv6Address


class AnchorIpsec(Table, kw_only=True):
    """The same of a regional address with a mobility anchor point (RFC 5380 §12.1), at the latter."""

    regional_address: IPv6Address
    to_anchor_point: EspTable
    to_mobile_node: EspTable

    @property
    def associations(self) -> dict[str, EspTable]:
        """By key."""
        return {key: getattr(self, key) for key in ("to_anchor_point", "to_mobile_node")}


class MapIpsec(AnchorIpsec, kw_only=True):
    """The same at the mobile node, for each anchor point."""

    anchor_point: IPv6Address


def check_associations(name: str, tables: list[Ipsec | AnchorIpsec], arriving: str) -> None:
    """Check the tables of all mobile nodes. `arriving`: the end of the names of those of which the receiver,
    who is the same for all, has one SPI each. Raises ConfigurationError."""
    used: set[int] = set()
    for index, table in enumerate(tables):
        check_ipsec(f"{name}[{index}]", table)
        spis = {key: each.spi for key, each in table.associations.items() if key.endswith(arriving)}
        for key, spi in spis.items():
            if spi in used:
                raise ConfigurationError(f"{name}[{index}].{key}.spi: {spi} is used already")
        used.update(spis.values())


def check_tunnel(name: str, table: Ipsec) -> None:
    """Check that a tunnel, if there is one, has both directions, and encrypts. Raises ConfigurationError."""
    tables = table.associations
    for key in ("tunnel_to_home_agent", "tunnel_to_mobile_node"):
        if key not in tables and len(tables) > 2:
            raise ConfigurationError(f"{name}.{key}: is missing; a tunnel has two directions")
        if key in tables and not (tables[key].encryption_key or tables[key].encryption_key_file):
            raise ConfigurationError(
                f"{name}.{key}.encryption_key: is missing; a Home Test has to be encrypted (RFC 3776 §4.3)"
            )


def check_ipsec(name: str, table: Ipsec | AnchorIpsec) -> None:
    """Check the keys and SPIs of one table. Raises ConfigurationError."""
    used: dict[int, str] = {}
    for key, each in table.associations.items():
        try:
            _association_of(each)
        except ValueError as error:
            raise ConfigurationError(f"{name}.{key}.{error}") from None
        if each.spi in used:  # or messages could be sent back to their sender
            raise ConfigurationError(f"{name}.{key}.spi: expected another than that of {used[each.spi]}")
        used[each.spi] = key


def _association_of(table: EspTable) -> Esp:
    """The association that a table describes. Raises ValueError, "key: what was expected"."""
    return esp(table.spi, table.key, table.key_file, table.encryption_key, table.encryption_key_file)


def ipsec_keys(table: Ipsec, home_address: IPv6Address, home_agent: IPv6Address) -> Keys:
    """The security associations between these two."""
    associations = {key: _association_of(each) for key, each in table.associations.items()}
    return Keys(home_address, home_agent, **associations)


def map_keys(table: AnchorIpsec, anchor_point: IPv6Address) -> Keys:
    """The same with an anchor point, which is to a regional address what a home agent is to a home address
    (draft §9)."""
    associations = (_association_of(table.to_anchor_point), _association_of(table.to_mobile_node))
    return Keys(table.regional_address, anchor_point, *associations)
