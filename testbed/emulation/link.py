"""Mininet links that are the same on every kernel: ShapedLink, LinkInterface, choose_link_backend.

    topo.addLink("mn", "ar1", cls=ShapedLink, parameters=LinkParameters(bandwidth_mbit=50, delay_ms=10))

Backends: "veth", a plain cable; "netem", a veth pair shaped by the kernel; "wire", TAP devices and a process
of ours that carries the frames between them (any kernel with TUN/TAP).  "auto" takes the first that can do
what is asked.  docs/links.md says how exact they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields, replace

from mininet.link import Intf, Link
from mininet.node import Node

from testbed.emulation.link_device import Device, Namespace
from testbed.emulation.link_parameters import DirectionCounters, LinkError, LinkParameters
from testbed.emulation.link_veth import VethCable
from testbed.emulation.link_wire import WireCable
from testbed.emulation.netem import has_netem
from testbed.emulation.wire_process import WireProcess

__all__ = ["BACKENDS", "DirectionCounters", "LinkError", "LinkInterface", "LinkParameters", "ShapedLink",
           "choose_link_backend"]

BACKENDS = ("auto", "netem", "wire")
PARAMETER_NAMES = frozenset(field.name for field in fields(LinkParameters))

log = logging.getLogger(__name__)


def choose_link_backend(forced: str = "auto") -> str:
    """The backend for shaped links on this machine: "netem" or "wire".

    forced: one of BACKENDS.  Raises LinkError when it is none of them, or when this kernel does not have it.
    """
    if forced not in BACKENDS:
        raise LinkError(f"there is no link backend {forced!r}; there are {', '.join(BACKENDS)}")
    if forced == "netem" and not has_netem():
        raise LinkError("the link backend netem needs the kernel's sch_netem and the command tc, and one of "
                        "them is not here; use wire or auto")
    if forced == "auto":
        return "netem" if has_netem() else "wire"
    return forced


class LinkInterface(Intf):
    """One end of a ShapedLink.  It is up and has its hardware address, and no IPv4 address, from the start.

    bridge (in params1 or params2 of the link): the bridge in its node of which it becomes a port.
    """

    def config(self, bridge: str | None = None, up: bool | None = None, **parameters: object) -> dict:
        result = super().config(up=up, **parameters)
        if bridge is not None:
            self.device.set_bridge(bridge)
        return result

    @property
    def device(self) -> Device:
        return Device(Namespace(self.node.pid), self.name)

    def delete(self) -> None:
        """Forget it; the device itself ends with its link."""
        self.node.delIntf(self)
        self.link = None


class ShapedLink(Link):
    """A link with rate, delay, jitter, loss and queue, that can be cut, and whose second end can move.

    backend: the one in use, "veth", "netem" or "wire".
    parameters, parameters_back: of the direction from node1 and from node2.
    carrier: whether the link is whole.
    failure: a sentence when the link has died by itself, which only the wire can, else None.
    """

    def __init__(self, node1: Node, node2: Node, port1: int | None = None, port2: int | None = None,
                 intfName1: str | None = None, intfName2: str | None = None, addr1: str | None = None,
                 addr2: str | None = None, intf: type[Intf] | None = None, params1: dict | None = None,
                 params2: dict | None = None, parameters: LinkParameters | None = None,
                 parameters_back: LinkParameters | None = None, backend: str = "auto",
                 wire: WireProcess | None = None, **params: object) -> None:
        """As mininet.link.Link, and:

        parameters: of both directions, or of the one from node1 where parameters_back is given, too.  Their
        fields may be given as arguments of their own: addLink(..., cls=ShapedLink, delay_ms=10).
        backend: one of BACKENDS; a link that shapes nothing is a plain veth pair unless the wire is forced.
        wire: a process for this link instead of the one that links share.

        Raises LinkError, or ValueError for parameters.
        """
        given = {name: params.pop(name) for name in list(params) if name in PARAMETER_NAMES}
        self.parameters = replace(parameters or LinkParameters(), **given)
        self.parameters_back = replace(parameters_back, **given) if parameters_back else self.parameters
        if self.parameters.shaped or self.parameters_back.shaped or backend != "auto":
            self.backend = choose_link_backend(backend)
        else:
            self.backend = "veth"
        self.failure: str | None = None
        self._listeners: list[Callable[[str], None]] = []
        self.fast = True

        params1, params2 = dict(params1 or {}, **params), dict(params2 or {}, **params)
        port1 = params1.setdefault("port", node1.newPort() if port1 is None else port1)
        port2 = params2.setdefault("port", node2.newPort() if port2 is None else port2)
        intfName1 = intfName1 or self.intfName(node1, port1)
        intfName2 = intfName2 or self.intfName(node2, port2)
        ends = Device(Namespace(node1.pid), intfName1), Device(Namespace(node2.pid), intfName2)
        both = self.parameters, self.parameters_back
        if self.backend == "wire":
            self.cable = WireCable(ends, (addr1, addr2), both, self._fail, wire)
        else:
            self.cable = VethCable(ends, (addr1, addr2), both)
        try:
            self.intf1 = self._interface(intfName1, node1, addr1, params1)
            self.intf2 = self._interface(intfName2, node2, addr2, params2)
        except BaseException:
            self.cable.delete()
            raise

    def _interface(self, name: str, node: Node, address: str | None, params: dict) -> LinkInterface:
        interface = LinkInterface(name, node, link=self, moveIntfFn=self._ignore, **params)
        interface.mac = address
        return interface

    @property
    def carrier(self) -> bool:
        return self.cable.carrier

    def set_carrier(self, up: bool) -> None:
        """Cut the link, which loses the packets on it, or make it whole.

        With netem, the second end (which must not be the one that is watched) is set down instead of losing
        its carrier.  Raises LinkError.
        """
        self.cable.set_carrier(up)

    def change(self, parameters: LinkParameters | None = None,
               parameters_back: LinkParameters | None = None) -> None:
        """Take new parameters for the direction from node1, from node2, or both; None: as it was.

        They hold for packets that enter the link from now on.  Raises LinkError when the link was made as a
        plain cable and the kernel cannot shape it.
        """
        if self.backend == "veth" and any(new and new.shaped for new in (parameters, parameters_back)):
            if not has_netem():
                raise LinkError(f"{self} was made as a plain cable, and this kernel has no netem to shape "
                                "it; make it with backend='wire'")
            self.backend = "netem"
        if parameters is not None:
            self.cable.change(0, parameters)
            self.parameters = parameters
        if parameters_back is not None:
            self.cable.change(1, parameters_back)
            self.parameters_back = parameters_back

    def move(self, node: Node, bridge: str | None = None) -> None:
        """Move the second end to another node, there to be a port of `bridge`.

        The first end loses its carrier meanwhile, and packets on the link are lost.  A link that is cut stays
        cut.  Raises LinkError.
        """
        if node is not self.intf2.node and self.intf2.name in node.nameToIntf:
            raise LinkError(f"{node} already has an interface named {self.intf2.name}")
        self.cable.move(Namespace(node.pid), bridge)
        if node is not self.intf2.node:
            self.intf2.node.delIntf(self.intf2)
            node.addIntf(self.intf2, moveIntfFn=self._ignore)
            self.intf2.node = node

    def counters(self, reset_lateness: bool = False) -> tuple[DirectionCounters, DirectionCounters]:
        """What happened to the packets from node1, and to those from node2.

        reset_lateness: late_max_ms starts anew after this.  Raises LinkError.
        """
        return self.cable.counters(reset_lateness)

    def on_failure(self, listener: Callable[[str], None]) -> None:
        """Have a function called, in another thread, with a sentence, if the link dies by itself."""
        self._listeners.append(listener)

    def _fail(self, reason: str) -> None:
        self.failure = reason
        log.error("%s is gone: %s", self, reason)
        for listener in self._listeners:
            listener(reason)

    def delete(self) -> None:
        """Remove the link; its devices are gone afterwards."""
        self._end(self.cable.delete)

    def stop(self) -> None:
        """Remove the link, as Mininet does when it stops; its devices may last a moment longer."""
        self._end(self.cable.release)

    def _end(self, end: Callable[[], None]) -> None:
        if self.intf1 is not None:
            end()
            self.intf1.delete()
            self.intf2.delete()
            self.intf1 = self.intf2 = None

