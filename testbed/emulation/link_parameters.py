"""What a link does to packets, LinkParameters; what it did, DirectionCounters; why it cannot, LinkError."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

MAXIMUM_BANDWIDTH_MBIT = 100_000
MAXIMUM_DELAY_MS = 60_000
MAXIMUM_QUEUE_PACKETS = 1_000_000
MAXIMUM_SEED = 2**64 - 1


class LinkError(RuntimeError):
    """A link cannot be made or changed as asked; the message is a sentence that says why."""


@dataclass(frozen=True, slots=True)
class LinkParameters:
    """One direction of a link, the same for every backend.

    A packet waits in a drop-tail queue, is sent at the link's rate, may be lost in the air, and arrives after
    the delay.  Order is kept whatever the jitter.

    bandwidth_mbit: Mbit/s, counted over Ethernet frames without preamble and FCS (1,514 octets for an IP
        packet of 1,500); None: not limited.
    delay_ms: one-way propagation delay in milliseconds, added to queueing and sending.
    jitter_ms: each packet's delay is drawn evenly from delay_ms ± jitter_ms; at most delay_ms.
    loss_percent: each packet sent is lost with this probability, 0 to 100.
    queue_packets: how many packets may be waiting or being sent; the next one is dropped.  Without
        bandwidth_mbit nothing waits, and it has no effect.
    seed: the same seed gives the same decisions on loss and jitter for the same packets; None: random.

    Raises ValueError, naming the field.
    """

    bandwidth_mbit: float | None = None
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss_percent: float = 0.0
    queue_packets: int = 100
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.bandwidth_mbit is not None:
            _check_number("bandwidth_mbit", self.bandwidth_mbit, 0, MAXIMUM_BANDWIDTH_MBIT)
            if self.bandwidth_mbit == 0:
                raise ValueError("bandwidth_mbit: expected a rate above 0, or None for no limit")
        _check_number("delay_ms", self.delay_ms, 0, MAXIMUM_DELAY_MS)
        _check_number("jitter_ms", self.jitter_ms, 0, MAXIMUM_DELAY_MS)
        if self.jitter_ms > self.delay_ms:
            raise ValueError(f"jitter_ms: {self.jitter_ms} is more than delay_ms ({self.delay_ms}), "
                             "which would deliver packets before they are sent")
        _check_number("loss_percent", self.loss_percent, 0, 100)
        _check_integer("queue_packets", self.queue_packets, 1, MAXIMUM_QUEUE_PACKETS)
        if self.seed is not None:
            _check_integer("seed", self.seed, 0, MAXIMUM_SEED)

    @property
    def shaped(self) -> bool:
        """Whether packets are treated differently from a plain cable's."""
        return self.per_packet or self.delay_ms > 0

    @property
    def per_packet(self) -> bool:
        """Whether each packet is decided on by itself, so that none may travel as part of a larger frame."""
        return self.bandwidth_mbit is not None or self.jitter_ms > 0 or self.loss_percent > 0


@dataclass(frozen=True, slots=True)
class DirectionCounters:
    """What happened to the packets of one direction of a link since it was made.

    packets_in, octets_in: sent by the node into the link, octets of Ethernet frames (netem leaves out those
        that it dropped); where GSO frames pass in one piece, each counts as one packet.
    packets_out, octets_out: received by the other end.
    dropped_loss: by loss_percent; dropped_queue: by the full queue; dropped_carrier: because the link was
        cut, or the other end was down (the netem backend does not count those).
    in_flight: on the link at the time of asking.
    late_max_ms: by how much the latest frame came out too late because the machine was busy (the wire backend
        only, else None).  More than a millisecond or so: delays measured meanwhile are not to be trusted.
    """

    packets_in: int = 0
    octets_in: int = 0
    packets_out: int = 0
    octets_out: int = 0
    dropped_loss: int = 0
    dropped_queue: int = 0
    dropped_carrier: int = 0
    in_flight: int = 0
    late_max_ms: float | None = None


def _check_number(field: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise ValueError(f"{field}: expected a number, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{field}: {value} is not between {low} and {high}")


def _check_integer(field: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{field}: expected a whole number, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{field}: {value} is not between {low} and {high}")
