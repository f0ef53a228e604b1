"""ICMPv6 Parameter Problem, the answer to a packet that could not be understood (RFC 4443 §3.4).

Function: `parameter_problem`.
"""

from ipaddress import IPv6Address

from testbed.wire.checksum import checksum
from testbed.wire.icmpv6 import ICMPV6

_PARAMETER_PROBLEM = 4
_HEADER_OCTETS = 48  # IPv6 and ICMPv6
_MINIMUM_MTU = 1280


def parameter_problem(packet: bytes, code: int, pointer: int, hop_limit: int = 64) -> bytes:
    """Return the IPv6 packet that tells the sender of the IPv6 packet `packet` what is wrong with it.

    `pointer` is the offset in octets of the field at fault. As much of the packet comes back as fits in the
    least MTU of IPv6.
    """
    source, destination = IPv6Address(packet[24:40]), IPv6Address(packet[8:24])
    invoking = packet[: _MINIMUM_MTU - _HEADER_OCTETS]
    message = bytearray((_PARAMETER_PROBLEM, code, 0, 0)) + pointer.to_bytes(4, "big") + invoking
    message[2:4] = checksum(bytes(message), source, destination, ICMPV6).to_bytes(2, "big")
    return (
        bytes((0x60, 0, 0, 0))
        + len(message).to_bytes(2, "big")
        + bytes((ICMPV6, hop_limit))
        + source.packed
        + destination.packed
        + bytes(message)
    )
