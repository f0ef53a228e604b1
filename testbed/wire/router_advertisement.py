"""Router Advertisements and their options (RFC 4861 §4, RFC 6275 §7, RFC 5380 §5), from octets and back.

Classes: `RouterAdvertisement`, `PrefixInformation`, `HomeAgentInformation`, `MobilityAnchorPoint`,
`SourceLinkLayerAddress`, `AdvertisementInterval`. Functions: `parse_options`, `encode_options`. Constructors
raise ValueError naming the field; `parse` raises ParseError.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import ClassVar, TypeAlias

from testbed.wire.error import ParseError

ROUTER_ADVERTISEMENT = 134
INFINITE_S = 0xFFFFFFFF  #: a lifetime that never ends
_LINK_LAYER_ALIGNMENT = 8


def _check(name: str, value: int, most: int, least: int = 0) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}, not {value}")


@dataclass(frozen=True, slots=True)
class PrefixInformation:
    """A prefix of the link (RFC 4861 §4.6.2). With `router_address` (R), `address` is the whole address of
    the sender on it (RFC 6275 §7.2). Lifetimes in seconds, INFINITE_S for ever."""

    option_type: ClassVar[int] = 3

    address: IPv6Address
    prefix_length: int = 64
    valid_lifetime_s: int = 2592000
    preferred_lifetime_s: int = 604800
    on_link: bool = True
    autonomous: bool = True
    router_address: bool = False

    def __post_init__(self) -> None:
        _check("prefix_length", self.prefix_length, 128)
        _check("valid_lifetime_s", self.valid_lifetime_s, INFINITE_S)
        _check("preferred_lifetime_s", self.preferred_lifetime_s, INFINITE_S)

    @property
    def prefix(self) -> IPv6Network:
        return IPv6Network((self.address, self.prefix_length), strict=False)

    @classmethod
    def parse(cls, data: bytes) -> "PrefixInformation | None":
        if len(data) != 30 or data[0] > 128:
            return None
        valid, preferred = struct.unpack_from("!II", data, 2)
        flags = data[1]
        return cls(
            IPv6Address(data[14:30]),
            data[0],
            valid,
            preferred,
            bool(flags & 0x80),
            bool(flags & 0x40),
            bool(flags & 0x20),
        )

    def __bytes__(self) -> bytes:
        flags = self.on_link << 7 | self.autonomous << 6 | self.router_address << 5
        address = self.address if self.router_address else self.prefix.network_address
        lifetimes = struct.pack("!III", self.valid_lifetime_s, self.preferred_lifetime_s, 0)
        return bytes((self.prefix_length, flags)) + lifetimes + address.packed


@dataclass(frozen=True, slots=True)
class HomeAgentInformation:
    """What a home agent says of itself (RFC 6275 §7.4). `preference`: 0 to 65535, more is better."""

    option_type: ClassVar[int] = 8

    preference: int
    lifetime_s: int

    def __post_init__(self) -> None:
        _check("preference", self.preference, 0xFFFF)
        _check("lifetime_s", self.lifetime_s, 0xFFFF)

    @classmethod
    def parse(cls, data: bytes) -> "HomeAgentInformation | None":
        return cls(*struct.unpack("!2xHH", data)) if len(data) == 6 else None

    def __bytes__(self) -> bytes:
        return struct.pack("!2xHH", self.preference, self.lifetime_s)


@dataclass(frozen=True, slots=True)
class MobilityAnchorPoint:
    """The MAP option (RFC 5380 §5). `distance`: 1 to 15 hops; `preference`: 0 (not to be used any more) to 15
    (the best); `valid_lifetime_s`: 0 says that it has failed."""

    option_type: ClassVar[int] = 23

    address: IPv6Address
    distance: int = 1
    preference: int = 15
    valid_lifetime_s: int = 600
    allocated: bool = False

    def __post_init__(self) -> None:
        _check("distance", self.distance, 15, 1)
        _check("preference", self.preference, 15)
        _check("valid_lifetime_s", self.valid_lifetime_s, INFINITE_S)

    @classmethod
    def parse(cls, data: bytes) -> "MobilityAnchorPoint | None":
        if len(data) != 22 or data[0] >> 4 == 0:  # RFC 5380 §5: a distance of zero MUST NOT be used
            return None
        (lifetime_s,) = struct.unpack_from("!I", data, 2)
        return cls(IPv6Address(data[6:22]), data[0] >> 4, data[0] & 0xF, lifetime_s, bool(data[1] & 0x80))

    def __bytes__(self) -> bytes:
        first = bytes((self.distance << 4 | self.preference, self.allocated << 7))
        return first + struct.pack("!I", self.valid_lifetime_s) + self.address.packed


@dataclass(frozen=True, slots=True)
class SourceLinkLayerAddress:
    """The sender's link-layer address (RFC 4861 §4.6.1), with the padding that it came with."""

    option_type: ClassVar[int] = 1

    address: bytes

    @classmethod
    def parse(cls, data: bytes) -> "SourceLinkLayerAddress | None":
        return cls(data)

    def __bytes__(self) -> bytes:
        return self.address + bytes(-(2 + len(self.address)) % _LINK_LAYER_ALIGNMENT)


@dataclass(frozen=True, slots=True)
class AdvertisementInterval:
    """How often at least the sender advertises, in milliseconds (RFC 6275 §7.3)."""

    option_type: ClassVar[int] = 7

    interval_ms: int

    @classmethod
    def parse(cls, data: bytes) -> "AdvertisementInterval | None":
        return cls(*struct.unpack("!2xI", data)) if len(data) == 6 else None

    def __bytes__(self) -> bytes:
        return struct.pack("!2xI", self.interval_ms)


Option: TypeAlias = (
    PrefixInformation
    | HomeAgentInformation
    | MobilityAnchorPoint
    | SourceLinkLayerAddress
    | AdvertisementInterval
)
_OPTIONS = {kind.option_type: kind for kind in Option.__args__}


def parse_options(data: bytes) -> tuple[Option, ...]:
    """The options that are known and right; others are skipped (RFC 4861 §6.1.2). Raises ParseError."""
    found = []
    offset = 0
    while offset < len(data):
        length = data[offset + 1] * 8 if offset + 1 < len(data) else 0
        if not length or offset + length > len(data):
            raise ParseError("Neighbour Discovery option has length 0 or is truncated")
        kind = _OPTIONS.get(data[offset])
        option = kind.parse(data[offset + 2 : offset + length]) if kind else None
        if option is not None:
            found.append(option)
        offset += length
    return tuple(found)


def encode_options(options: tuple[Option, ...]) -> bytes:
    """Their octets, one after the other."""
    parts = []
    for option in options:
        data = bytes(option)
        parts.append(bytes((option.option_type, (2 + len(data)) // 8)) + data)
    return b"".join(parts)


@dataclass(frozen=True, slots=True)
class RouterAdvertisement:
    """What a router says of itself and its link. `router_lifetime_s` 0: it is not a default router."""

    router_lifetime_s: int
    options: tuple[Option, ...] = ()
    home_agent: bool = False
    managed: bool = False
    other: bool = False
    hop_limit: int = 64

    def __post_init__(self) -> None:
        _check("router_lifetime_s", self.router_lifetime_s, 0xFFFF)

    @classmethod
    def parse(cls, data: bytes) -> "RouterAdvertisement":
        """From an ICMPv6 message whose checksum was right. Raises ParseError."""
        if len(data) < 16 or data[0] != ROUTER_ADVERTISEMENT or data[1] != 0:
            raise ParseError("Router Advertisement is truncated or has a code other than 0")
        flags = data[5]
        (lifetime_s,) = struct.unpack_from("!H", data, 6)
        options = parse_options(data[16:])
        return cls(
            lifetime_s, options, bool(flags & 0x20), bool(flags & 0x80), bool(flags & 0x40), data[4]
        )

    def __bytes__(self) -> bytes:
        """The ICMPv6 message, its checksum zero: the kernel fills it in."""
        flags = self.managed << 7 | self.other << 6 | self.home_agent << 5
        header = struct.pack(
            "!BBHBBHII", ROUTER_ADVERTISEMENT, 0, 0, self.hop_limit, flags, self.router_lifetime_s, 0, 0
        )
        return header + encode_options(self.options)

    def all_options(self, kind: type[Option]) -> tuple[Option, ...]:
        """The options of this class, in order."""
        return tuple(option for option in self.options if isinstance(option, kind))

    def option(self, kind: type[Option]) -> Option | None:
        """The first option of this class, None if there is none."""
        return next(iter(self.all_options(kind)), None)
