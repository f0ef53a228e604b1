"""How flow bindings are laid out. Classes: `Dialect`, and one a specification: `Draft`, `RFC6089`.

Both put the flow in sub-options after a fixed part of 8 octets (6 of data). They differ in the fixed part, in
the numbers of the sub-options, and in whether a sub-option's length counts its own type and length.
"""

from collections.abc import Iterator
from struct import Struct
from typing import ClassVar

from testbed.wire.error import ParseError
from testbed.wire.flow import FlowIdentification, Pro
from testbed.wire.option import Alignment, FlowSummary, MobilityOption, check_range, pack_u16s, unpack_u16s
from testbed.wire.selector import SELECTORS, TrafficSelector

_FIXED_OCTETS = 6  # of data, type and length not counted
_PAD1 = 0
_TRAFFIC_SELECTOR = 3
_PRO = {int(pro): pro for pro in Pro}


class Dialect:
    """What the layouts share. Subclasses say how they differ."""

    flow_option_type: ClassVar[int]
    #: Options that exist in this dialect only.
    options: ClassVar[tuple[type[MobilityOption], ...]] = ()
    _binding_reference: ClassVar[int]
    _flow_binding_action: ClassVar[int | None] = None
    #: How many octets of a sub-option's own type and length its length counts.
    _counted: ClassVar[int]
    _one_binding_reference: ClassVar[bool]

    def parse(self, data: bytes) -> FlowIdentification:
        """Return the flow binding in an option's data. Never raises: see FlowIdentification.malformed."""
        malformed = None
        bids: tuple[int, ...] | None = None
        selector: TrafficSelector | None = None
        unknown_selector_format = flow_binding_action = None
        if len(data) < _FIXED_OCTETS:
            malformed = f"flow option has {len(data)} octets of data, expected {_FIXED_OCTETS} or more"
            data = data.ljust(_FIXED_OCTETS, b"\0")
        fid, priority, action, status, pro = self._parse_fixed(data)
        selectors = 0
        try:
            for kind, content in self._sub_options(data):
                if kind == self._binding_reference:
                    if not content or len(content) % 2:
                        raise ParseError(f"binding reference has {len(content)} octets, expected two a BID")
                    if bids is not None and self._one_binding_reference:
                        raise ParseError("flow option has more than one binding reference")
                    bids = (bids or ()) + unpack_u16s(content)
                elif kind == self._flow_binding_action:
                    if len(content) != 2:
                        raise ParseError(f"flow binding action has {len(content)} octets, expected 2")
                    flow_binding_action = content[1]
                elif kind == _TRAFFIC_SELECTOR:
                    selectors += 1
                    if selectors > 1:
                        raise ParseError("flow option has more than one traffic selector")
                    if len(content) < 2:
                        raise ParseError("traffic selector is too short for its format")
                    if content[0] in SELECTORS:
                        selector = SELECTORS[content[0]].parse(content[2:])
                    else:
                        unknown_selector_format = content[0]
            if pro not in _PRO:
                raise ParseError(f"PRO {pro} is not defined")
        except ParseError as error:
            malformed = malformed or error.reason
        pro = _PRO.get(pro, pro)
        return FlowIdentification(
            fid,
            priority,
            action,
            status,
            pro,
            bids,
            selector,
            malformed,
            unknown_selector_format,
            flow_binding_action,
        )

    def data(self, flow: FlowIdentification) -> bytes:
        """Return the option's data, what follows type and length. Raises ValueError if it cannot be sent."""
        data = self._fixed(flow)
        if flow.binding_reference is flow.selector is flow.flow_binding_action is None:
            return data
        if flow.binding_reference is not None:
            if not flow.binding_reference:
                raise ValueError("binding_reference must name at least one BID, or be None")
            data += self._sub_option(self._binding_reference, pack_u16s(flow.binding_reference))
        if flow.flow_binding_action is not None:
            if self._flow_binding_action is None:
                raise ValueError("flow_binding_action does not exist in this dialect")
            data += self._sub_option(self._flow_binding_action, bytes((0, flow.flow_binding_action)))
        if flow.selector is not None:
            content = bytes((flow.selector.ts_format, 0)) + bytes(flow.selector)
            data += self._sub_option(_TRAFFIC_SELECTOR, content)
        return data

    def alignment(self, flow: FlowIdentification) -> Alignment:
        """Such that the traffic selector is aligned as RFC 6088 §3 asks, and 2n in any case (RFC 6089 §4.2).

        This way no padding is needed inside the option: all that comes before the selector has even length.
        """
        if flow.selector is None:
            return (2, 0)
        before = 2 + _FIXED_OCTETS
        if flow.binding_reference is not None:
            before += 2 + 2 * len(flow.binding_reference)
        if flow.flow_binding_action is not None:
            before += 4
        unit = max(flow.selector.alignment, 2)
        return (unit, -before % unit)

    def _sub_options(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield type and content of each sub-option after the fixed part. Raises ParseError."""
        offset = _FIXED_OCTETS
        end = len(data)
        while offset < end:
            kind = data[offset]
            if kind == _PAD1:
                offset += 1
                continue
            if offset + 1 == end:
                raise ParseError(f"sub-option {kind} has no length")
            stop = offset + 2 - self._counted + data[offset + 1]
            if stop < offset + 2:
                raise ParseError(f"sub-option {kind} has length {data[offset + 1]}, expected 2 or more")
            if stop > end:
                raise ParseError(f"sub-option {kind} runs past the end of the flow option")
            yield kind, data[offset + 2 : stop]
            offset = stop

    def _sub_option(self, kind: int, content: bytes) -> bytes:
        length = self._counted + len(content)
        if length > 255:
            raise ValueError(f"sub-option {kind} has {length} octets, more than a length can say")
        return bytes((kind, length)) + content

    def _parse_fixed(self, data: bytes) -> tuple[int, int, int, int, int]:
        """Return FID, priority, action, status and PRO."""
        raise NotImplementedError

    def _fixed(self, flow: FlowIdentification) -> bytes:
        raise NotImplementedError


class Draft(Dialect):
    """draft-soliman-monami6-flow-binding-05 §3: PRI, FID of 16 bits, action, status, PRO.

    The draft has the Binding Reference as sub-option 1, whose length counts type and length (§3.2), and
    leaves the flow description to others: here it is sub-option 3 of RFC 6089, its length counted likewise.
    """

    flow_option_type = 18  # the draft says TBD; this is the experimental mobility option of RFC 5096
    _binding_reference = 1
    _counted = 2
    _one_binding_reference = False  # n-cast wants "one or more Binding Reference sub-options" (§3.1)
    _layout = Struct(">BHBBB")

    def _parse_fixed(self, data: bytes) -> tuple[int, int, int, int, int]:
        priority, fid, action, status, pro = self._layout.unpack_from(data)
        return fid, priority, action, status, pro >> 4

    def _fixed(self, flow: FlowIdentification) -> bytes:
        if flow.priority >> 8:
            check_range("priority", flow.priority, 0xFF)
        return self._layout.pack(flow.priority, flow.fid, flow.action, flow.status, flow.pro << 4)


class RFC6089(Dialect):
    """RFC 6089 §4.2: FID, FID-PRI of 16 bits, status. No action and no PRO: always forward, always add.

    With the Flow Binding Action sub-option of RFC 7109 §6.2.1.
    """

    flow_option_type = 45
    options = (FlowSummary,)
    _binding_reference = 2
    _flow_binding_action = 4
    _counted = 0
    _one_binding_reference = True
    _layout = Struct(">HHxB")

    def _parse_fixed(self, data: bytes) -> tuple[int, int, int, int, int]:
        fid, priority, status = self._layout.unpack_from(data)
        return fid, priority, 1, status, Pro.ADD

    def _fixed(self, flow: FlowIdentification) -> bytes:
        if (flow.action, flow.pro) != (1, Pro.ADD):
            raise ValueError("RFC 6089 can say neither action nor PRO")
        return self._layout.pack(flow.fid, flow.priority, flow.status)


DIALECTS: dict[str, type[Dialect]] = {"draft": Draft, "rfc6089": RFC6089}
