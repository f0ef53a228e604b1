"""Scapy layers for flow bindings: craft and dissect what scapy itself does not know.

Importing this registers them, so that scapy shows them inside `MIP6MH_BU`, `MIP6MH_BA` and the like:

    from testbed.scapy import MIP6OptBindingIdentifier, MIP6OptFlowIdentification

Mobility options: `MIP6OptBindingIdentifier` (RFC 5648 §4.3, RFC 6089 §4.1), `MIP6OptFlowIdentification`
(draft-soliman-monami6-flow-binding-05 §3.1, as option 18), `MIP6OptFlowIdentificationRFC6089` and
`MIP6OptFlowSummary` (RFC 6089 §4.2).
Sub-options, lengths counted as in the draft: `FlowSubOptBindingReference`, `FlowSubOptTrafficSelector`,
`FlowSubOptUnknown`, `FlowSubOptPad1`. As in RFC 6089: the same with `RFC6089` appended (but Pad1), and
`FlowSubOptPadNRFC6089`, `FlowSubOptBindingActionRFC6089` (RFC 7109 §6.2.1).
Selectors: `TrafficSelectorIPv4`, `TrafficSelectorIPv6` (RFC 6088).

Lengths, presence flags and traffic selector formats that are left out (None) are computed; any that is given
is sent as given, however wrong. Each end of a range is the field's name with `_end`.
"""

from collections.abc import Callable

from scapy.fields import (
    BitEnumField,
    BitField,
    ByteEnumField,
    ByteField,
    ConditionalField,
    Field,
    FieldLenField,
    FieldListField,
    FlagsField,
    IntField,
    IPField,
    PacketLenField,
    PacketListField,
    ShortField,
    StrLenField,
)
from scapy.layers.inet6 import IP6Field, _MIP6OptAlign, _mobopttypes, moboptcls
from scapy.packet import Packet, Raw

from testbed.wire.flow import FlowBindingAction, FlowStatus, Pro, RFC6089FlowStatus

_mobopttypes.update(
    {
        18: "Flow Identification (experimental)",
        35: "Binding Identifier (RFC5648)",
        44: "Flow Summary (RFC6089)",
        45: "Flow Identification (RFC6089)",
    }
)
_ACTIONS = {1: "forward", 2: "discard", 3: "n-cast"}
_PRO = {int(pro): pro.name.lower() for pro in Pro}
_FORMATS = {1: "IPv4 binary", 2: "IPv6 binary"}


def _names(statuses) -> dict[int, str]:
    return {int(status): status.name.lower().replace("_", " ") for status in statuses}


class _PresenceFlags(FlagsField):
    """16 flags, one a start or end of a field; computed from the fields that are there if not given."""

    def i2m(self, pkt, x):
        if x is not None:
            return super().i2m(pkt, x)
        fields = [field.name for field in pkt.fields_desc[2:]]
        return sum(0x8000 >> bit for bit, name in enumerate(fields) if pkt.getfieldval(name) is not None)


def _selector_fields(*fields: Field) -> list[Field]:
    """Return a selector's fields: flags, reserved bits, start and end of each of `fields` if present."""
    ranged: list[Field] = []
    for start in fields:
        end = type(start)(f"{start.name}_end", None)
        for field in (start, end):
            ranged.append(ConditionalField(field, _is_present(field.name, 0x8000 >> len(ranged))))
    names = [chr(ord("A") + bit) for bit in range(16)]
    return [_PresenceFlags("flags", None, 16, names[::-1]), ShortField("reserved", 0), *ranged]


def _is_present(name: str, flag: int):
    def condition(pkt: Packet) -> bool:
        if pkt.flags is None:
            return pkt.getfieldval(name) is not None
        return bool(int(pkt.flags) & flag)

    return condition


class _Part(Packet):
    """A layer that is a field of another: what follows it is not its payload."""

    def extract_padding(self, s):
        return b"", s


class TrafficSelectorIPv4(_Part):
    name = "IPv4 binary traffic selector"
    fields_desc = _selector_fields(
        IPField("source_address", None),
        IPField("destination_address", None),
        IntField("spi", None),
        ShortField("source_port", None),
        ShortField("destination_port", None),
        ByteField("dscp", None),
        ByteField("protocol", None),
    )


class TrafficSelectorIPv6(_Part):
    name = "IPv6 binary traffic selector"
    fields_desc = _selector_fields(
        IP6Field("source_address", None),
        IP6Field("destination_address", None),
        IntField("spi", None),
        IntField("flow_label", None),
        ShortField("source_port", None),
        ShortField("destination_port", None),
        ByteField("traffic_class", None),
        ByteField("next_header", None),
    )


_SELECTORS = {1: TrafficSelectorIPv4, 2: TrafficSelectorIPv6}


class _FormatField(ByteEnumField):
    """TS format, that of the selector if not given."""

    def i2m(self, pkt, x):
        if x is None:
            x = next((form for form, layer in _SELECTORS.items() if isinstance(pkt.selector, layer)), 0)
        return super().i2m(pkt, x)


class _SelectorField(PacketLenField):
    """A selector of the class that the format says."""

    def m2i(self, pkt, m):
        return _SELECTORS.get(pkt.format, Raw)(m)


class FlowSubOptPad1(_Part):
    name = "Flow sub-option - Pad1"
    fields_desc = [ByteField("type", 0)]


def _length(counted: str, others: int) -> FieldLenField:
    """Return a length field for the field `counted` and `others` octets besides it."""
    return FieldLenField("len", None, fmt="B", length_of=counted, adjust=lambda pkt, octets: octets + others)


def _finder(classes: dict[int, type[Packet]], unknown: type[Packet]) -> Callable[..., Packet]:
    """Return what dissects a sub-option as the class of its type."""
    return lambda data, **keywords: classes.get(data[0], unknown)(data, **keywords)


# The draft counts type and length in the length of a sub-option (§3.2) ...


class FlowSubOptBindingReference(_Part):
    name = "Flow sub-option - Binding Reference"
    fields_desc = [
        ByteField("type", 1),
        _length("bids", 2),
        FieldListField("bids", [], ShortField("bid", 0), length_from=lambda pkt: max(pkt.len - 2, 0)),
    ]


class FlowSubOptTrafficSelector(_Part):
    name = "Flow sub-option - Traffic Selector"
    fields_desc = [
        ByteField("type", 3),
        _length("selector", 4),
        _FormatField("format", None, _FORMATS),
        ByteField("reserved", 0),
        _SelectorField("selector", None, Raw, length_from=lambda pkt: max(pkt.len - 4, 0)),
    ]


class FlowSubOptUnknown(_Part):
    name = "Flow sub-option - unknown"
    fields_desc = [
        ByteField("type", 255),
        _length("data", 2),
        StrLenField("data", b"", length_from=lambda pkt: max(pkt.len - 2, 0)),
    ]


_draft_sub_option = _finder(
    {0: FlowSubOptPad1, 1: FlowSubOptBindingReference, 3: FlowSubOptTrafficSelector}, FlowSubOptUnknown
)


# ... RFC 6089 does not (§4.2.1).


class FlowSubOptPadNRFC6089(_Part):
    name = "Flow sub-option - PadN (RFC 6089)"
    fields_desc = [
        ByteField("type", 1),
        _length("data", 0),
        StrLenField("data", b"", length_from=lambda pkt: pkt.len),
    ]


class FlowSubOptBindingReferenceRFC6089(_Part):
    name = "Flow sub-option - Binding Reference (RFC 6089)"
    fields_desc = [
        ByteField("type", 2),
        _length("bids", 0),
        FieldListField("bids", [], ShortField("bid", 0), length_from=lambda pkt: pkt.len),
    ]


class FlowSubOptTrafficSelectorRFC6089(_Part):
    name = "Flow sub-option - Traffic Selector (RFC 6089)"
    fields_desc = [
        ByteField("type", 3),
        _length("selector", 2),
        _FormatField("format", None, _FORMATS),
        ByteField("reserved", 0),
        _SelectorField("selector", None, Raw, length_from=lambda pkt: max(pkt.len - 2, 0)),
    ]


class FlowSubOptBindingActionRFC6089(_Part):
    name = "Flow sub-option - Flow Binding Action (RFC 7109)"
    fields_desc = [
        ByteField("type", 4),
        ByteField("len", 2),
        ByteField("reserved", 0),
        ByteEnumField("action", 11, _names(FlowBindingAction)),
    ]


class FlowSubOptUnknownRFC6089(_Part):
    name = "Flow sub-option - unknown (RFC 6089)"
    fields_desc = [
        ByteField("type", 255),
        _length("data", 0),
        StrLenField("data", b"", length_from=lambda pkt: pkt.len),
    ]


_rfc6089_sub_option = _finder(
    {
        0: FlowSubOptPad1,
        1: FlowSubOptPadNRFC6089,
        2: FlowSubOptBindingReferenceRFC6089,
        3: FlowSubOptTrafficSelectorRFC6089,
        4: FlowSubOptBindingActionRFC6089,
    },
    FlowSubOptUnknownRFC6089,
)


class _FlowOption(_MIP6OptAlign):
    """Aligns a flow option so that its traffic selector is aligned as RFC 6088 §3 asks, else to 2n."""

    def alignment_delta(self, curpos):
        unit, offset = 2, 8
        for option in self.suboptions:
            if isinstance(option, FlowSubOptTrafficSelector | FlowSubOptTrafficSelectorRFC6089):
                return -(curpos + offset) % max(unit, self._unit(option.selector))
            offset += len(bytes(option))
        return curpos % unit

    @staticmethod
    def _unit(selector) -> int:
        for unit, names in ((8, ("source_address", "destination_address")), (4, ("spi", "flow_label"))):
            if any(getattr(selector, name, None) is not None for name in names):
                return 4 if isinstance(selector, TrafficSelectorIPv4) else unit
        return 2


class MIP6OptFlowIdentification(_FlowOption):
    name = "MIPv6 Option - Flow Identification (draft-soliman-monami6-flow-binding-05)"
    fields_desc = [
        ByteEnumField("otype", 18, _mobopttypes),
        FieldLenField("olen", None, fmt="B", length_of="suboptions", adjust=lambda pkt, octets: octets + 6),
        ByteField("pri", 0),
        ShortField("fid", 0),
        ByteEnumField("action", 1, _ACTIONS),
        ByteEnumField("status", 0, _names(FlowStatus)),
        BitEnumField("pro", 0, 4, _PRO),
        BitField("reserved", 0, 4),
        PacketListField("suboptions", [], _draft_sub_option, length_from=lambda pkt: max(pkt.olen - 6, 0)),
    ]


class MIP6OptFlowIdentificationRFC6089(_FlowOption):
    name = "MIPv6 Option - Flow Identification (RFC 6089)"
    fields_desc = [
        ByteEnumField("otype", 45, _mobopttypes),
        FieldLenField("olen", None, fmt="B", length_of="suboptions", adjust=lambda pkt, octets: octets + 6),
        ShortField("fid", 0),
        ShortField("fidpri", 0),
        ByteField("reserved", 0),
        ByteEnumField("status", 0, _names(RFC6089FlowStatus)),
        PacketListField("suboptions", [], _rfc6089_sub_option, length_from=lambda pkt: max(pkt.olen - 6, 0)),
    ]


class MIP6OptFlowSummary(_MIP6OptAlign):
    name = "MIPv6 Option - Flow Summary (RFC 6089)"
    fields_desc = [
        ByteEnumField("otype", 44, _mobopttypes),
        FieldLenField("olen", None, fmt="B", length_of="fids"),
        FieldListField("fids", [], ShortField("fid", 0), length_from=lambda pkt: pkt.olen),
    ]
    x = 2
    y = 0


class MIP6OptBindingIdentifier(_MIP6OptAlign):
    """`coa` is an IPv6 care-of address, `coa4` an IPv4 one; at most one of them goes into an option."""

    name = "MIPv6 Option - Binding Identifier (RFC 5648)"
    fields_desc = [
        ByteEnumField("otype", 35, _mobopttypes),
        ByteField("olen", None),
        ShortField("bid", 0),
        ByteField("status", 0),
        BitField("h", 0, 1),
        BitField("pri", 0, 7),
        ConditionalField(
            IP6Field("coa", None),
            lambda pkt: pkt.getfieldval("coa") is not None if pkt.olen is None else pkt.olen == 20,
        ),
        ConditionalField(
            IPField("coa4", None),
            lambda pkt: pkt.getfieldval("coa4") is not None if pkt.olen is None else pkt.olen == 8,
        ),
        ConditionalField(
            StrLenField("data", b"", length_from=lambda pkt: max(pkt.olen - 4, 0)),
            lambda pkt: pkt.olen is not None and pkt.olen not in (4, 8, 20),
        ),
    ]

    def post_build(self, pkt, pay):
        if self.olen is None:
            pkt = pkt[:1] + bytes((len(pkt) - 2,)) + pkt[2:]
        return pkt + pay

    def alignment_delta(self, curpos):
        if self.getfieldval("coa") is None and self.getfieldval("coa4") is None:
            return curpos % 2
        return -(curpos - 2) % 8


moboptcls.update(
    {
        18: MIP6OptFlowIdentification,
        35: MIP6OptBindingIdentifier,
        44: MIP6OptFlowSummary,
        45: MIP6OptFlowIdentificationRFC6089,
    }
)
