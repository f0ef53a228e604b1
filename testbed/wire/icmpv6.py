"""The ICMPv6 messages of Mobile IPv6 (RFC 6275 §6.5 to §6.8, RFC 3963 §7), from octets and back.

Classes: `HomeAgentAddressDiscoveryRequest`, `HomeAgentAddressDiscoveryReply`, `MobilePrefixSolicitation`,
`MobilePrefixAdvertisement`. Functions: `parse_icmpv6`, `build_icmpv6`, `home_agents_anycast`. A class's
`parse` takes identifier, flags and what follows, and raises ParseError; `encode` gives the latter two.
"""

from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import ClassVar, TypeAlias

from testbed.wire.checksum import checksum
from testbed.wire.error import ParseError
from testbed.wire.router_advertisement import PrefixInformation, encode_options, parse_options

ICMPV6 = 58  #: next header value
_MOBILE_ROUTERS = 0x80
_HOME_AGENTS = 0x7E  # RFC 2526 §3


@dataclass(frozen=True, slots=True)
class HomeAgentAddressDiscoveryRequest:
    """Asks which home agents there are (RFC 6275 §6.5); `mobile_router`: that serve mobile routers."""

    icmp_type: ClassVar[int] = 144

    identifier: int
    mobile_router: bool = False

    @classmethod
    def parse(cls, identifier: int, flags: int, data: bytes) -> "HomeAgentAddressDiscoveryRequest":
        return cls(identifier, bool(flags & _MOBILE_ROUTERS))

    def encode(self) -> tuple[int, bytes]:
        return self.mobile_router * _MOBILE_ROUTERS, b""


@dataclass(frozen=True, slots=True)
class HomeAgentAddressDiscoveryReply:
    """The home agents of the home link, the best first (RFC 6275 §6.6)."""

    icmp_type: ClassVar[int] = 145

    identifier: int
    addresses: tuple[IPv6Address, ...]
    mobile_router: bool = False

    @classmethod
    def parse(cls, identifier: int, flags: int, data: bytes) -> "HomeAgentAddressDiscoveryReply":
        if len(data) % 16:
            raise ParseError(f"list of home agents has {len(data)} octets, no multiple of 16")
        addresses = tuple(IPv6Address(data[start : start + 16]) for start in range(0, len(data), 16))
        return cls(identifier, addresses, bool(flags & _MOBILE_ROUTERS))

    def encode(self) -> tuple[int, bytes]:
        packed = b"".join(address.packed for address in self.addresses)
        return self.mobile_router * _MOBILE_ROUTERS, packed


@dataclass(frozen=True, slots=True)
class MobilePrefixSolicitation:
    """Asks for the prefixes of the home link (RFC 6275 §6.7)."""

    icmp_type: ClassVar[int] = 146

    identifier: int

    @classmethod
    def parse(cls, identifier: int, flags: int, data: bytes) -> "MobilePrefixSolicitation":
        parse_options(data)
        return cls(identifier)

    def encode(self) -> tuple[int, bytes]:
        return 0, b""


@dataclass(frozen=True, slots=True)
class MobilePrefixAdvertisement:
    """The prefixes of the home link (RFC 6275 §6.8)."""

    icmp_type: ClassVar[int] = 147

    identifier: int
    prefixes: tuple[PrefixInformation, ...]
    managed: bool = False
    other: bool = False

    @classmethod
    def parse(cls, identifier: int, flags: int, data: bytes) -> "MobilePrefixAdvertisement":
        options = parse_options(data)
        prefixes = tuple(option for option in options if isinstance(option, PrefixInformation))
        return cls(identifier, prefixes, bool(flags & 0x80), bool(flags & 0x40))

    def encode(self) -> tuple[int, bytes]:
        return self.managed << 7 | self.other << 6, encode_options(self.prefixes)


Icmpv6Message: TypeAlias = (
    HomeAgentAddressDiscoveryRequest
    | HomeAgentAddressDiscoveryReply
    | MobilePrefixSolicitation
    | MobilePrefixAdvertisement
)
_MESSAGES = {kind.icmp_type: kind for kind in Icmpv6Message.__args__}


def parse_icmpv6(data: bytes, source: IPv6Address, destination: IPv6Address) -> Icmpv6Message:
    """The message in `data`; the addresses are those of the pseudo-header, home addresses where there is a
    Home Address option or a type 2 routing header. Raises ParseError for what is to be discarded."""
    if len(data) < 8:
        raise ParseError(f"ICMPv6 message of {len(data)} octets is truncated")
    kind = _MESSAGES.get(data[0])
    if kind is None or data[1] != 0:
        raise ParseError(f"ICMPv6 message of type {data[0]}, code {data[1]} is not of Mobile IPv6")
    if checksum(data, source, destination, ICMPV6) != 0:
        raise ParseError("ICMPv6 message has a wrong checksum")
    return kind.parse(int.from_bytes(data[4:6], "big"), data[6], data[8:])


def build_icmpv6(message: Icmpv6Message, source: IPv6Address, destination: IPv6Address) -> bytes:
    """The octets, with their checksum."""
    flags, data = message.encode()
    head, tail = bytes((message.icmp_type, 0)), message.identifier.to_bytes(2, "big") + bytes((flags, 0))
    total = checksum(head + bytes(2) + tail + data, source, destination, ICMPV6)
    return head + total.to_bytes(2, "big") + tail + data


def home_agents_anycast(prefix: IPv6Network) -> IPv6Address:
    """The Mobile IPv6 Home-Agents anycast address of a home link (RFC 2526 §2, §3)."""
    ones = (1 << 128 - prefix.prefixlen) - 1
    if prefix.prefixlen == 64:
        ones &= ~(1 << 57)  # an interface identifier in EUI-64 format: the universal/local bit is 0
    return IPv6Address(int(prefix.network_address) | ones & ~0x7F | _HOME_AGENTS)
