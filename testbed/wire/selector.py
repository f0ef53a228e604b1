"""Binary traffic selectors (RFC 6088). Classes: `IPv6TrafficSelector`, `IPv4TrafficSelector`.

A selector describes the packets of a flow as they travel from the correspondent node to the mobile node. Each
field is an inclusive range `(start, end)`, or None where any value will do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, ClassVar, TypeAlias

from testbed.wire.error import ParseError

IPv6Range: TypeAlias = tuple[IPv6Address, IPv6Address]
IPv4Range: TypeAlias = tuple[IPv4Address, IPv4Address]
Range: TypeAlias = tuple[int, int]

#: Field name, width in octets, greatest value or type of address, in the order of the flags.
_Layout: TypeAlias = tuple[tuple[str, int, int | type], ...]


class _BinaryTrafficSelector:
    """What both formats share: 16 flags (start and end of each field), 16 reserved bits, then the fields."""

    __slots__ = ()
    _layout: ClassVar[_Layout]

    def __post_init__(self) -> None:
        for name, _, limit in self._layout:
            value = getattr(self, name)
            if value is not None:
                _check(name, value, limit)

    @classmethod
    def parse(cls, data: bytes) -> "TrafficSelector":
        """Return the selector in `data`, which starts at the flags. Raises ParseError."""
        if len(data) < 4:
            raise ParseError(f"traffic selector of {len(data)} octets is shorter than its flags")
        flags = data[0] << 8 | data[1]
        offset = 4
        values: dict[str, tuple] = {}
        for name, width, limit in cls._layout:
            present = flags & 0xC000
            flags <<= 2
            if not present:
                continue
            if present == 0x4000:
                raise ParseError(f"traffic selector has an end but no start of {name}")
            stop = offset + (2 * width if present == 0xC000 else width)
            if stop > len(data):
                raise ParseError(f"traffic selector is truncated at {name}")
            start = int.from_bytes(data[offset : offset + width], "big")
            end = int.from_bytes(data[stop - width : stop], "big")
            offset = stop
            if name == "flow_label":  # the first 8 bits are to be ignored (RFC 6088 §3.2)
                start &= 0xFFFFFF
                end &= 0xFFFFFF
            values[name] = (start, end) if isinstance(limit, int) else (limit(start), limit(end))
        if offset != len(data):
            raise ParseError(f"traffic selector has {len(data) - offset} octets after its last field")
        try:
            return cls(**values)
        except ValueError as error:
            raise ParseError(f"traffic selector: {error}") from None

    def __bytes__(self) -> bytes:
        flags = 0
        fields = b""
        for name, width, _ in self._layout:
            flags <<= 2
            value = getattr(self, name)
            if value is None:
                continue
            start, end = int(value[0]), int(value[1])
            flags |= 2
            fields += start.to_bytes(width, "big")
            if end != start:
                flags |= 1
                fields += end.to_bytes(width, "big")
        flags <<= 16 - 2 * len(self._layout)
        return flags.to_bytes(2, "big") + b"\0\0" + fields

    def mirrored(self) -> "TrafficSelector":
        """Return the selector of the opposite direction: source and destination changed places."""
        values = {name: getattr(self, name) for name, _, _ in self._layout}
        for kind in ("address", "port"):
            source, destination = f"source_{kind}", f"destination_{kind}"
            values[source], values[destination] = values[destination], values[source]
        return type(self)(**values)

    def matches(self, **packet: Any) -> bool:
        """Whether a packet with these fields (named as the selector's) belongs to the flow.

        A field that is left out or None is one that the packet does not have: it matches no range. The two
        low bits of traffic class and DS field are not compared. Raises TypeError for a name that is no field.
        """
        unknown = packet.keys() - {name for name, _, _ in self._layout}
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {min(unknown)}")
        for name, _, _ in self._layout:
            wanted = getattr(self, name)
            if wanted is None:
                continue
            value = packet.get(name)
            if value is None:
                return False
            start, end = wanted
            if name in ("traffic_class", "dscp"):
                start, value, end = start >> 2, value >> 2, end >> 2
            if not start <= value <= end:
                return False
        return True

    @property
    def alignment(self) -> int:
        """Octets of which the offset of the traffic selector sub-option must be a multiple (RFC 6088 §3)."""
        widths = [width for name, width, _ in self._layout if getattr(self, name) is not None]
        return min(max(widths, default=1), 8)


def _check(name: str, value: Any, limit: int | Callable) -> None:
    """Raise ValueError unless `value` is a range: addresses of type `limit`, or numbers up to `limit`."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise ValueError(f"{name} must be a pair (start, end), not {value!r}")
    start, end = value
    if isinstance(limit, int):
        for number in value:
            if not isinstance(number, int) or not 0 <= number <= limit:
                raise ValueError(f"{name} must be from 0 to {limit}, not {number!r}")
    elif type(start) is not limit or type(end) is not limit:
        raise ValueError(f"{name} must be two of {limit.__name__}, not {value!r}")
    if start > end:
        raise ValueError(f"{name} starts at {start}, after its end {end}")


@dataclass(frozen=True, slots=True)
class IPv6TrafficSelector(_BinaryTrafficSelector):
    """IPv6 binary traffic selector (RFC 6088 §3.2).

    `flow_label` has 20 bits (RFC 8200), `traffic_class` is the whole octet (only the DS field in it counts).
    Raises ValueError, naming the field, for a range that is none.
    """

    ts_format: ClassVar[int] = 2
    _layout: ClassVar[_Layout] = (
        ("source_address", 16, IPv6Address),
        ("destination_address", 16, IPv6Address),
        ("spi", 4, 0xFFFFFFFF),
        ("flow_label", 4, 0xFFFFF),
        ("source_port", 2, 0xFFFF),
        ("destination_port", 2, 0xFFFF),
        ("traffic_class", 1, 0xFF),
        ("next_header", 1, 0xFF),
    )

    source_address: IPv6Range | None = None
    destination_address: IPv6Range | None = None
    spi: Range | None = None
    flow_label: Range | None = None
    source_port: Range | None = None
    destination_port: Range | None = None
    traffic_class: Range | None = None
    next_header: Range | None = None


@dataclass(frozen=True, slots=True)
class IPv4TrafficSelector(_BinaryTrafficSelector):
    """IPv4 binary traffic selector (RFC 6088 §3.1).

    `dscp` is the whole octet in which the DS field is the upper six bits, as on the wire. Raises ValueError,
    naming the field, for a range that is none.
    """

    ts_format: ClassVar[int] = 1
    _layout: ClassVar[_Layout] = (
        ("source_address", 4, IPv4Address),
        ("destination_address", 4, IPv4Address),
        ("spi", 4, 0xFFFFFFFF),
        ("source_port", 2, 0xFFFF),
        ("destination_port", 2, 0xFFFF),
        ("dscp", 1, 0xFF),
        ("protocol", 1, 0xFF),
    )

    source_address: IPv4Range | None = None
    destination_address: IPv4Range | None = None
    spi: Range | None = None
    source_port: Range | None = None
    destination_port: Range | None = None
    dscp: Range | None = None
    protocol: Range | None = None


TrafficSelector: TypeAlias = IPv6TrafficSelector | IPv4TrafficSelector

#: The selector of each TS format (RFC 6088 §3).
SELECTORS: dict[int, type[TrafficSelector]] = {
    selector.ts_format: selector for selector in (IPv4TrafficSelector, IPv6TrafficSelector)
}
