"""Namespaces and a small network for the tests of the datapath. Classes: `Namespace`, `Network`, `Capture`.

A namespace is anonymous: a thread lives in it, and it ends with the thread. Correspondent node `cn`, home
agent `ha` with a home link (host `hn`), access routers `ar1` and `ar2`, mobile node `mn` with an interface
to each, a second mobile node `mn2` behind `ar1`. All addresses are static; nothing is shaped.
"""

import ctypes
import queue
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest

from testbed.datapath.probe import why_not
from testbed.mobility.forwarding import HomeBinding, Path

_CLONE_NEWNET = 0x40000000
_SO_TIMESTAMPNS = 35
_libc = ctypes.CDLL(None, use_errno=True)

HOME_AGENT = IPv6Address("2001:db8:100::1")
HOME_ADDRESS = IPv6Address("2001:db8:100::100")
HOME_ADDRESS_2 = IPv6Address("2001:db8:100::101")
CORRESPONDENT = IPv6Address("2001:db8:300::2")
WLAN = IPv6Address("2001:db8:201::100")
CELLULAR = IPv6Address("2001:db8:202::100")
WLAN_2 = IPv6Address("2001:db8:203::100")
PREFIX = IPv6Network("2001:db8:1000::/64")


#: How long a machine that stands still at times may take for what it is to do at once.
PATIENCE_S = 30.0


class Namespace:
    """A network namespace with a thread in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.processes: list[subprocess.Popen] = []
        self._work: queue.SimpleQueue = queue.SimpleQueue()
        ready: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        self.pid = ready.get()
        assert self.pid, "no network namespace to be had"
        self.shell("ip link set lo up")
        self.shell(
            "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad;"
            "echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad"
        )

    def _serve(self, ready: queue.SimpleQueue) -> None:
        failed = _libc.unshare(_CLONE_NEWNET)
        ready.put(0 if failed else threading.get_native_id())
        while True:
            job = self._work.get()
            if job is None:
                return
            function, answer = job
            try:
                answer.put((function(), None))
            except BaseException as error:
                answer.put((None, error))

    def run(self, function: Callable[[], Any]) -> Any:
        """Call the function in the namespace."""
        answer: queue.SimpleQueue = queue.SimpleQueue()
        self._work.put((function, answer))
        result, error = answer.get()
        if error is not None:
            raise error
        return result

    def shell(self, command: str, check: bool = True) -> str:
        """Standard output and error of a shell command in the namespace."""
        done = self.run(
            lambda: subprocess.run(
                ["sh", "-c", command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60
            )
        )
        assert not check or done.returncode == 0, f"{self.name}: {command}: {done.stdout}"
        return done.stdout

    def start(self, *command: str, **options: Any) -> subprocess.Popen:
        """A process in the namespace that ends with it."""
        process = self.run(lambda: subprocess.Popen(command, **options))
        self.processes.append(process)
        return process

    def socket(
        self, kind: int = socket.SOCK_DGRAM, protocol: int = 0, family: int = socket.AF_INET6
    ) -> socket.socket:
        made = self.run(lambda: socket.socket(family, kind, protocol))
        made.settimeout(PATIENCE_S)
        return made

    def received(self, interface: str) -> int:
        """Packets that came in by the interface."""
        text = self.shell("cat /proc/net/dev")
        return next(
            int(line.split(":")[1].split()[1]) for line in text.splitlines() if f"{interface}:" in line
        )

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self._work.put(None)
        self._thread.join()


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """The first true value of the condition. Fails after the time.

    It asks again and again: most conditions are the kernel's counters, routes and answers to pings, of which
    nobody tells.
    """
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def answers(node: Namespace, address: IPv6Address | str) -> bool:
    """Whether a ping is answered."""
    return " 0% packet loss" in node.shell(f"ping -c 1 -W 1 {address}", check=False)


_LINK_LOCAL_ADDRESSES = "ip -6 route show table local | grep -c '^local fe80:'"
_ETHERNETS = "ip -o link | grep -c ether"


class Network:
    #: The tunnel backend of the test, for those who make a datapath.
    backend = "auto"

    def __init__(self) -> None:
        self.nodes = {name: Namespace(name) for name in ("cn", "ha", "hn", "ar1", "ar2", "mn", "mn2")}
        for name, node in self.nodes.items():
            setattr(self, name, node)
            if name in ("ha", "ar1", "ar2"):
                node.shell("echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
        self._link("cn", "eth0", f"{CORRESPONDENT}/64", "ha", "cn", "2001:db8:300::1/64")
        self._link("ha", "home0", f"{HOME_AGENT}/64", "hn", "eth0", "2001:db8:100::2/64")
        for n in (1, 2):
            self._link("ha", f"ar{n}", f"2001:db8:ff0{n}::1/64", f"ar{n}", "core", f"2001:db8:ff0{n}::2/64")
            self.nodes["ha"].shell(f"ip -6 route add 2001:db8:20{n}::/64 via 2001:db8:ff0{n}::2")
            self.nodes[f"ar{n}"].shell(f"ip -6 route add default via 2001:db8:ff0{n}::1")
        self._link("ar1", "access", "2001:db8:201::1/64", "mn", "wlan", f"{WLAN}/64")
        self._link("ar2", "access", "2001:db8:202::1/64", "mn", "cellular", f"{CELLULAR}/64")
        self._link("ar1", "access2", "2001:db8:203::1/64", "mn2", "wlan", f"{WLAN_2}/64")
        self.nodes["ha"].shell("ip -6 route add 2001:db8:203::/64 via 2001:db8:ff01::2")
        for name, gateway in (
            ("cn", "2001:db8:300::1"),
            ("hn", HOME_AGENT),
            ("mn", "2001:db8:201::1"),
            ("mn2", "2001:db8:203::1"),
        ):
            self.nodes[name].shell(f"ip -6 route add default via {gateway}")

        # links become usable some time after they are set up
        for name, neighbour in (
            ("cn", "2001:db8:300::1"),
            ("hn", HOME_AGENT),
            ("ar1", "2001:db8:ff01::1"),
            ("ar2", "2001:db8:ff02::1"),
            ("mn", "2001:db8:201::1"),
            ("mn", "2001:db8:202::1"),
            ("mn2", "2001:db8:203::1"),
        ):
            node = self.nodes[name]
            wait_for(lambda node=node, to=neighbour: answers(node, to))
        for node in self.nodes.values():  # so do their link-local addresses
            wait_for(lambda node=node: node.shell(_LINK_LOCAL_ADDRESSES) == node.shell(_ETHERNETS))

    def __getattr__(self, name: str) -> Namespace:
        return self.nodes[name]

    def _link(self, a: str, a_name: str, a_address: str, b: str, b_name: str, b_address: str) -> None:
        one, other = self.nodes[a], self.nodes[b]
        one.shell(f"ip link add {a_name} type veth peer name {b_name} netns {other.pid}")
        for node, name, address in ((one, a_name, a_address), (other, b_name, b_address)):
            node.shell(f"ip address add {address} dev {name} nodad; ip link set {name} up")

    def close(self) -> None:
        for node in self.nodes.values():
            node.close()


def needed(backend: str) -> str:
    """The name of the tunnel backend; the test is skipped where this kernel does not have it."""
    reason = why_not(backend)
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")
    return backend


def path(bid: int, anchor: bool, care_of_address: IPv6Address | None = None) -> Path:
    """BID 1 is wlan, 2 is cellular."""
    address = care_of_address or {1: WLAN, 2: CELLULAR}[bid]
    if anchor:
        return Path(bid, HOME_AGENT, address)
    interface = {1: "wlan", 2: "cellular"}[bid]
    network = IPv6Network((address, 64), strict=False)
    return Path(bid, address, HOME_AGENT, interface, network[1])


def binding(
    anchor: bool, default: int | None = 2, rules: tuple = (), bids: tuple = (1, 2), **more: Any
) -> HomeBinding:
    return HomeBinding(HOME_ADDRESS, tuple(path(bid, anchor) for bid in bids), default, rules, **more)


def ipv6(
    source: Any,
    destination: Any,
    next_header: int,
    payload: bytes,
    hop_limit: int = 64,
    traffic_class: int = 0,
    flow_label: int = 0,
) -> bytes:
    """A whole IPv6 packet."""
    first = 6 << 28 | traffic_class << 20 | flow_label
    return (
        struct.pack("!IHBB", first, len(payload), next_header, hop_limit)
        + IPv6Address(source).packed
        + IPv6Address(destination).packed
        + payload
    )


def both_headers(packet: bytes) -> list[IPv6Address]:
    """The addresses of a packet with type 2 routing header and Home Address option: source, destination, home
    addresses of the two."""
    assert packet[6] == 43 and packet[40:48] == b"\x3c\2\2\1\0\0\0\0"
    assert packet[65:72] == b"\2\1\2\0\0\xc9\x10"
    assert struct.unpack("!H", packet[4:6])[0] == len(packet) - 40
    return [IPv6Address(packet[at : at + 16]) for at in (8, 24, 72, 48)]


def send_raw(node: Namespace, packet: bytes) -> None:
    """Send a whole IPv6 packet by ordinary routing."""
    with node.socket(socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(packet, (str(IPv6Address(packet[24:40])), 0))


def exchange(
    client_node: Namespace,
    client_address: IPv6Address,
    server_node: Namespace,
    server_address: IPv6Address,
    port: int,
    question: bytes,
    answer: bytes,
) -> None:
    """A datagram from one node to `port` of another, and one back; both come from whom they seem to."""
    with server_node.socket() as server, client_node.socket() as client:
        server.bind((str(server_address), port))
        client.bind((str(client_address), 0))
        client.sendto(question, (str(server_address), port))
        data, peer = server.recvfrom(65535)
        assert (data, peer[0]) == (question, str(client_address))
        server.sendto(answer, peer)
        data, peer = client.recvfrom(65535)
        assert (data, peer[0]) == (answer, str(server_address))


class Capture:
    """Packets as they come in (or go out) by an interface: whole IPv6 packets."""

    def __init__(self, node: Namespace, interface: str) -> None:
        self._socket = node.socket(socket.SOCK_DGRAM, socket.htons(0x86DD), socket.AF_PACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        node.run(lambda: self._socket.bind((interface, 0x86DD)))
        self._socket.setblocking(False)

    def packets(self, incoming: bool = True) -> list[bytes]:
        return [data for _, data in self.stamped(incoming)]

    def stamped(self, incoming: bool = True) -> list[tuple[float, bytes]]:
        """The packets since the last call, each with the time (`time.time`) at which the kernel had it: they
        may have waited for us."""
        found = []
        while True:
            try:
                data, ((_, _, stamp),), _, address = self._socket.recvmsg(65535, 64)
            except BlockingIOError:
                return found
            if (address[2] != 4) == incoming:
                seconds, nanoseconds = struct.unpack("qq", stamp)
                found.append((seconds + nanoseconds / 1e9, data))

    def close(self) -> None:
        self._socket.close()
