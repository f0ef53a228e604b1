"""What flow bindings compete with. Classes: `Outside`, `NoMobility`, `PerPacket`, `MultipathTcp`."""

import socket
from collections.abc import Mapping, Sequence

from testbed.strategy.strategy import Binding, Carrier, Event, Flow, Link, Strategy

_MULTIPATH_TCP = 262


class Outside(Strategy):
    """Base of all: there are no flow bindings to decide about."""

    def decide(self, flows: Sequence[Flow], links: Sequence[Link], event: Event) -> Mapping[str, Binding]:
        return {}


class NoMobility(Outside):
    """No Mobile IPv6: applications use the care-of address in the first network, and are lost with it."""

    name = "none"
    summary = "plain routing to one care-of address"
    carrier = Carrier.PLAIN


class PerPacket(Outside):
    """Packets of every flow in turns over all networks, which the draft forbids in §3.1: they overtake each
    other."""

    name = "per-packet"
    summary = "packets in turns over all networks, which the draft forbids"
    carrier = Carrier.SPRAYED


class MultipathTcp(Outside):
    """The kernel's Multipath TCP (RFC 8684) over both care-of addresses; UDP flows cannot use it."""

    name = "mptcp"
    summary = "the kernel's Multipath TCP, without Mobile IPv6"
    carrier = Carrier.MULTIPATH_TCP
    protocols = frozenset({"tcp"})

    def missing(self) -> str | None:
        try:
            socket.socket(socket.AF_INET6, socket.SOCK_STREAM, _MULTIPATH_TCP).close()
        except OSError:
            return "this kernel has no Multipath TCP (CONFIG_MPTCP, sysctl net.mptcp.enabled)"
        return None
