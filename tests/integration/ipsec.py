"""IPsec of tests' own making: keys, and ESP packets octet by octet. Functions: `needed`, `tables`, `esp`,
`protected`, `with_home_address`.

What is computed here is computed apart from the kernel. ESP is made without encryption.
"""

import hashlib
import hmac
import struct
from ipaddress import IPv6Address

import pytest
from agent_network import HOME_ADDRESS, HOME_AGENT
from datapath_network import ipv6
from signalling import checksummed

from testbed.datapath.protection import why_not

#: Name, SPI, authentication key, encryption key.
TO_HOME_AGENT = "to_home_agent", 0x1001, "11" * 32, "33" * 16
TO_MOBILE_NODE = "to_mobile_node", 0x1002, "22" * 32, "44" * 16
_DESTINATION_OPTIONS, _ESP, _MOBILITY_HEADER = 60, 50, 135


def needed() -> None:
    """Skip the test where this kernel cannot protect signalling."""
    missing = why_not()
    if missing is not None:
        pytest.skip(missing)


def tables(encrypted: bool = True, other: int = 0) -> str:
    """What stands in a table [ipsec] or [[ipsec]]; with `other` SPIs."""
    lines = []
    for name, spi, key, encryption in (TO_HOME_AGENT, TO_MOBILE_NODE):
        more = f', encryption_key = "{encryption}"' if encrypted else ""
        lines.append(f'{name} = {{ spi = {spi + other}, key = "{key}"{more} }}')
    return "\n".join(lines) + "\n"


def esp(association: tuple, sequence: int, payload: bytes, following: int, key: str | None = None) -> bytes:
    """An ESP header around `payload`, which the protocol `following` is of; `key`: another one than the
    association's."""
    _, spi, right, _ = association
    padding = bytes(range(1, 1 + (-2 - len(payload)) % 4))
    data = struct.pack("!II", spi, sequence) + payload + padding + bytes((len(padding), following))
    return data + hmac.new(bytes.fromhex(key or right), data, hashlib.sha256).digest()[:16]


def protected(
    header: bytes,
    care_of_address: str,
    sequence: int,
    home_address: str = HOME_ADDRESS,
    key: str | None = None,
) -> bytes:
    """A whole packet from the mobile node to the home agent around a Mobility Header."""
    message = checksummed(header, home_address, HOME_AGENT)
    data = esp(TO_HOME_AGENT, sequence, message, _MOBILITY_HEADER, key)
    return with_home_address(data, care_of_address, home_address)


def with_home_address(data: bytes, care_of_address: str, home_address: str) -> bytes:
    """A whole packet to the home agent: Home Address option, then ESP."""
    options = bytes((_ESP, 2, 1, 2, 0, 0, 0xC9, 16)) + IPv6Address(home_address).packed
    return ipv6(care_of_address, HOME_AGENT, _DESTINATION_OPTIONS, options + data)
