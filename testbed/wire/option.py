"""Mobility options as dataclasses (RFC 6275 §6.2 and what extends it), flow options excepted.

`parse` takes and `bytes()` gives the option's data, that is, what follows type and length. `alignment` is
`(x, y)`: the option's type is at an offset x*n + y from the start of the Mobility Header. `OPTIONS` maps the
option types to the classes. Padding options are the codec's and never seen.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from struct import Struct
from typing import ClassVar, TypeAlias

from testbed.wire.error import ParseError

_U16 = Struct(">H")
_U16_U16 = Struct(">HH")
_MESSAGE_AUTHENTICATION = Struct(">BI")
_BINDING_IDENTIFIER = Struct(">HBB")

Alignment: TypeAlias = tuple[int, int]


def check_range(name: str, value: int, limit: int) -> None:
    """Raise ValueError unless the number `value` of the field `name` lies in 0..`limit`."""
    if not isinstance(value, int) or not 0 <= value <= limit:
        raise ValueError(f"{name} must be from 0 to {limit}, not {value!r}")


def _check_address(name: str, value: object, *types: type) -> None:
    if type(value) not in types:
        raise ValueError(f"{name} must be {' or '.join(kind.__name__ for kind in types)}, not {value!r}")


def _expect(option: type, data: bytes, *lengths: int) -> None:
    """Raise ParseError unless the option's data has one of these lengths."""
    if len(data) not in lengths:
        expected = " or ".join(map(str, lengths))
        raise ParseError(f"{option.__name__} option has length {len(data)}, expected {expected}")


class MobilityOption:
    """Base of all mobility options. `parse` takes the contents, without type and length, and raises
    ParseError in one sentence; `bytes` gives them. A field that cannot be sent raises ValueError as the
    option is made.
    """

    __slots__ = ()
    option_type: ClassVar[int]
    alignment: Alignment = (1, 0)


@dataclass(frozen=True, slots=True)
class BindingRefreshAdvice(MobilityOption):
    """When to register anew (RFC 6275 §6.2.4): seconds, a multiple of 4."""

    option_type: ClassVar[int] = 2
    alignment: ClassVar[Alignment] = (2, 0)

    refresh_interval_s: int

    def __post_init__(self) -> None:
        check_lifetime("refresh_interval_s", self.refresh_interval_s)

    @classmethod
    def parse(cls, data: bytes) -> "BindingRefreshAdvice":
        _expect(cls, data, 2)
        return cls(4 * _U16.unpack(data)[0])

    def __bytes__(self) -> bytes:
        return _U16.pack(self.refresh_interval_s // 4)


def check_lifetime(name: str, seconds: int) -> None:
    """Raise ValueError unless `seconds` can be sent as 16 bits in units of four seconds (RFC 6275 §6.1.7)."""
    if seconds >> 18 or seconds & 3:
        check_range(name, seconds, 4 * 0xFFFF)
        raise ValueError(f"{name} must be a multiple of 4, not {seconds}")


@dataclass(frozen=True, slots=True)
class AlternateCareOfAddress(MobilityOption):
    """The care-of address to bind in place of the packet's source address (RFC 6275 §6.2.5)."""

    option_type: ClassVar[int] = 3
    alignment: ClassVar[Alignment] = (8, 6)

    care_of_address: IPv6Address

    def __post_init__(self) -> None:
        _check_address("care_of_address", self.care_of_address, IPv6Address)

    @classmethod
    def parse(cls, data: bytes) -> "AlternateCareOfAddress":
        _expect(cls, data, 16)
        return cls(IPv6Address(data))

    def __bytes__(self) -> bytes:
        return self.care_of_address.packed


@dataclass(frozen=True, slots=True)
class NonceIndices(MobilityOption):
    """Which nonces the correspondent node made the keygen tokens with (RFC 6275 §6.2.6)."""

    option_type: ClassVar[int] = 4
    alignment: ClassVar[Alignment] = (2, 0)

    home_nonce_index: int
    care_of_nonce_index: int

    def __post_init__(self) -> None:
        check_range("home_nonce_index", self.home_nonce_index, 0xFFFF)
        check_range("care_of_nonce_index", self.care_of_nonce_index, 0xFFFF)

    @classmethod
    def parse(cls, data: bytes) -> "NonceIndices":
        _expect(cls, data, 4)
        return cls(*_U16_U16.unpack(data))

    def __bytes__(self) -> bytes:
        return _U16_U16.pack(self.home_nonce_index, self.care_of_nonce_index)


@dataclass(frozen=True, slots=True)
class BindingAuthorizationData(MobilityOption):
    """Authenticator of a return routability registration, always the last option (RFC 6275 §6.2.7)."""

    option_type: ClassVar[int] = 5

    authenticator: bytes

    @property
    def alignment(self) -> Alignment:
        """Such that nothing follows: 8n + 2 for an authenticator of 12 octets."""
        return (8, -(2 + len(self.authenticator)) % 8)

    @classmethod
    def parse(cls, data: bytes) -> "BindingAuthorizationData":
        return cls(data)

    def __bytes__(self) -> bytes:
        return self.authenticator


@dataclass(frozen=True, slots=True)
class MobileNetworkPrefix(MobilityOption):
    """A prefix behind a mobile router (RFC 3963 §4.3). Bits past the prefix length are dropped at receipt."""

    option_type: ClassVar[int] = 6
    alignment: ClassVar[Alignment] = (8, 4)

    prefix: IPv6Network

    def __post_init__(self) -> None:
        _check_address("prefix", self.prefix, IPv6Network)

    @classmethod
    def parse(cls, data: bytes) -> "MobileNetworkPrefix":
        _expect(cls, data, 18)
        if data[1] > 128:
            raise ParseError(f"MobileNetworkPrefix option has a prefix of {data[1]} bits")
        return cls(IPv6Network((data[2:], data[1]), strict=False))

    def __bytes__(self) -> bytes:
        return bytes((0, self.prefix.prefixlen)) + self.prefix.network_address.packed


@dataclass(frozen=True, slots=True)
class LinkLayerAddress(MobilityOption):
    """A link-layer address in a mobility message (RFC 5568 §6.4.4)."""

    option_type: ClassVar[int] = 7
    #: The option code of the mobile node's own address.
    OF_MOBILE_NODE: ClassVar[int] = 2

    option_code: int
    address: bytes

    def __post_init__(self) -> None:
        check_range("option_code", self.option_code, 0xFF)

    @classmethod
    def parse(cls, data: bytes) -> "LinkLayerAddress":
        if not data:
            raise ParseError("LinkLayerAddress option has no option code")
        return cls(data[0], data[1:])

    def __bytes__(self) -> bytes:
        return bytes((self.option_code,)) + self.address


@dataclass(frozen=True, slots=True)
class MobileNodeIdentifier(MobilityOption):
    """Who the mobile node is, whatever its addresses (RFC 4283 §3). Subtype 1: network access identifier."""

    option_type: ClassVar[int] = 8

    subtype: int
    identifier: bytes

    def __post_init__(self) -> None:
        check_range("subtype", self.subtype, 0xFF)

    @classmethod
    def parse(cls, data: bytes) -> "MobileNodeIdentifier":
        if not data:
            raise ParseError("MobileNodeIdentifier option has no subtype")
        return cls(data[0], data[1:])

    def __bytes__(self) -> bytes:
        return bytes((self.subtype,)) + self.identifier


@dataclass(frozen=True, slots=True)
class MobilityMessageAuthentication(MobilityOption):
    """Proof of origin by a shared key (RFC 4285 §5). Subtype 1 is MN-HA, 2 is MN-AAA."""

    option_type: ClassVar[int] = 9
    alignment: ClassVar[Alignment] = (4, 1)

    subtype: int
    spi: int
    authenticator: bytes

    def __post_init__(self) -> None:
        if self.subtype >> 8 or self.spi >> 32:
            check_range("subtype", self.subtype, 0xFF)
            check_range("spi", self.spi, 0xFFFFFFFF)

    @classmethod
    def parse(cls, data: bytes) -> "MobilityMessageAuthentication":
        if len(data) < 5:
            raise ParseError(f"{cls.__name__} option has length {len(data)}, expected 5 or more")
        return cls(*_MESSAGE_AUTHENTICATION.unpack_from(data), data[5:])

    def __bytes__(self) -> bytes:
        return _MESSAGE_AUTHENTICATION.pack(self.subtype, self.spi) + self.authenticator


@dataclass(frozen=True, slots=True)
class MessageIdentifier(MobilityOption):
    """Replay protection: an NTP timestamp, seconds since 1900 times 2**32 (RFC 4285 §6)."""

    option_type: ClassVar[int] = 10
    alignment: ClassVar[Alignment] = (8, 2)

    timestamp: int

    def __post_init__(self) -> None:
        if self.timestamp >> 64:
            check_range("timestamp", self.timestamp, 2**64 - 1)

    @classmethod
    def parse(cls, data: bytes) -> "MessageIdentifier":
        _expect(cls, data, 8)
        return cls(int.from_bytes(data, "big"))

    def __bytes__(self) -> bytes:
        return self.timestamp.to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class BindingIdentifier(MobilityOption):
    """One of several bindings of a home address (RFC 5648 §4.3), with its priority (RFC 6089 §4.1).

    `status` counts in a Binding Acknowledgement, `home` is the H flag, a lower `priority` (7 bits) is
    preferred and 0 means that none was given. BID 0 is reserved, what to do about one is the receiver's
    business.
    """

    option_type: ClassVar[int] = 35

    bid: int
    status: int = 0
    home: bool = False
    priority: int = 0
    care_of_address: IPv6Address | IPv4Address | None = None

    def __post_init__(self) -> None:
        if self.bid >> 16 or self.status >> 8 or self.priority >> 7:  # one look, as it is always right
            check_range("bid", self.bid, 0xFFFF)
            check_range("status", self.status, 0xFF)
            check_range("priority", self.priority, 0x7F)
        if type(self.care_of_address) is not IPv6Address and self.care_of_address is not None:
            _check_address("care_of_address", self.care_of_address, IPv6Address, IPv4Address)

    @property
    def alignment(self) -> Alignment:
        return (2, 0) if self.care_of_address is None else (8, 2)

    @classmethod
    def parse(cls, data: bytes) -> "BindingIdentifier":
        _expect(cls, data, 4, 8, 20)
        bid, status, home_and_priority = _BINDING_IDENTIFIER.unpack_from(data)
        address = None
        if len(data) == 20:
            address = IPv6Address(data[4:])
        elif len(data) == 8:
            address = IPv4Address(data[4:])
        return cls(bid, status, home_and_priority >= 0x80, home_and_priority & 0x7F, address)

    def __bytes__(self) -> bytes:
        data = _BINDING_IDENTIFIER.pack(self.bid, self.status, self.home << 7 | self.priority)
        return data if self.care_of_address is None else data + self.care_of_address.packed


@dataclass(frozen=True, slots=True)
class FlowSummary(MobilityOption):
    """Flow bindings to keep as they are (RFC 6089 §4.2.2; not in the draft)."""

    option_type: ClassVar[int] = 44
    alignment: ClassVar[Alignment] = (2, 0)

    fids: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.fids:
            raise ValueError("fids must name at least one flow binding")
        for fid in self.fids:
            check_range("fids", fid, 0xFFFF)

    @classmethod
    def parse(cls, data: bytes) -> "FlowSummary":
        if not data or len(data) % 2:
            raise ParseError(f"FlowSummary option has length {len(data)}, expected a multiple of 2")
        return cls(unpack_u16s(data))

    def __bytes__(self) -> bytes:
        return pack_u16s(self.fids)


def pack_u16s(numbers: tuple[int, ...]) -> bytes:
    """Return `numbers` as 16 bits each."""
    return b"".join(map(_U16.pack, numbers))


def unpack_u16s(data: bytes) -> tuple[int, ...]:
    """Return the 16-bit numbers in `data`, whose length is even."""
    return tuple(number for number, in _U16.iter_unpack(data))


@dataclass(frozen=True, slots=True)
class UnknownOption(MobilityOption):
    """An option of a type that is not known here, to be skipped (RFC 6275 §6.2.1)."""

    type: int
    data: bytes = b""

    def __post_init__(self) -> None:
        check_range("type", self.type, 0xFF)

    @property
    def option_type(self) -> int:
        return self.type

    def __bytes__(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class MalformedOption(MobilityOption):
    """An option of a known type whose data is not as it should be, where that is answered by a status.

    Example: MCOA MALFORMED (RFC 5648 §4.4). `reason` is a sentence.
    """

    type: int
    data: bytes
    reason: str

    @property
    def option_type(self) -> int:
        return self.type

    def __bytes__(self) -> bytes:
        return self.data


#: The class of each option type that does not depend on the dialect.
OPTIONS: dict[int, type[MobilityOption]] = {
    option.option_type: option
    for option in (
        BindingRefreshAdvice,
        AlternateCareOfAddress,
        NonceIndices,
        BindingAuthorizationData,
        MobileNetworkPrefix,
        LinkLayerAddress,
        MobileNodeIdentifier,
        MobilityMessageAuthentication,
        MessageIdentifier,
        BindingIdentifier,
    )
}
