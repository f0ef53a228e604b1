"""Shaping by the kernel's own queueing disciplines (tc): has_netem, shape, unshape, read_counters.

One direction is the egress of one device.  From the root, which is where packets enter:

- tbf at a rate that limits nothing: cuts GSO frames of up to 64 KiB into packets, as the ones below take one
  frame for one packet, be it a queue limit, loss or a rate that is asked for.
- netem with the rate and the queue: a packet is sent when those before it have been.  It stands apart because
  netem's limit counts whatever it holds, and packets that are merely under way must not fill the queue.
- netem with loss, delay and jitter.  Its rate limits nothing, either, but makes it keep the packets' order.

A direction with a delay only has the last one alone, so that 64 KiB frames pass in one piece.
"""

from __future__ import annotations

import json
import subprocess
from functools import lru_cache

from testbed.emulation.link_device import Device
from testbed.emulation.link_parameters import DirectionCounters, LinkError, LinkParameters

UNLIMITED_RATE = "1tbit"
UNLIMITED_QUEUE_PACKETS = 1_000_000
# One packet at a time is what makes tbf cut frames; this holds the largest Ethernet frame with a VLAN tag.
SEGMENTS = f"tbf rate {UNLIMITED_RATE} burst 1600 limit 1gb"
ROOT, QUEUE, DELAY = "1:", "2:", "3:"


@lru_cache
def has_netem() -> bool:
    """Whether the kernel has netem and tbf, and tc is installed: tried in a namespace that ends at once."""
    return _tries("delay 1ms")


@lru_cache
def has_netem_seed() -> bool:
    """Whether netem can be told a seed (Linux 6.6, iproute2 6.6)."""
    return has_netem() and _tries("loss 1% seed 1")


def _tries(options: str) -> bool:
    batch = f"qdisc add dev lo root handle {ROOT} {SEGMENTS}\nqdisc add dev lo parent {ROOT}1 netem {options}"
    try:
        tried = subprocess.run(["unshare", "--net", "tc", "-batch", "-"], input=batch, text=True,
                               capture_output=True)
    except FileNotFoundError:
        return False
    return tried.returncode == 0


def shape(device: Device, parameters: LinkParameters, previous: LinkParameters | None = None) -> None:
    """Shape what leaves the device.

    Packets on the link stay there if `previous` needed the same disciplines.  Raises LinkError as tc says.
    """
    if not parameters.shaped:
        if previous is not None and previous.shaped:
            unshape(device)
        return
    rate = UNLIMITED_RATE
    if parameters.bandwidth_mbit is not None:
        rate = f"{round(parameters.bandwidth_mbit * 1e6)}bit"
    delay = (f"netem limit {UNLIMITED_QUEUE_PACKETS} delay {parameters.delay_ms:.6f}ms "
             f"{parameters.jitter_ms:.6f}ms loss {parameters.loss_percent:.6f}% rate {UNLIMITED_RATE}")
    if parameters.seed is not None and has_netem_seed():
        delay += f" seed {parameters.seed}"
    if not parameters.per_packet:
        _tc(device, f"root handle {DELAY} {delay}")
        return
    _tc(device,
        f"root handle {ROOT} {SEGMENTS}",
        f"parent {ROOT}1 handle {QUEUE} netem limit {parameters.queue_packets} rate {rate}",
        f"parent {QUEUE}1 handle {DELAY} {delay}")


def unshape(device: Device) -> None:
    """Remove all disciplines of the device. Raises LinkError."""
    _run(device, f"qdisc del dev {device.name} root")


def _tc(device: Device, *disciplines: str) -> None:
    _run(device, "\n".join(f"qdisc replace dev {device.name} {discipline}" for discipline in disciplines))


def _run(device: Device, batch: str) -> None:
    with device.namespace.entered():
        done = subprocess.run(["tc", "-batch", "-"], input=batch, text=True, capture_output=True)
    if done.returncode:
        raise LinkError(f"tc cannot shape {device.name}: {' '.join(done.stderr.split())}")


def read_counters(device: Device, far: Device) -> DirectionCounters:
    """What happened to the packets that left the device towards the far one.

    The counters of the disciplines, and so drops, start anew when the device is moved.  Raises LinkError.
    """
    with device.namespace.entered():
        done = subprocess.run(["tc", "-s", "-j", "qdisc", "show", "dev", device.name],
                              stdin=subprocess.DEVNULL, text=True, capture_output=True)
    if done.returncode:
        raise LinkError(f"tc cannot read the counters of {device.name}: {' '.join(done.stderr.split())}")
    disciplines = {entry["handle"]: entry for entry in json.loads(done.stdout)}
    received = far.state().statistics
    sent = device.state().statistics
    if DELAY not in disciplines:
        return DirectionCounters(sent["tx_packets"], sent["tx_octets"], received["rx_packets"],
                                 received["rx_octets"])
    lost = disciplines[DELAY]["drops"]
    root = disciplines.get(ROOT, disciplines[DELAY])
    dropped = max(root["drops"], lost)
    return DirectionCounters(
        packets_in=sent["tx_packets"] + dropped + root["qlen"], octets_in=sent["tx_octets"] + root["backlog"],
        packets_out=received["rx_packets"], octets_out=received["rx_octets"],
        dropped_loss=lost, dropped_queue=dropped - lost, in_flight=root["qlen"])
