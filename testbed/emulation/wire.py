"""The wire process: carries the frames of a network's userspace links between their TAP devices.

`python wire.py FD PARENT`: FD is one end of a UNIX SOCK_SEQPACKET socket, of which wire_process.py has the
other; PARENT the process with which to end, or 0.  A request is a JSON object, with file descriptors of TAP
devices as ancillary data for the methods do_* that take them; each gets one answer, {"ok": true, ...} or
{"ok": false, "error": sentence}, with its number.  The process ends when the socket is closed: its devices,
which exist only as long as somebody has their file descriptors, end with it.

One process serves all links of a network: links share one core instead of fighting for it, and the machine
has one process that must be scheduled in time rather than one a link.

Loaded without site packages, for a start in some 10 ms: standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import heapq
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
from time import monotonic_ns

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from testbed.emulation.wire_direction import Direction, Shaper  # noqa: E402

TUNSETOFFLOAD = 0x400454D0
TUNSETCARRIER = 0x400454E2
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN, TUN_F_USO4, TUN_F_USO6 = 1, 2, 4, 8, 0x20, 0x40
PR_SET_PDEATHSIG, PR_SET_TIMERSLACK = 1, 29
MESSAGE_OCTETS = 65536
# Waking up costs some 25 µs of processor time in a virtual machine, carrying a packet 5 µs.  So at busy times
# what happens within this time is done together.  A packet that is alone does not wait.
PAUSE_NS = 250_000


class WireLink:
    """Two TAP devices and the two directions between them."""

    def __init__(self, devices: list[int], parameters: list[dict]) -> None:
        """devices: file descriptors; parameters: of the direction from devices[0], then from devices[1]."""
        self.devices = devices
        self.directions = [Direction(devices[i], devices[1 - i], Shaper(parameters[i], f"direction {i}"))
                           for i in (0, 1)]
        for i in (0, 1):
            self.set_offload(i, parameters[i])
        self.set_carrier(False)

    def set_offload(self, i: int, parameters: dict) -> None:
        """Where each packet counts by itself, the kernel has to cut and checksum frames beforehand."""
        per_packet = parameters["bandwidth_mbit"] or parameters["jitter_ms"] or parameters["loss_percent"]
        wanted = 0 if per_packet else TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN
        try:
            fcntl.ioctl(self.devices[i], TUNSETOFFLOAD, wanted | (wanted and TUN_F_USO4 | TUN_F_USO6))
        except OSError:  # a kernel before 6.2 has no USO
            fcntl.ioctl(self.devices[i], TUNSETOFFLOAD, wanted)

    def set_carrier(self, up: bool) -> None:
        """Cut or restore the link; frames on it when it is cut are lost."""
        for device in self.devices:
            try:
                fcntl.ioctl(device, TUNSETCARRIER, struct.pack("i", up))
            except OSError:
                pass  # this device is gone; the other end still has to know
        for direction in self.directions:
            direction.carrier = up
            if not up:
                try:  # what is still in the device's ring was sent before the cut
                    while True:
                        waiting = direction.packets_in
                        direction.receive()
                        if direction.packets_in == waiting:
                            break
                except OSError:
                    pass
                direction.clear()


class Wire:
    """The loop: reads frames, delivers them when they are due, obeys requests."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.links: dict[int, WireLink] = {}
        self.sources: dict[int, tuple[WireLink, Direction]] = {}  # by file descriptor
        self.agenda: list[tuple[int, int, Direction]] = []  # heap of (due, id, direction with frames)
        self.epoll = select.epoll()
        self.epoll.register(control, select.EPOLLIN)
        self.scheduling = "normal"

    def run(self) -> None:
        agenda, sources, poll = self.agenda, self.sources, self.epoll.poll
        control, epoll = self.control.fileno(), [self.epoll]
        woken = 0
        while True:
            now = monotonic_ns()
            while agenda and agenda[0][0] <= now:
                self.deliver(now)
                now = monotonic_ns()
            # select() waits with a precision of microseconds; epoll_wait() knows only milliseconds.
            pause = woken + PAUSE_NS - now
            if pause > 0:
                select.select((), (), (), pause / 1e9)
                now = monotonic_ns()
            if not agenda or agenda[0][0] > now:
                select.select(epoll, (), (), (agenda[0][0] - now) / 1e9 if agenda else None)
            woken = monotonic_ns()
            for device, _ in poll(0):
                if device in sources:
                    self.receive(*sources[device])
                elif device == control and not self.obey():
                    return

    def receive(self, link: WireLink, direction: Direction) -> None:
        try:
            direction.receive()
        except OSError:  # the device has been deleted, or its namespace has ended
            self.forget(direction.source)
            link.set_carrier(False)
            self.tidy()
        if direction.pending and not direction.queued:
            direction.queued = True
            heapq.heappush(self.agenda, (direction.pending[0][0], id(direction), direction))

    def deliver(self, now: int) -> None:
        direction = self.agenda[0][2]
        if direction.pending and direction.pending[0][0] <= now:
            direction.deliver(now)
        if direction.pending:
            heapq.heapreplace(self.agenda, (direction.pending[0][0], id(direction), direction))
        else:
            direction.queued = False
            heapq.heappop(self.agenda)

    def obey(self) -> bool:
        """Carry out one request; False when there will be no more."""
        try:
            data, devices, _, _ = socket.recv_fds(self.control, MESSAGE_OCTETS, 2)
        except ConnectionError:
            return False
        if not data:
            return False
        request = json.loads(data)
        number = request.pop("number")
        try:
            answer = {"ok": True, **(getattr(self, "do_" + request.pop("do"))(devices, **request) or {})}
        except Exception as error:  # an answer for whatever went wrong: the other links go on
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
            self.close(devices)
        self.control.send(json.dumps({"number": number, **answer}).encode())
        return True

    def do_add(self, devices: list[int], link: int, parameters: list[dict]) -> None:
        self.links[link] = added = WireLink(devices, parameters)
        self.watch(added, 0)
        self.watch(added, 1)

    def do_change(self, _devices: list[int], link: int, i: int, parameters: dict) -> None:
        changed = self.links[link]
        changed.directions[i].shaper.change(parameters)
        changed.set_offload(i, parameters)

    def do_carrier(self, _devices: list[int], link: int, up: bool) -> None:
        self.links[link].set_carrier(up)
        self.tidy()

    def do_replace(self, devices: list[int], link: int, i: int, parameters: dict) -> None:
        """The end `i` is another device from now on; the link is left without carrier."""
        changed = self.links[link]
        changed.set_carrier(False)
        self.tidy()
        old, changed.devices[i] = changed.devices[i], devices[0]
        self.forget(old)
        self.close([old])
        changed.directions[i].source = changed.directions[1 - i].sink = devices[0]
        self.watch(changed, i)
        changed.set_offload(i, parameters)
        changed.set_carrier(False)

    def do_counters(self, _devices: list[int], link: int, reset_lateness: bool = False) -> dict:
        directions = self.links[link].directions
        answer = [direction.counters() for direction in directions]
        if reset_lateness:
            for direction in directions:
                direction.late_max_ns = 0
        return {"directions": answer, "scheduling": self.scheduling}

    def do_remove(self, _devices: list[int], link: int) -> None:
        removed = self.links.pop(link)
        removed.set_carrier(False)
        self.tidy()
        for device in removed.devices:
            self.forget(device)
        self.close(removed.devices)

    def watch(self, link: WireLink, i: int) -> None:
        self.sources[link.devices[i]] = link, link.directions[i]
        self.epoll.register(link.devices[i], select.EPOLLIN)

    def forget(self, device: int) -> None:
        if self.sources.pop(device, None):
            self.epoll.unregister(device)

    def tidy(self) -> None:
        """Drop the appointments of directions that have been cleared."""
        for _, _, direction in self.agenda:
            direction.queued = bool(direction.pending)
        self.agenda[:] = [entry for entry in self.agenda if entry[2].pending]
        heapq.heapify(self.agenda)

    @staticmethod
    def close(devices: list[int]) -> None:
        # Closing removes the device, for which the kernel waits tens of milliseconds: the other links go on.
        threading.Thread(target=lambda: [os.close(device) for device in devices]).start()


def prepare(parent: int) -> str:
    """Be scheduled in time, and end with the parent.  Returns the scheduling that was permitted.  Raises
    SystemExit if the parent has ended already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if parent:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            raise SystemExit("the parent has ended")
    libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    for signal_number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signal_number, signal.SIG_IGN)  # Ctrl-C is for the experiment, which ends the wire last
    # All that lives now lives on, and the loop makes no cycles: collecting garbage would only take time.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        return "fifo"
    except OSError:
        pass
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        return "nice"
    except OSError:
        return "normal"


def main() -> None:
    wire = Wire(socket.socket(fileno=int(sys.argv[1])))
    wire.scheduling = prepare(int(sys.argv[2]))
    wire.run()


if __name__ == "__main__":
    main()
