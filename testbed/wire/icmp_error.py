"""ICMPv6 errors about packets that this node has sent (RFC 4443 §3.1, §3.4).

Class: `IcmpError`. Function: `care_of_path`.
"""

from dataclasses import dataclass
from ipaddress import IPv6Address

from testbed.wire.error import ParseError

DESTINATION_UNREACHABLE, PARAMETER_PROBLEM = 1, 4
#: Codes of Destination Unreachable and of Parameter Problem.
PORT_UNREACHABLE = 4
UNRECOGNIZED_NEXT_HEADER, UNRECOGNIZED_OPTION = 1, 2

_HEADER_OCTETS = 8
_ROUTING = 43


@dataclass(frozen=True, slots=True)
class IcmpError:
    """Who says what of a packet; `quoted`: as much of that packet as has come back, IPv6 header first."""

    source: IPv6Address
    kind: int
    code: int
    quoted: bytes

    @classmethod
    def parse(cls, source: IPv6Address, data: bytes) -> "IcmpError":
        """`data` is the ICMPv6 message, whose checksum is right. Raises ParseError."""
        if len(data) < _HEADER_OCTETS + 40 or data[_HEADER_OCTETS] >> 4 != 6:
            raise ParseError(f"ICMPv6 error of {len(data)} octets quotes no IPv6 header")
        return cls(source, data[0], data[1], bytes(data[_HEADER_OCTETS:]))


def care_of_path(quoted: bytes) -> tuple[IPv6Address, IPv6Address, IPv6Address] | None:
    """Of a quoted packet with a type 2 routing header: its source, the care-of address that it was sent to,
    and the home address (RFC 6275 §6.4). None for all other packets."""
    if len(quoted) < 64 or quoted[6] != _ROUTING or quoted[41:44] != b"\2\2\1":
        return None
    return IPv6Address(quoted[8:24]), IPv6Address(quoted[24:40]), IPv6Address(quoted[48:64])
