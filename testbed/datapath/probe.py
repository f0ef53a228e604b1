"""Which tunnel backends this kernel has, found by using them in a private network namespace.

Functions: `in_private_namespace`, `try_backend`, `why_not`, `choose_tunnel_backend`.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network
from typing import TypeVar

from testbed.datapath.device import DetourDevice
from testbed.datapath.error import DatapathError
from testbed.datapath.netlink import ROUTE, Netlink, NetlinkError
from testbed.datapath.route import LinkIndices, UnknownInterface, dump_routes
from testbed.datapath.tunnel import Seg6Tunnel, Tunnel, ip6_tunnel
from testbed.mobility.forwarding import Path, Side

#: In the order of preference: the standard way, the way without a module.
BACKENDS = ("ip6tnl", "seg6")
_NEW_NETWORK_NAMESPACE = 0x40000000
_TABLE = 20016

T = TypeVar("T")


def in_private_namespace(function: Callable[[], T]) -> T:
    """Call the function in a network namespace that ends with the call.

    It runs in a thread of its own, which alone changes namespace. Raises OSError where there are no network
    namespaces to be had, and whatever the function raises.
    """
    outcome: list = []

    def work() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_NEW_NETWORK_NAMESPACE):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            outcome.append((function(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def why_not(backend: str) -> str | None:
    """None if the kernel of this machine has what the backend needs, else what is missing."""
    try:
        return in_private_namespace(lambda: try_backend(backend))
    except OSError as error:
        return f"no private network namespace to try it in ({error.strerror})"


def try_backend(backend: str) -> str | None:
    """Use the backend in this network namespace, which must be a private one; None or what is missing."""
    netlink = Netlink(ROUTE)
    detour = DetourDevice(netlink, "probe0", "probe1", 1460)
    tunnel: Tunnel = (
        Seg6Tunnel(Side.MOBILE, netlink, detour, 1460)
        if backend == "seg6"
        else ip6_tunnel(Side.MOBILE, netlink, "probe", 1460)
    )
    path = Path(1, IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2"))
    route = tunnel.route(_TABLE, IPv6Network("2001:db8:1::/64"), path)
    try:
        detour.ensure()
        tunnel.open()
        links = LinkIndices()
        netlink.execute([o.install(links) for o in (*tunnel.base(), route)])
        if route not in dump_routes(netlink, _TABLE, _TABLE + 1):
            return "the kernel does not keep the route as it was given"
    except (NetlinkError, DatapathError, UnknownInterface) as error:
        return error.strerror if isinstance(error, NetlinkError) else str(error)
    finally:
        netlink.close()
    return None


def choose_tunnel_backend(forced: str | None = None) -> str:
    """The name of the backend to use; `forced`, unless it is None or "auto", is taken if it can be had.

    Raises ValueError, with one sentence, if it cannot, or if there is none at all.
    """
    if forced not in (None, "auto"):
        if forced not in BACKENDS:
            raise ValueError(f"{forced} is no tunnel backend: choose one of {', '.join(BACKENDS)}.")
        reason = why_not(forced)
        if reason is not None:
            raise ValueError(f"this kernel cannot do {forced} tunnels: {reason}.")
        return forced
    reasons = {}
    for backend in BACKENDS:
        reason = why_not(backend)
        if reason is None:
            return backend
        reasons[backend] = reason
    told = "; ".join(f"{backend}: {reason}" for backend, reason in reasons.items())
    raise ValueError(f"this kernel has no tunnels for IPv6 in IPv6 ({told}).")
