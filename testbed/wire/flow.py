"""The Flow Identification option (draft §3.1, RFC 6089 §4.2).

Classes: `Pro`, `FlowStatus`, `RFC6089FlowStatus`, `FlowBindingAction`, `FlowIdentification`. How the option
looks on the wire is the business of module `dialect`.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from testbed.wire.option import MobilityOption, check_range
from testbed.wire.selector import TrafficSelector


class Pro(IntEnum):
    """What is to be done with the flow binding (draft §3.1)."""

    ADD = 0
    REPLACE = 1
    REFRESH = 2
    REMOVE = 15


class FlowStatus(IntEnum):
    """What became of a flow binding, in a Binding Acknowledgement (draft §3.1)."""

    SUCCESS = 0
    REASON_UNSPECIFIED = 128
    POORLY_FORMED = 129
    ADMINISTRATIVELY_PROHIBITED = 130
    PREFIX_NOT_SUPPORTED = 131
    PORTS_NOT_SUPPORTED = 132
    FLOW_LABEL_NOT_SUPPORTED = 133
    SPI_NOT_SUPPORTED = 134
    FID_IN_USE = 135
    FID_NOT_FOUND = 136
    CLASSIFIER_LANGUAGE_NOT_SUPPORTED = 137
    DISCARD_NOT_SUPPORTED = 138
    N_CAST_NOT_SUPPORTED = 139


class FlowBindingAction(IntEnum):
    """What a home agent asks of a mobile node's flow binding (RFC 7109 §6.2.1)."""

    ADD = 11
    DELETE = 12
    MODIFY = 13
    REFRESH = 14
    MOVE = 15
    REVOKE = 16


class RFC6089FlowStatus(IntEnum):
    """What became of a flow binding, in the dialect of RFC 6089 (§4.2)."""

    SUCCESS = 0
    ADMINISTRATIVELY_PROHIBITED = 128
    REASON_UNSPECIFIED = 129
    MALFORMED = 130
    BID_NOT_FOUND = 131
    FID_NOT_FOUND = 132
    SELECTOR_FORMAT_NOT_SUPPORTED = 133


@dataclass(frozen=True, slots=True)
class FlowIdentification(MobilityOption):
    """A flow binding, or the answer to one.

    `binding_reference` holds BIDs and is None where there is no such sub-option, likewise `selector`.
    `action` and `pro` (4 bits) are numbers as received: whether they are acceptable is judged elsewhere, and
    so is what FID 0 means. `priority` has 8 bits in the draft, 16 in RFC 6089; lower comes first. `action`
    and `pro` exist in the draft only, `flow_binding_action` (8 bits) in the dialect of RFC 6089 only.

    Set by parsing only: `malformed` says in a sentence what is wrong with the option, in which case the
    other fields hold what could be made out (0 for what is missing); `unknown_selector_format` is the TS
    format of a traffic selector that is not understood, and `selector` is None then.
    """

    fid: int
    priority: int
    action: int = 1
    status: int = 0
    pro: int = Pro.ADD
    binding_reference: tuple[int, ...] | None = None
    selector: TrafficSelector | None = None
    malformed: str | None = None
    unknown_selector_format: int | None = None
    flow_binding_action: int | None = None

    def __post_init__(self) -> None:
        if (self.fid | self.priority) >> 16 or (self.action | self.status) >> 8 or self.pro >> 4:
            check_range("fid", self.fid, 0xFFFF)
            check_range("priority", self.priority, 0xFFFF)
            check_range("action", self.action, 0xFF)
            check_range("status", self.status, 0xFF)
            check_range("pro", self.pro, 0xF)
        if self.binding_reference is not None:
            for bid in self.binding_reference:
                check_range("binding_reference", bid, 0xFFFF)
        if self.flow_binding_action is not None:
            check_range("flow_binding_action", self.flow_binding_action, 0xFF)

    def answer(self, status: int) -> "FlowIdentification":
        """Return what an acknowledgement says of this option: its fixed part with `status` (draft §4.8)."""
        return _answer(self.fid, self.priority, self.action, status, self.pro)


#: Mobile nodes number their flow bindings alike: the same few answers are given again and again.
_answer = lru_cache(maxsize=1024)(FlowIdentification)
