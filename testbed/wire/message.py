"""Mobility Header messages (RFC 6275 §6.1) as dataclasses, and the codes in them.

`MESSAGES` maps MH types to classes. All lifetimes are in seconds and a multiple of 4; cookies and keygen
tokens have 8 octets. Constructors raise ValueError naming the field. Header, options and checksum are the
codec's.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv6Address
from struct import Struct
from typing import ClassVar, TypeAlias, TypeVar

from testbed.wire.option import MobilityOption, check_lifetime, check_range

Option = TypeVar("Option", bound=MobilityOption)
MessageType = TypeVar("MessageType", bound="MobilityMessage")
Options: TypeAlias = tuple[MobilityOption, ...]


class Status(IntEnum):
    """Status of a Binding Acknowledgement; up to 127 the Binding Update was accepted.

    RFC 6275 §6.1.8, RFC 3963 §4.2 (140..143), RFC 4285 §7 (144..146), RFC 5648 §4.4 (4, 5, 164..169).
    """

    BINDING_UPDATE_ACCEPTED = 0
    ACCEPTED_BUT_PREFIX_DISCOVERY_NECESSARY = 1
    MCOA_NOTCOMPLETE = 4
    MCOA_RETURNHOME_WO_NDP = 5
    REASON_UNSPECIFIED = 128
    ADMINISTRATIVELY_PROHIBITED = 129
    INSUFFICIENT_RESOURCES = 130
    HOME_REGISTRATION_NOT_SUPPORTED = 131
    NOT_HOME_SUBNET = 132
    NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE = 133
    DUPLICATE_ADDRESS_DETECTION_FAILED = 134
    SEQUENCE_NUMBER_OUT_OF_WINDOW = 135
    EXPIRED_HOME_NONCE_INDEX = 136
    EXPIRED_CARE_OF_NONCE_INDEX = 137
    EXPIRED_NONCES = 138
    REGISTRATION_TYPE_CHANGE_DISALLOWED = 139
    MOBILE_ROUTER_OPERATION_NOT_PERMITTED = 140
    INVALID_PREFIX = 141
    NOT_AUTHORIZED_FOR_PREFIX = 142
    FORWARDING_SETUP_FAILED = 143
    MIPV6_ID_MISMATCH = 144
    MIPV6_MESG_ID_REQD = 145
    MIPV6_AUTH_FAIL = 146
    MCOA_MALFORMED = 164
    MCOA_NON_MCOA_BINDING_EXISTS = 165
    MCOA_PROHIBITED = 166
    MCOA_UNKNOWN_COA = 167
    MCOA_BULK_REGISTRATION_PROHIBITED = 168
    MCOA_SIMULTANEOUS_HOME_AND_FOREIGN_PROHIBITED = 169
    INVALID_CARE_OF_ADDRESS = 174


class BindingErrorStatus(IntEnum):
    """Status of a Binding Error (RFC 6275 §6.1.9)."""

    UNKNOWN_BINDING = 1
    UNRECOGNIZED_MH_TYPE = 2


class MobilityMessage:
    """Base of all messages: `mh_type`, and `fixed`, the layout of what lies between checksum and options."""

    #: The options by class, made when it is asked for one of them: a Binding Update is asked a dozen times.
    __slots__ = ("_by_class",)
    mh_type: ClassVar[int]
    fixed: ClassVar[Struct]
    options: Options

    @classmethod
    def parse(cls, values: tuple, options: Options) -> "MobilityMessage":
        """Return the message with these `values` of the fixed part and these options."""
        return cls(*values, options)

    def values(self) -> tuple:
        """Return the values of the fixed part."""
        return tuple(getattr(self, name) for name in self.__slots__[:-1])

    def with_options(self: "MessageType", options: Options) -> "MessageType":
        """Return the same message with these options in place of its own."""
        return type(self)(*[getattr(self, name) for name in self.__slots__[:-1]], options)

    def option(self, kind: type[Option]) -> Option | None:
        """Return the first option of this class, None if there is none."""
        found = self.all_options(kind)
        return found[0] if found else None

    def all_options(self, kind: type[Option]) -> tuple[Option, ...]:
        """Return all options of this class, in the order of the message."""
        try:
            return self._by_class.get(kind, ())
        except AttributeError:
            found: dict[type, tuple] = {}
            for option in self.options:
                found[type(option)] = (*found.get(type(option), ()), option)
            object.__setattr__(self, "_by_class", found)
            return found.get(kind, ())

    def __post_init__(self) -> None:
        _as_tuple(self)


def _as_tuple(message: MobilityMessage) -> None:
    """Make the options of a new message a tuple, whatever sequence they were given as."""
    if type(message.options) is not tuple:
        object.__setattr__(message, "options", tuple(message.options))


def _check_octets(name: str, value: bytes) -> None:
    if not isinstance(value, bytes) or len(value) != 8:
        raise ValueError(f"{name} must be 8 octets, not {value!r}")


@dataclass(frozen=True, slots=True)
class BindingRefreshRequest(MobilityMessage):
    """Asks a mobile node to register anew (RFC 6275 §6.1.2)."""

    mh_type: ClassVar[int] = 0
    fixed: ClassVar[Struct] = Struct(">2x")

    options: Options = ()


@dataclass(frozen=True, slots=True)
class HomeTestInit(MobilityMessage):
    """Asks for a home keygen token (RFC 6275 §6.1.3)."""

    mh_type: ClassVar[int] = 1
    fixed: ClassVar[Struct] = Struct(">2x8s")

    home_init_cookie: bytes
    options: Options = ()

    def __post_init__(self) -> None:
        _as_tuple(self)
        _check_octets("home_init_cookie", self.home_init_cookie)


@dataclass(frozen=True, slots=True)
class CareOfTestInit(MobilityMessage):
    """Asks for a care-of keygen token (RFC 6275 §6.1.4)."""

    mh_type: ClassVar[int] = 2
    fixed: ClassVar[Struct] = Struct(">2x8s")

    care_of_init_cookie: bytes
    options: Options = ()

    def __post_init__(self) -> None:
        _as_tuple(self)
        _check_octets("care_of_init_cookie", self.care_of_init_cookie)


@dataclass(frozen=True, slots=True)
class HomeTest(MobilityMessage):
    """Gives a home keygen token (RFC 6275 §6.1.5)."""

    mh_type: ClassVar[int] = 3
    fixed: ClassVar[Struct] = Struct(">H8s8s")

    home_nonce_index: int
    home_init_cookie: bytes
    home_keygen_token: bytes
    options: Options = ()

    def __post_init__(self) -> None:
        _as_tuple(self)
        check_range("home_nonce_index", self.home_nonce_index, 0xFFFF)
        _check_octets("home_init_cookie", self.home_init_cookie)
        _check_octets("home_keygen_token", self.home_keygen_token)


@dataclass(frozen=True, slots=True)
class CareOfTest(MobilityMessage):
    """Gives a care-of keygen token (RFC 6275 §6.1.6)."""

    mh_type: ClassVar[int] = 4
    fixed: ClassVar[Struct] = Struct(">H8s8s")

    care_of_nonce_index: int
    care_of_init_cookie: bytes
    care_of_keygen_token: bytes
    options: Options = ()

    def __post_init__(self) -> None:
        _as_tuple(self)
        check_range("care_of_nonce_index", self.care_of_nonce_index, 0xFFFF)
        _check_octets("care_of_init_cookie", self.care_of_init_cookie)
        _check_octets("care_of_keygen_token", self.care_of_keygen_token)


@dataclass(frozen=True, slots=True)
class BindingUpdate(MobilityMessage):
    """Registers or removes bindings (RFC 6275 §6.1.7).

    Flags: A, H, L, K of RFC 6275; M of RFC 5380 §4; R of RFC 3963 §4.1; O of RFC 5648 §4.2.
    """

    mh_type: ClassVar[int] = 5
    fixed: ClassVar[Struct] = Struct(">HHH")

    sequence: int
    lifetime_s: int
    acknowledge: bool = False
    home_registration: bool = False
    link_local_compatibility: bool = False
    key_management: bool = False
    map_registration: bool = False
    mobile_router: bool = False
    overwrite: bool = False
    options: Options = ()

    def __post_init__(self) -> None:
        if type(self.options) is not tuple:
            _as_tuple(self)
        if self.sequence >> 16 or self.lifetime_s >> 18 or self.lifetime_s & 3:
            check_range("sequence", self.sequence, 0xFFFF)
            check_lifetime("lifetime_s", self.lifetime_s)

    @classmethod
    def parse(cls, values: tuple, options: Options) -> "BindingUpdate":
        sequence, flags, lifetime = values
        return cls(
            sequence,
            4 * lifetime,
            flags & 0x8000 != 0,
            flags & 0x4000 != 0,
            flags & 0x2000 != 0,
            flags & 0x1000 != 0,
            flags & 0x0800 != 0,
            flags & 0x0400 != 0,
            flags & 0x0040 != 0,
            options,
        )

    def values(self) -> tuple:
        flags = (
            self.acknowledge << 15
            | self.home_registration << 14
            | self.link_local_compatibility << 13
            | self.key_management << 12
            | self.map_registration << 11
            | self.mobile_router << 10
            | self.overwrite << 6
        )
        return (self.sequence, flags, self.lifetime_s // 4)


@dataclass(frozen=True, slots=True)
class BindingAcknowledgement(MobilityMessage):
    """Answers a Binding Update (RFC 6275 §6.1.8). Flags: K, and R of RFC 3963 §4.2."""

    mh_type: ClassVar[int] = 6
    fixed: ClassVar[Struct] = Struct(">BBHH")

    status: int
    sequence: int
    lifetime_s: int
    key_management: bool = False
    mobile_router: bool = False
    options: Options = ()

    def __post_init__(self) -> None:
        if type(self.options) is not tuple:
            _as_tuple(self)
        if self.status >> 8 or self.sequence >> 16 or self.lifetime_s >> 18 or self.lifetime_s & 3:
            check_range("status", self.status, 0xFF)
            check_range("sequence", self.sequence, 0xFFFF)
            check_lifetime("lifetime_s", self.lifetime_s)

    @classmethod
    def parse(cls, values: tuple, options: Options) -> "BindingAcknowledgement":
        status, flags, sequence, lifetime = values
        return cls(
            _STATUS.get(status, status), sequence, 4 * lifetime, flags & 0x80 != 0, flags & 0x40 != 0, options
        )

    def values(self) -> tuple:
        flags = self.key_management << 7 | self.mobile_router << 6
        return (self.status, flags, self.sequence, self.lifetime_s // 4)


_STATUS = {int(status): status for status in Status}


@dataclass(frozen=True, slots=True)
class BindingError(MobilityMessage):
    """Says that a packet could not be processed for want of a binding (RFC 6275 §6.1.9)."""

    mh_type: ClassVar[int] = 7
    fixed: ClassVar[Struct] = Struct(">Bx16s")

    status: int
    home_address: IPv6Address
    options: Options = ()

    def __post_init__(self) -> None:
        _as_tuple(self)
        check_range("status", self.status, 0xFF)
        if not isinstance(self.home_address, IPv6Address):
            raise ValueError(f"home_address must be IPv6Address, not {self.home_address!r}")

    @classmethod
    def parse(cls, values: tuple, options: Options) -> "BindingError":
        status, address = values
        return cls(status, IPv6Address(address), options)

    def values(self) -> tuple:
        return (self.status, self.home_address.packed)


@dataclass(frozen=True, slots=True)
class UnknownMessage(MobilityMessage):
    """A message of an MH type that is not known here, to be answered by a Binding Error (RFC 6275 §9.2).

    `data` is all that follows the checksum; it has no options.
    """

    type: int
    data: bytes
    options: Options = field(default=(), init=False)

    def __post_init__(self) -> None:
        check_range("type", self.type, 0xFF)

    @property
    def mh_type(self) -> int:
        return self.type


Message: TypeAlias = (
    BindingRefreshRequest
    | HomeTestInit
    | CareOfTestInit
    | HomeTest
    | CareOfTest
    | BindingUpdate
    | BindingAcknowledgement
    | BindingError
    | UnknownMessage
)

#: The class of each MH type.
MESSAGES: dict[int, type[MobilityMessage]] = {
    message.mh_type: message
    for message in (
        BindingRefreshRequest,
        HomeTestInit,
        CareOfTestInit,
        HomeTest,
        CareOfTest,
        BindingUpdate,
        BindingAcknowledgement,
        BindingError,
    )
}
