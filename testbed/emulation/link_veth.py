"""A link within the kernel: VethCable, a veth pair, shaped by netem where asked."""

from __future__ import annotations

from testbed.emulation import netem
from testbed.emulation.link_device import Device, Namespace, make_veth
from testbed.emulation.link_parameters import DirectionCounters, LinkParameters


class VethCable:
    """Two ends that are veth devices.  Made with carrier.

    Taking carrier away sets the second end down: the first end sees what it would see at a pulled plug, and
    addresses at the second end stay.
    """

    def __init__(self, ends: tuple[Device, Device], addresses: tuple[str | None, str | None],
                 parameters: tuple[LinkParameters, LinkParameters]) -> None:
        """parameters: from the first end, from the second.  Raises LinkError."""
        self.ends = list(ends)
        self.parameters = list(parameters)
        make_veth(*ends, addresses)
        try:
            ends[1].set_sysctl("keep_addr_on_down", 1)
            for device, wanted in zip(ends, parameters, strict=True):
                netem.shape(device, wanted)
                device.set_up()
        except BaseException:
            ends[0].delete()
            raise
        self.carrier = True
        self._announce()

    def _announce(self) -> None:
        for device in self.ends:
            device.announce_carrier()

    def change(self, i: int, parameters: LinkParameters) -> None:
        """Take new parameters for what end `i` sends."""
        netem.shape(self.ends[i], parameters, self.parameters[i])
        self.parameters[i] = parameters

    def set_carrier(self, up: bool) -> None:
        """Cut or restore the link."""
        self.ends[1].set_up(up)
        if not up and self.parameters[0].shaped:
            self.ends[0].drop_queue()  # what is on the link is lost; the other end's went with its device
        self._announce()
        self.carrier = up

    def move(self, namespace: Namespace, bridge: str | None) -> None:
        """Put the second end into another namespace."""
        end = self.ends[1]
        if bridge is not None:
            Device(namespace, bridge).state()  # raises LinkError while nothing has been touched
        if not end.namespace.is_same(namespace):
            end.move(namespace)  # carrier is lost here
            self.ends[0].announce_carrier()
            end.set_sysctl("keep_addr_on_down", 1)
            netem.shape(end, self.parameters[1])
        else:
            end.set_up(False)
            self.ends[0].announce_carrier()
        if bridge is not None:
            end.set_bridge(bridge)
        if self.carrier:
            end.set_up()
            self._announce()

    def counters(self, reset_lateness: bool = False) -> tuple[DirectionCounters, DirectionCounters]:
        """From the first end, from the second."""
        return netem.read_counters(*self.ends), netem.read_counters(*reversed(self.ends))

    def delete(self) -> None:
        """Remove both devices. Raises LinkError."""
        self.ends[0].delete()

    def release(self) -> None:
        """As delete: a veth pair does not last longer for it."""
        self.delete()
