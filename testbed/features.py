"""What the kernel of this machine offers, found by using it in a private network namespace.

Nothing on the machine is changed, but that the kernel may load modules of its own that are asked for.
Classes: `Feature`. Functions: `probe_features`, `usable` and one a feature.
"""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from testbed.datapath import mark, nftables, probe, xfrm
from testbed.datapath.netlink import (
    CREATE,
    EXCLUSIVE,
    GENERIC,
    NETFILTER,
    ROUTE,
    Netlink,
    NetlinkError,
    nested,
    text,
)
from testbed.datapath.route import LinkIndices, PolicyRule

_NEW_LINK, _NEW_QDISC = 16, 36
_MULTIPATH_TCP = 262
_TUN_SET_INTERFACE, _TAP = 0x400454CA, 0x1002


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that the testbed can use.

    `detail`: what it is for if it is present, what is missing if not; `fallback`: what is used without it,
    and `cost` what that loses; `needed`: without it the main job cannot run, and `remedy` says what to do.
    """

    name: str
    present: bool
    detail: str
    fallback: str = ""
    cost: str = ""
    needed: bool = False
    remedy: str = ""


# Each of these returns None if the kernel has it, else what is missing.


def namespaces() -> str | None:
    return None  # this runs in one


def device(kind: str) -> str | None:
    """A network device of that kind can be made."""
    netlink = Netlink(ROUTE)
    body = struct.pack("=BBHiII", 0, 0, 0, 0, 0, 0) + nested(18, text(1, kind))
    return _attempt(lambda: netlink.execute([(_NEW_LINK, CREATE | EXCLUSIVE, body)]))


def tap() -> str | None:
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR)
    except OSError as error:
        return f"/dev/net/tun: {error.strerror}"
    try:
        fcntl.ioctl(descriptor, _TUN_SET_INTERFACE, struct.pack("16sH22x", b"probe-tap", _TAP))
    except OSError as error:
        return error.strerror
    finally:
        os.close(descriptor)
    return None


def queueing(kind: str) -> str | None:
    """A queueing discipline of that kind: the kernel finds the bare request incomplete, not unknown."""
    netlink = Netlink(ROUTE)
    body = struct.pack("=BBHiIII", 0, 0, 0, 1, 0x10000, 0xFFFFFFFF, 0) + text(1, kind)
    error = netlink.attempt([(_NEW_QDISC, CREATE | EXCLUSIVE, body)])[0]
    return None if error is None or error.errno in (errno.EINVAL, errno.ERANGE) else error.strerror


def policy_routing() -> str | None:
    netlink = Netlink(ROUTE)
    to_host = PolicyRule(100, 20000, destination=mark.PLACEHOLDER)
    rules = [PolicyRule(100, 20000, 1 << 16, 0x7FFF0000), to_host]
    return _attempt(lambda: netlink.execute([rule.install(LinkIndices()) for rule in rules]))


def _rule(*expressions: bytes) -> str | None:
    """A table with a map and a rule of these expressions can be made."""
    netlink = Netlink(NETFILTER)
    table = nftables.Table("probe")
    messages = [
        table.create(""),
        table.set("map", (nftables.TYPE_ADDRESS,), nftables.TYPE_VERDICT),
        table.counter("counter"),
        table.base_chain("chain", "filter", nftables.PREROUTING, -300),
        table.rule("chain", nftables.Rule(b"".join(expressions))),
    ]
    return _attempt(lambda: netlink.transaction(table.BEGIN, messages, table.BEGIN))


def packet_filter() -> str | None:
    return _rule(
        nftables.load_destination_type(),
        nftables.load(nftables.TRANSPORT, 24, 16),
        nftables.dispatch("map"),
        nftables.count("counter"),
        nftables.set_mark(1 << 16, 0xFFFF),
        nftables.load_extension(43, 2, 1),
    )


def duplication() -> str | None:
    return _rule(nftables.immediate(bytes(16)), nftables.duplicate())


def reassembly() -> str | None:
    return _rule(nftables.protocol_is(6), nftables.reassemble())


def generic_family(name: str) -> str | None:
    """A generic netlink family of that name."""
    netlink = Netlink(GENERIC)
    return _attempt(lambda: netlink.request(0x10, struct.pack("=BBH", 3, 1, 0) + text(2, name)))


def multipath_tcp() -> str | None:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM, _MULTIPATH_TCP).close()
    except OSError as error:
        return error.strerror
    return None


def _attempt(function: Callable[[], object]) -> str | None:
    try:
        function()
    except NetlinkError as error:
        return error.strerror
    return None


_KERNEL = "use a kernel with it: a distribution's own has it"

#: Probe, and what is said of it: name, what it is for, fallback, cost, remedy where it is needed.
_PROBES: tuple[tuple[Callable[[], str | None], str, str, str, str, str], ...] = (
    (namespaces, "network namespaces", "each node has one", "", "", _KERNEL),
    (lambda: device("veth"), "veth", "links between nodes, and the datapath's detour", "", "", _KERNEL),
    (lambda: device("bridge"), "bridge", "access networks and the home link", "", "", _KERNEL),
    (tap, "tun/tap", "links of our own making, packets put in by agents", "", "links need netem", ""),
    (
        packet_filter,
        "nftables",
        "sorts packets into flows",
        "",
        "",
        "use a kernel with nf_tables, or load the module: modprobe nf_tables",
    ),
    (duplication, "nftables dup", "copies n-cast flows", "", "no n-casting", ""),
    (
        reassembly,
        "nftables tproxy",
        "has fragments put together, so that all follow their flow",
        "fragments that have no ports take the default path",
        "",
        "",
    ),
    (policy_routing, "policy routing", "a table for each path", "", "", _KERNEL),
    (
        lambda: probe.try_backend("ip6tnl"),
        "ip6_tunnel",
        "tunnels, the standard way",
        "seg6 tunnels",
        "no traceroute hop and no relayed ICMPv6 errors at the tunnel's entry",
        "",
    ),
    (lambda: probe.try_backend("seg6"), "seg6", "tunnels without a module", "ip6tnl tunnels", "", ""),
    (
        lambda: queueing("netem"),
        "netem",
        "delay and loss of links",
        "a wire of our own",
        "processor time",
        "",
    ),
    (lambda: queueing("htb"), "htb", "rates of links", "a wire of our own", "processor time", ""),
    (lambda: queueing("tbf"), "tbf", "rates of links", "htb", "", ""),
    (lambda: device("ifb"), "ifb", "shapes what comes in", "shaping at the other end", "", ""),
    (
        lambda: xfrm.why_not(xfrm.DESTINATION_OPTIONS, xfrm.ROUTE_OPTIMISATION),
        "XFRM route optimisation",
        "home address options in the kernel (CONFIG_IPV6_MIP6)",
        "BPF programs at the interfaces, or a process where these are not allowed",
        "",
        "",
    ),
    (
        lambda: xfrm.why_not(xfrm.ESP, xfrm.TRANSPORT),
        "ESP",
        "protects signalling by IPsec",
        "the authentication option (RFC 4285)",
        "",
        "",
    ),
    (
        lambda: generic_family("ovs_datapath"),
        "openvswitch",
        "software switches in the kernel",
        "Open vSwitch's userspace datapath",
        "about 0.8 Gbit/s at most",
        "",
    ),
    (multipath_tcp, "MPTCP", "comparison with multipath transport", "", "no such comparison", ""),
)


def usable() -> bool:
    """Whether private network namespaces can be had here (root, a kernel with them, a container that
    allows)."""
    try:
        return probe.in_private_namespace(lambda: True)
    except OSError:
        return False


def probe_features() -> list[Feature]:
    """All features, in a fixed order. Takes about a tenth of a second, more where modules get loaded."""
    features = []
    for function, name, purpose, fallback, cost, remedy in _PROBES:
        try:
            missing = probe.in_private_namespace(function)
        except OSError as error:
            missing = error.strerror or str(error)
        features.append(
            Feature(name, missing is None, missing or purpose, fallback, cost, bool(remedy), remedy)
        )
    return _joined(features)


def _joined(features: list[Feature]) -> list[Feature]:
    """Tunnels are needed in one way or the other."""
    present = {feature.name for feature in features if feature.present}
    if present & {"ip6_tunnel", "seg6"}:
        return features
    remedy = (
        "load the module (modprobe ip6_tunnel), or use a kernel with it or with CONFIG_IPV6_SEG6_LWTUNNEL"
    )
    return [
        Feature(f.name, False, f.detail, "", f.cost, True, remedy) if f.name in ("ip6_tunnel", "seg6") else f
        for f in features
    ]
