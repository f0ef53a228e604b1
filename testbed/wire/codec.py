"""The Mobility Header, from octets to messages and back (RFC 6275 §6.1.1, §6.2). Class: `Codec`."""

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address

from testbed.wire.checksum import checksum
from testbed.wire.dialect import DIALECTS
from testbed.wire.error import ParseError
from testbed.wire.flow import FlowIdentification
from testbed.wire.message import MESSAGES, Message, Options, UnknownMessage
from testbed.wire.option import (
    OPTIONS,
    Alignment,
    AlternateCareOfAddress,
    BindingAuthorizationData,
    BindingIdentifier,
    BindingRefreshAdvice,
    FlowSummary,
    MalformedOption,
    MobileNetworkPrefix,
    MobilityOption,
    NonceIndices,
    UnknownOption,
)

MOBILITY_HEADER = 135  #: next header value
NO_NEXT_HEADER = 59

_PAD1 = 0
_PADN = 1
#: Padding of 0 to 7 octets (RFC 6275 §6.2.2, §6.2.3).
_PADDING = [b"", bytes((_PAD1,))] + [bytes((_PADN, octets - 2)) + bytes(octets - 2) for octets in range(2, 8)]
_GREATEST_LENGTH = 8 + 8 * 255
#: How many options' octets are remembered.
_REMEMBERED = 1024
#: Of these classes, the same few objects are sent again and again: answers to what mobile nodes number alike.
_REPEATED = (BindingIdentifier, FlowIdentification)

#: Options whose receiver answers bad contents with a status: they do not make the message invalid.
_ANSWERED = {BindingIdentifier.option_type, MobileNetworkPrefix.option_type, FlowSummary.option_type}


#: Options of RFC 6275 itself that have an alignment.
_ALIGNED: dict[int, Alignment] = {
    option.option_type: option.alignment
    for option in (BindingRefreshAdvice, AlternateCareOfAddress, NonceIndices)
}


class Codec:
    """Parses and builds Mobility Headers.

    `dialect` is the layout of flow bindings, "draft" or "rfc6089" (see module `dialect`), `flow_option_type`
    the type of their option in place of the dialect's own. `option_length_in_8_octets` takes the draft's
    "length of option in 8-octet units" literally: type and length are counted, and the option is padded with
    zeros. Receivers that do not know the option then cannot step over it. `require_alignment`: whether the
    options of RFC 6275 must be where its §6.2 wants them; not all that is sent in the wild is. Raises
    ValueError for an unknown dialect and for an option type that is taken.
    """

    def __init__(
        self,
        dialect: str = "draft",
        option_length_in_8_octets: bool = False,
        flow_option_type: int | None = None,
        require_alignment: bool = False,
    ):
        if dialect not in DIALECTS:
            raise ValueError(f"dialect must be one of {', '.join(DIALECTS)}, not {dialect!r}")
        self._dialect = DIALECTS[dialect]()
        self._flow_type = self._dialect.flow_option_type if flow_option_type is None else flow_option_type
        if self._flow_type in OPTIONS or not 2 <= self._flow_type <= 255:
            raise ValueError(f"flow_option_type must be from 2 to 255 and free, not {self._flow_type}")
        self._length_unit_8 = option_length_in_8_octets
        self._aligned = _ALIGNED if require_alignment else {}
        self._parsers: dict[int, Callable[[bytes], MobilityOption]] = {
            kind: option.parse for kind, option in OPTIONS.items()
        }
        for option in self._dialect.options:
            self._parsers[option.option_type] = option.parse
        # refreshes come again and again, and mobile nodes tend to want the same
        self._parsers[self._flow_type] = lru_cache(maxsize=1024)(self._dialect.parse)
        self._encoded: tuple[Message | None, bytes] = None, b""
        #: By the identity of an option, which is kept with it: its alignment and its octets.
        self._octets: dict[int, tuple[MobilityOption, int, int, bytes]] = {}

    def parse(self, data: bytes, source: IPv6Address, destination: IPv6Address) -> Message:
        """Return the message in a Mobility Header, which `data` starts with.

        `source` and `destination` are the addresses of the pseudo-header: the home address takes the place of
        the care-of address where there is a Home Address option or a type 2 routing header. Raises ParseError
        for what RFC 6275 §9.2 has discarded. The checks come in the order of that section.
        """
        data = bytes(data)
        if len(data) < 8:
            raise ParseError(f"Mobility Header of {len(data)} octets is truncated")
        end = 8 + 8 * data[1]
        if end > len(data):
            raise ParseError(f"Mobility Header of {end} octets is truncated after {len(data)}")
        # What follows "no next header" is to be ignored (RFC 8200 §4.7), yet where a message says that it is
        # shorter than it is, its sender may have meant the whole payload.
        whole, data = data, data[:end]
        if checksum(data, source, destination, MOBILITY_HEADER) and (
            len(whole) == end or checksum(whole, source, destination, MOBILITY_HEADER)
        ):
            raise ParseError("Mobility Header has a wrong checksum")
        message = MESSAGES.get(data[2])
        if message is None:
            return UnknownMessage(data[2], data[6:])
        if data[0] != NO_NEXT_HEADER:
            raise ParseError(f"Mobility Header has payload {data[0]}, expected none (59)", pointer=0)
        start = 6 + message.fixed.size
        if start > end:
            raise ParseError(f"{message.__name__} of {end} octets is too short", pointer=1)
        return message.parse(message.fixed.unpack_from(data, 6), self._parse_options(data, start))

    def _parse_options(self, data: bytes, offset: int) -> Options:
        options: list[MobilityOption] = []
        parsers, aligned = self._parsers, self._aligned
        end = len(data)
        while offset < end:
            kind = data[offset]
            if kind == _PAD1:
                offset += 1
                continue
            if offset + 1 == end:
                raise ParseError(f"option {kind} at octet {offset} has no length")
            stop = offset + 2 + data[offset + 1]
            if kind == self._flow_type and self._length_unit_8:
                stop = offset + 8 * data[offset + 1]
                if stop == offset:
                    raise ParseError(f"option {kind} at octet {offset} has length 0")
            if stop > end:
                raise ParseError(f"option {kind} at octet {offset} runs past the end of the message")
            if kind == BindingAuthorizationData.option_type and stop != end:
                raise ParseError("BindingAuthorizationData is not the last option")
            if kind in aligned:
                unit, position = aligned[kind]
                if (offset - position) % unit:
                    raise ParseError(f"option {kind} at octet {offset} is not at {unit}n + {position}")
            content = data[offset + 2 : stop]
            offset = stop
            if kind in parsers:
                try:
                    options.append(parsers[kind](content))
                except ParseError as error:
                    if kind not in _ANSWERED:
                        raise
                    options.append(MalformedOption(kind, content, error.reason))
            elif kind != _PADN:
                options.append(UnknownOption(kind, content))
        return tuple(options)

    def build(self, message: Message, source: IPv6Address, destination: IPv6Address) -> bytes:
        """Return the Mobility Header; addresses as in `parse`. Raises ValueError for what does not fit."""
        header = self.encode(message)
        octets = checksum(header, source, destination, MOBILITY_HEADER).to_bytes(2, "big")
        return header[:4] + octets + header[6:]

    def encode(self, message: Message, options: Options | None = None) -> bytes:
        """Return the Mobility Header with a checksum of zero, which is what authenticators are computed over;
        with `options`, with these in place of its own.

        See RFC 6275 §6.2.7 and RFC 4285 §5.1. Raises ValueError for what does not fit.
        """
        if options is not None:
            return self._encode(message, options)
        encoded, header = self._encoded
        return header if encoded is message else self._encode(message, message.options)

    def remember(self, message: Message, header: bytes) -> None:
        """What `encode` is to return for `message`: who has signed its octets need not make them again."""
        self._encoded = message, header

    def _encode(self, message: Message, options: Options) -> bytes:
        header = bytearray((NO_NEXT_HEADER, 0, message.mh_type, 0, 0, 0))
        if isinstance(message, UnknownMessage):
            header += message.data
            if len(header) % 8:
                raise ValueError(f"data must have 8n + 2 octets, not {len(message.data)}")
        else:
            header += message.fixed.pack(*message.values())
            for option in options:
                _, unit, offset, octets = self._octets.get(id(option)) or self._make_octets(option)
                if unit > 1:
                    header += _PADDING[(offset - len(header)) % unit]
                header += octets
            header += _PADDING[-len(header) & 7]
        if len(header) > _GREATEST_LENGTH:
            raise ValueError(f"message has {len(header)} octets, more than {_GREATEST_LENGTH}")
        header[1] = len(header) // 8 - 1
        if BindingAuthorizationData in map(type, options[:-1]):
            raise ValueError("BindingAuthorizationData must be the last option")
        return bytes(header)

    def _make_octets(self, option: MobilityOption) -> tuple[MobilityOption, int, int, bytes]:
        """The option, its alignment, and its octets from the type on."""
        if isinstance(option, FlowIdentification):
            unit, offset = self._dialect.alignment(option)
            kind = self._flow_type
            data = self._dialect.data(option)
            length = len(data)
            if self._length_unit_8:
                data += bytes(-(2 + length) % 8)
                length = (2 + len(data)) // 8
        else:
            unit, offset = option.alignment
            kind = option.option_type
            data = bytes(option)
            length = len(data)
        if length > 255:
            raise ValueError(f"{type(option).__name__} has {length} octets of data, more than 255")
        made = option, unit, offset, bytes((kind, length)) + data
        if type(option) in _REPEATED:
            if len(self._octets) >= _REMEMBERED:
                self._octets.clear()
            self._octets[id(option)] = made
        return made

    def alignment(self, option: MobilityOption) -> Alignment:
        """Return (x, y): the option starts at an offset x*n + y from the start of the Mobility Header."""
        if isinstance(option, FlowIdentification):
            return self._dialect.alignment(option)
        return option.alignment
