"""Bindings kept somewhere else than at the home agent. Classes: `RouteOptimised`, `Anchored`, `Mirrored`."""

import importlib.util
import shutil

from testbed.strategy.fixed import Static
from testbed.strategy.strategy import Carrier


class RouteOptimised(Static):
    """As `static`, with the bindings at the correspondent node (draft §7, RFC 6275 §11.7.2)."""

    name = "route-optimised"
    summary = "by application, bindings at the correspondent node"
    carrier = Carrier.CORRESPONDENT


class Anchored(Static):
    """As `static`, with the bindings at a mobility anchor point (draft §8.3, RFC 5380)."""

    name = "anchored"
    summary = "by application, bindings at a mobility anchor point"
    carrier = Carrier.ANCHOR_POINT


class Mirrored(Static):
    """As `static`, with the bindings mirrored into rules of OpenFlow switches."""

    name = "mirrored"
    summary = "by application, bindings mirrored into switches"
    carrier = Carrier.SWITCHES

    def missing(self) -> str | None:
        if importlib.util.find_spec("os_ken") is None:
            return "it needs os-ken, and that is not installed: pip install os-ken"
        if shutil.which("ovs-vswitchd", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin") is None:
            return "it needs Open vSwitch, and that is not installed: apt-get install openvswitch-switch"
        return None
