"""A link in userspace, for kernels without netem: WireCable, two TAP devices and the process between them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict

from testbed.emulation.link_device import Device, Namespace, open_tap
from testbed.emulation.link_parameters import DirectionCounters, LinkParameters
from testbed.emulation.wire_process import WireProcess


class WireCable:
    """Two ends that are TAP devices.  Made with carrier."""

    def __init__(self, ends: tuple[Device, Device], addresses: tuple[str | None, str | None],
                 parameters: tuple[LinkParameters, LinkParameters], failed: Callable[[str], None],
                 wire: WireProcess | None = None) -> None:
        """parameters: from the first end, from the second; failed: called, in another thread, with a sentence
        when the wire process dies, and the devices with it; wire: not the process that other links share.

        Raises LinkError.
        """
        self.ends = list(ends)
        self.parameters = list(parameters)
        self.wire = wire or WireProcess.shared()
        self._left: dict[int, int] = {}  # by the process of a namespace: index of the device that was there
        taps: list[int] = []
        try:
            for device, address in zip(ends, addresses, strict=True):
                taps.append(open_tap(device, address))
            self._number = self.wire.open_link(taps, [asdict(wanted) for wanted in parameters], failed)
        finally:
            for tap in taps:
                os.close(tap)  # the wire process has its own
        try:
            for device in ends:
                device.set_up()
            self.set_carrier(True)
            self._address = ends[1].state().address
        except BaseException:
            self.delete()
            raise

    def change(self, i: int, parameters: LinkParameters) -> None:
        """Take new parameters for what end `i` sends."""
        self.wire.ask("change", link=self._number, i=i, parameters=asdict(parameters))
        self.parameters[i] = parameters

    def set_carrier(self, up: bool) -> None:
        """Cut or restore the link; both ends see it."""
        self.wire.ask("carrier", link=self._number, up=up)
        self._announce()
        self.carrier = up

    def _announce(self) -> None:
        for device in self.ends:
            device.announce_carrier()

    def move(self, namespace: Namespace, bridge: str | None) -> None:
        """Put the second end into another namespace.

        It is a new device of the same name and address there: moving one takes the kernel 20 ms, making one
        0.1 ms.
        """
        old = end = self.ends[1]
        if bridge is not None:
            Device(namespace, bridge).state()  # raises LinkError while nothing has been touched
        if not end.namespace.is_same(namespace):
            end = Device(namespace, end.name)
            # The device that was here before may not have vanished yet.
            if left := self._left.pop(namespace.pid, None):
                end.delete(left)
            tap = open_tap(end, self._address)
            try:
                index = old.state().index
                self.wire.ask("replace", [tap], link=self._number, i=1, parameters=asdict(self.parameters[1]))
            finally:
                os.close(tap)
            self.ends[1] = end
            self.ends[0].announce_carrier()
            self._left[old.namespace.pid] = index
        else:
            self.wire.ask("carrier", link=self._number, up=False)
            self._announce()
        if bridge is not None:
            end.set_bridge(bridge)
        end.set_up()
        if self.carrier:
            self.set_carrier(True)

    def counters(self, reset_lateness: bool = False) -> tuple[DirectionCounters, DirectionCounters]:
        """From the first end, from the second; reset_lateness: late_max_ms starts anew afterwards."""
        answer = self.wire.ask("counters", link=self._number, reset_lateness=reset_lateness)
        forward, backward = answer["directions"]
        return DirectionCounters(**forward), DirectionCounters(**backward)

    def delete(self) -> None:
        """Remove the link; its devices are gone afterwards."""
        for device in self.ends:
            device.delete()
        self.release()

    def release(self) -> None:
        """Remove the link; its devices are gone a moment later."""
        self.wire.close_link(self._number)
