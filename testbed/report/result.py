"""The result of one run: `result.json` and its fields (docs/result-schema.md).

Classes: `Result` and what it is made of; functions: `write_result`, `read_result`. Times named `_s` count
from `origin_s`, a time of CLOCK_MONOTONIC, so that every figure can be traced to the events of the run.
"""

import os
from pathlib import Path

import msgspec

#: Grows by one whenever a field changes its meaning or goes away; new fields alone do not count.
SCHEMA_VERSION = 1

#: What the types of the Mobility Header are called (RFC 6275 §6.1).
MESSAGE_NAMES = {0: "Binding Refresh Request", 1: "Home Test Init", 2: "Care-of Test Init", 3: "Home Test",
                 4: "Care-of Test", 5: "Binding Update", 6: "Binding Acknowledgement", 7: "Binding Error"}


class ResultError(Exception):
    """A result file cannot be read. The text is one sentence with the remedy."""


class Quantiles(msgspec.Struct, frozen=True):
    """Of a quantity's values, in the unit of the field that has them."""

    p50: float
    p95: float
    max: float


class PathUse(msgspec.Struct, kw_only=True):
    """What one access link carried of a flow, as captured there."""

    interface: str
    care_of_addresses: list[str]
    packets: int
    octets: int


class LossPlaces(msgspec.Struct, kw_only=True):
    """Where datagrams were lost: before the wire, on the way, or after the last wire."""

    sender: int
    link: int
    receiver: int


class Flow(msgspec.Struct, kw_only=True):
    """What became of one flow in the whole run. Datagrams or segments are counted; None: not known of this
    kind of traffic."""

    name: str
    kind: str
    protocol: str
    port: int
    downlink: bool
    fid: int | None
    selector: str
    bid: int | list[int] | None
    #: "probe": the traffic's own logs; "capture": packets at the sender's and the receiver's interfaces.
    counted: str
    goodput_bps: float | None
    sent: int
    received: int
    lost: int
    duplicates: int
    reordered: int
    reordering_extent: int
    interruption_ms: float | None
    interruption_at_s: float | None
    nominal_spacing_ms: float | None
    one_way_delay_ms: Quantiles | None
    delay_variation_ms: Quantiles | None
    start_s: float | None
    end_s: float | None
    paths: list[PathUse]
    lost_at: LossPlaces | None = None
    record_delay_ms: Quantiles | None = None
    page_time_ms: Quantiles | None = None
    retransmits: int | None = None
    round_trip_ms: Quantiles | None = None
    sender_lateness_ms: Quantiles | None = None
    late: int | None = None
    error: str | None = None


class WindowFigures(msgspec.Struct, kw_only=True):
    """A flow in a part of the run that the experiment named: packets sent from `start_s` to `end_s`."""

    start_s: float
    end_s: float
    sent: int
    lost: int
    duplicates: int
    reordered: int
    reordering_extent: int
    late: int | None
    interruption_ms: float | None
    one_way_delay_ms: Quantiles | None
    delay_variation_ms: Quantiles | None
    goodput_bps: float


class FlowInHandover(msgspec.Struct, kw_only=True):
    """What a handover did to one flow, for packets sent from shortly before the cause on."""

    old_path: str | None
    new_path: str | None
    first_packet_ms: float | None
    interruption_ms: float | None
    sent: int
    lost: int
    duplicates: int
    reordered: int
    recovery_ms: float | None = None


class PacketSeries(msgspec.Struct, kw_only=True):
    """Packets around a cause: when sent (ms after the cause), one-way delay (None: lost), path (index into
    `interfaces` of the result's captures on access links; None: lost or not seen)."""

    sent_ms: list[float]
    delay_ms: list[float | None]
    path: list[int | None]
    #: One packet in so many is shown.
    stride: int = 1


class Handover(msgspec.Struct, kw_only=True):
    """What followed a cause, up to the next one: stages in ms after it, and what each flow felt."""

    at_s: float
    until_s: float
    cause: str
    text: str
    interface: str | None
    fid: int | None
    stages_ms: dict[str, float | None]
    flows: dict[str, FlowInHandover]
    packets: dict[str, PacketSeries]


class FlowSeries(msgspec.Struct, kw_only=True):
    """One value a bin. `throughput_bps` by access interface; delay is the median, None where nothing
    arrived. `sent`: packets on the sender's wire; `carried_octets`: those of them that each access interface
    carried, whenever that was, payload.
    """

    throughput_bps: dict[str, list[float]]
    one_way_delay_ms: list[float | None]
    lost: list[int]
    sent: list[int] = []
    carried_octets: dict[str, list[int]] = {}


class TimeSeries(msgspec.Struct, kw_only=True):
    """All flows in bins of `interval_s` each."""

    interval_s: float
    bins: int
    flows: dict[str, FlowSeries]


class SignallingMessage(msgspec.Struct, kw_only=True):
    """A Mobility Header packet as it was captured on an access link; octets of the frame."""

    at_s: float
    interface: str
    message: str
    octets: int
    from_mobile: bool


class Signalling(msgspec.Struct, kw_only=True):
    """Mobility Header packets on the access links; octets are those of the frames."""

    packets: int
    octets: int
    messages: list[SignallingMessage]


class BusyTime(msgspec.Struct, kw_only=True):
    """When the machine was too busy for its figures to be trusted: shares (0 to 1) of processor time that
    was idle, or taken by the host of a virtual machine, and how late a timer came."""

    start_s: float
    end_s: float
    idle: float
    steal: float
    late_ms: float


class Standstill(msgspec.Struct, kw_only=True):
    """When the machine did not run at all: a wake-up came more than 100 ms late. What was before the origin
    may have an effect after it."""

    start_s: float
    end_s: float


class Check(msgspec.Struct, kw_only=True):
    """Something that the run was to show, and whether its figures do."""

    text: str
    passed: bool
    detail: str


class CapturedInterface(msgspec.Struct, kw_only=True):
    """Where packets were captured, how many, and how many the kernel could not hand over."""

    host: str
    interface: str
    file: str
    packets: int
    drops: int
    #: Of the frames in the measured window, headers and tunnels included.
    octets: int = 0


class Result(msgspec.Struct, kw_only=True):
    """All that is known of one run; everything that is shown of it comes from here."""

    schema_version: int = SCHEMA_VERSION
    experiment: str
    metadata: dict
    origin_s: float
    duration_s: float
    #: The mobile node's access interfaces, in the order that paths are counted and coloured.
    interfaces: list[str]
    flows: list[Flow]
    handovers: list[Handover]
    time_series: TimeSeries
    events: list[dict]
    signalling: Signalling
    captures: list[CapturedInterface]
    busy: list[BusyTime]
    warnings: list[str]
    checks: list[Check] = []
    standstills: list[Standstill] = []
    #: Name of the part, name of the flow, figures.
    windows: dict[str, dict[str, WindowFigures]] = {}

    def flow(self, name: str) -> Flow:
        """The flow of that name. Raises KeyError if there is none."""
        for flow in self.flows:
            if flow.name == name:
                return flow
        raise KeyError(name)


def write_result(result: Result, path: str | Path) -> None:
    """Write the file, or leave an older one as it was. Raises OSError."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(msgspec.json.format(encode(result), indent=1))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def encode(result: Result) -> bytes:
    """The result as one line of JSON, floats rounded to what they can mean."""
    return msgspec.json.encode(_rounded(msgspec.to_builtins(result)))


def read_result(path: str | Path) -> Result:
    """Read and validate a result file, or the one in a folder.

    Raises ResultError: not there, no JSON, a field of the wrong type, or of another schema version.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "result.json"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResultError(
            f"{path}: {error.strerror}; give a result.json or the folder that has it.") from error
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version != SCHEMA_VERSION:
            raise ResultError(f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}: "
                              "read it with the version that wrote it, named in its metadata.")
        return msgspec.json.decode(data, type=Result)
    except msgspec.ValidationError as error:
        raise ResultError(f"{path} is no result of this testbed: {error}.") from error
    except msgspec.DecodeError as error:
        raise ResultError(
            f"{path} is not valid JSON ({error}): was the run cut short? Run it again.") from error


class _Version(msgspec.Struct):
    schema_version: int


def _rounded(value: object, key: str = "") -> object:
    """Times of CLOCK_MONOTONIC keep ns; anything else 1 ns of a ms, 1 us of a s, 1/1000 of a bit/s."""
    if isinstance(value, float):
        return value if key in ("origin_s", "t") else round(value, 6)
    if isinstance(value, dict):
        return {name: _rounded(entry, name) for name, entry in value.items()}
    if isinstance(value, list):
        return [_rounded(entry, key) for entry in value]
    return value
