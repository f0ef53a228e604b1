"""One direction of a userspace link: Shaper decides when a frame arrives, Direction carries the frames.

Loaded by the wire process, which is started for speed without site packages: standard library only.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from random import Random
from time import monotonic_ns

# A read from a TAP device with IFF_VNET_HDR starts with a struct virtio_net_hdr of 10 octets; it is passed
# through unchanged, and does not count.
VNET_HEADER_OCTETS = 10
# The largest frame: 64 KiB of GSO payload, its headers, and the virtio header.
READ_OCTETS = 65536 + 256
# So many frames of one device are read before others have their turn and due frames are delivered.
BATCH_FRAMES = 64
# A link in userspace must not eat the machine's memory; beyond this frames are dropped as by a full queue.
MAXIMUM_IN_FLIGHT_OCTETS = 256 << 20

LOST = -1
QUEUE_FULL = -2


class Shaper:
    """When does a frame that enters the link now come out of it?  Times are integers in nanoseconds."""

    __slots__ = ("label", "seed", "ns_per_octet", "delay_ns", "jitter_ns", "loss", "queue_packets", "sending",
                 "finish", "last", "loss_random", "jitter_random")

    def __init__(self, parameters: dict, label: str = "") -> None:
        """parameters: the fields of LinkParameters; label: tells the two directions' random numbers apart."""
        self.label = label
        self.sending: deque[int] = deque()  # when each waiting frame will have been sent
        self.finish = 0  # when the last accepted frame will have been sent
        self.last = 0  # when the last delivered frame arrives: order is kept
        self._seed(parameters["seed"])
        self.change(parameters)

    def _seed(self, seed: int | None) -> None:
        # A generator for each purpose: what is lost must not depend on whether there is jitter.
        self.seed = seed
        self.loss_random = Random(None if seed is None else f"{seed} {self.label} loss").random
        self.jitter_random = Random(None if seed is None else f"{seed} {self.label} jitter").random

    def change(self, parameters: dict) -> None:
        """Take new parameters for the frames to come; the same seed goes on with its sequence."""
        bandwidth_mbit = parameters["bandwidth_mbit"]
        self.ns_per_octet = 8000 / bandwidth_mbit if bandwidth_mbit else 0
        self.delay_ns = round(parameters["delay_ms"] * 1e6)
        self.jitter_ns = parameters["jitter_ms"] * 1e6
        self.loss = parameters["loss_percent"] / 100
        self.queue_packets = parameters["queue_packets"]
        if parameters["seed"] != self.seed:
            self._seed(parameters["seed"])
        if not self.ns_per_octet:
            self.sending.clear()

    def schedule(self, now: int, octets: int) -> int:
        """The time at which a frame of so many octets arrives, or LOST, or QUEUE_FULL."""
        at = now
        if self.ns_per_octet:
            sending = self.sending
            while sending and sending[0] <= now:
                sending.popleft()
            if len(sending) >= self.queue_packets:
                return QUEUE_FULL
            if self.finish > now:
                at = self.finish
            at += int(octets * self.ns_per_octet)
            self.finish = at
            sending.append(at)
        # What is lost in the air has been sent: it took its time on the link.
        if self.loss and self.loss_random() < self.loss:
            return LOST
        at += self.delay_ns
        if self.jitter_ns:
            at += int((2 * self.jitter_random() - 1) * self.jitter_ns)
        if at < self.last:
            at = self.last
        self.last = at
        return at

    def clear(self) -> None:
        """Forget the frames on the link."""
        self.sending.clear()
        self.finish = self.last = 0


class Direction:
    """Carries frames from one TAP device to the other.

    The wire calls `receive` when `source` is readable and `deliver` when `pending[0]` is due.
    """

    __slots__ = ("source", "sink", "shaper", "pending", "in_flight_octets", "carrier", "queued", "packets_in",
                 "octets_in", "packets_out", "octets_out", "dropped_loss", "dropped_queue", "dropped_carrier",
                 "late_max_ns")

    def __init__(self, source: int, sink: int, shaper: Shaper) -> None:
        """source, sink: file descriptors of TAP devices."""
        self.source = source
        self.sink = sink
        self.shaper = shaper
        self.pending: deque[tuple[int, bytes]] = deque()
        self.in_flight_octets = 0
        self.carrier = False
        self.queued = False  # whether the wire has this direction in its agenda
        self.packets_in = self.octets_in = self.packets_out = self.octets_out = 0
        self.dropped_loss = self.dropped_queue = self.dropped_carrier = 0
        self.late_max_ns = 0

    def receive(self, read: Callable[[int, int], bytes] = os.read) -> None:
        """Take what `source` has, at most a batch.  Raises OSError when the device is gone."""
        schedule, pending, source = self.shaper.schedule, self.pending, self.source
        for _ in range(BATCH_FRAMES):
            try:
                frame = read(source, READ_OCTETS)
            except BlockingIOError:
                return
            octets = len(frame) - VNET_HEADER_OCTETS
            self.packets_in += 1
            self.octets_in += octets
            if not self.carrier:
                self.dropped_carrier += 1
                continue
            now = monotonic_ns()
            at = schedule(now, octets)
            if at == LOST:
                self.dropped_loss += 1
            elif at == QUEUE_FULL or self.in_flight_octets > MAXIMUM_IN_FLIGHT_OCTETS:
                self.dropped_queue += 1
            elif at <= now and not pending:
                self.write(frame)
            else:
                pending.append((at, frame))
                self.in_flight_octets += octets

    def deliver(self, now: int) -> None:
        """Hand over every frame that is due."""
        pending = self.pending
        late = now - pending[0][0]
        while pending and pending[0][0] <= now:
            at, frame = pending.popleft()
            self.in_flight_octets -= len(frame) - VNET_HEADER_OCTETS
            self.write(frame)
        # The first of them waited longest for its turn, the last for the others to be written.
        late = max(late, monotonic_ns() - at)
        if late > self.late_max_ns:
            self.late_max_ns = late

    def write(self, frame: bytes) -> None:
        try:
            os.write(self.sink, frame)
        except OSError:  # the device is down or gone: as with a cable, nobody listens
            self.dropped_carrier += 1
        else:
            self.packets_out += 1
            self.octets_out += len(frame) - VNET_HEADER_OCTETS

    def clear(self) -> None:
        """Lose the frames on the link."""
        self.dropped_carrier += len(self.pending)
        self.pending.clear()
        self.in_flight_octets = 0
        self.shaper.clear()

    def counters(self) -> dict:
        return {
            "packets_in": self.packets_in, "octets_in": self.octets_in,
            "packets_out": self.packets_out, "octets_out": self.octets_out,
            "dropped_loss": self.dropped_loss, "dropped_queue": self.dropped_queue,
            "dropped_carrier": self.dropped_carrier, "in_flight": len(self.pending),
            "late_max_ms": self.late_max_ns / 1e6,
        }
