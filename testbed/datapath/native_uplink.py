"""Packets of a mobile node that leave without a tunnel, because the network carries their flow. Class:
`NativeUplink`.

Where switches of the network mirror flow bindings, packets to the home address arrive on a care-of
interface as they are, outside any tunnel. This is then the network's word that it lets packets of the
same flow out there as they are, too: with the home address as their source. So the mobile node answers
in kind: for some seconds after such a packet on an interface, packets of the same flow whose path leads
through this interface leave without a tunnel. Which path that is remains the flow bindings' affair. One
packet of the flow that comes out of the tunnel ends it at once.

In the kernel: nf_tables table `ip6 flowbind_native`, and policy rules of `proto 178` that send what is
marked so to the tables by which tunnel packets leave. The home address as a source is only taken by
networks that know of it: others filter it (RFC 2827), which is why this is an option.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address

from testbed.datapath import mark
from testbed.datapath.error import DatapathError
from testbed.mobility.forwarding import HomeBinding

TABLE = "flowbind_native"
#: How long after a packet without a tunnel has come; seconds.
REMEMBER_S = 3
#: Where packets come out of tunnels with the ip6tnl backend.
TUNNEL_DEVICE = "flowbind2"
#: Marks: this + the number of the slot.
FIRST_NUMBER = 8192
#: Policy rules: before those that lead into tunnels.
PRIORITY = mark.SLOT_PRIORITY - 1
PROTOCOL = 178
#: Flows that are remembered for an interface.
MAX_FLOWS = 65536

_PORTS = "{ tcp, udp, dccp, sctp, udplite }"
_NUMBER = f"{mark.NUMBER_MASK:#x}"
_KEPT = f"{mark.KEPT | mark.COPY:#x}"


@dataclass(frozen=True, slots=True)
class _Path:
    """One way out: packets of that slot leave by `interface`, and those without a number where it is the
    default path (see `mark.entrance`)."""

    home_address: IPv6Address
    interface: str
    slot: int
    is_default: bool


class NativeUplink:
    """Keeps the kernel's table in step with the datapath of a mobile node.

    `tunnel_device`: where packets come out of tunnels, if there is such a device. Raises DatapathError
    without the programs nft and ip.
    """

    def __init__(self, tunnel_device: str | None = None) -> None:
        if not self._program("nft") or not self._program("ip"):
            raise DatapathError("packets without a tunnel need nft and ip: install nftables and iproute2.")
        self._tunnel_device = tunnel_device
        self._paths: tuple[_Path, ...] = ()
        self._there = False

    def apply(
        self, bindings: Mapping[IPv6Address, HomeBinding], slots: Mapping[IPv6Address, Mapping[int, int]]
    ) -> None:
        """Follow the paths of all home addresses; `slots`: BID -> slot, of each.

        Raises DatapathError; then nothing leaves without a tunnel.
        """
        paths = tuple(
            sorted(
                (
                    _Path(
                        binding.home_address,
                        path.interface,
                        slots[binding.home_address][path.bid],
                        path.bid == binding.default_bid,
                    )
                    for binding in bindings.values()
                    for path in binding.paths
                    if path.interface is not None and path.on_link is None
                ),
                key=lambda path: (path.home_address, path.slot),
            )
        )
        if self._there and paths == self._paths:
            return
        try:
            self._install(paths)
        except DatapathError:
            self.close()
            raise
        self._paths, self._there = paths, True

    def close(self) -> None:
        """Remove everything from the kernel."""
        self._run("ip", ["ip", "-6", "rule", "flush", "protocol", str(PROTOCOL)])
        self._run("nft", ["nft", "-f", "-"], f"table ip6 {TABLE}\ndelete table ip6 {TABLE}\n")
        self._paths, self._there = (), False

    def _install(self, paths: tuple[_Path, ...]) -> None:
        before = {path.slot for path in self._paths} if self._there else set()
        slots = {path.slot for path in paths}
        rules = [f"rule del {self._selector(slot)}" for slot in sorted(before - slots)]
        if not self._there:
            self._run("ip", ["ip", "-6", "rule", "flush", "protocol", str(PROTOCOL)])
        rules += [
            f"rule add {self._selector(slot)} lookup {mark.outer_table(slot)} protocol {PROTOCOL}"
            for slot in sorted(slots - before)
        ]
        if rules:
            self._must(["ip", "-6", "-batch", "-"], "\n".join(rules) + "\n")
        # sets are made anew: what an interface has seen before the change tells nothing about the time after
        self._must(["nft", "-f", "-"], self._script(paths))

    def _selector(self, slot: int) -> str:
        number = FIRST_NUMBER + mark.slot_number(slot)
        return f"fwmark {mark.value(number):#x}/{_NUMBER} priority {PRIORITY}"

    def _script(self, paths: tuple[_Path, ...]) -> str:
        interfaces = sorted({path.interface for path in paths})
        names = {interface: f"seen{index}" for index, interface in enumerate(interfaces)}
        addresses = sorted({path.home_address for path in paths})
        sets, arrivals, tunnelled, departures = [], [], [], []
        for interface, name in names.items():
            for suffix, kind in (("", " . inet_service . inet_service"), ("_others", "")):
                sets.append(
                    f"set {name}{suffix} {{ type ipv6_addr . inet_proto{kind}; flags dynamic,timeout;"
                    f" timeout {REMEMBER_S}s; size {MAX_FLOWS}; }}"
                )
            for address in addresses:
                native = f'iifname "{interface}" ip6 daddr {address} meta mark & {_NUMBER} == 0'
                with_ports, others = self._statements(name)
                arrivals += [f"{native} {with_ports.replace('ACT', 'update')}"]
                arrivals += [f"{native} {others.replace('ACT', 'update')}"]
        for address in addresses:
            came = f"ip6 daddr {address} meta mark & {_NUMBER} != 0"
            if self._tunnel_device:
                came = f'ip6 daddr {address} iifname "{self._tunnel_device}"'
            for name in names.values():
                with_ports, others = self._statements(name)
                tunnelled += [f"{came} {with_ports.replace('ACT', 'delete')}"]
                tunnelled += [f"{came} {others.replace('ACT', 'delete')}"]
        for path in paths:
            name, number = names[path.interface], FIRST_NUMBER + mark.slot_number(path.slot)
            slot = f"{mark.value(mark.slot_number(path.slot)):#x}"
            numbers = f"{{ 0, {slot} }}" if path.is_default else slot
            chosen = f"ip6 saddr {path.home_address} meta mark & {_NUMBER} {numbers}"
            leave = f"meta mark set meta mark & {_KEPT} | {mark.value(number):#x}"
            departures += [
                f"{chosen} meta l4proto {_PORTS}"
                f" ip6 daddr . meta l4proto . th dport . th sport @{name} {leave}",
                f"{chosen} meta l4proto != {_PORTS} ip6 daddr . meta l4proto @{name}_others {leave}",
            ]
        lines = [
            f"table ip6 {TABLE}",
            f"delete table ip6 {TABLE}",
            f"table ip6 {TABLE} {{",
            *sets,
            "chain arrivals { type filter hook prerouting priority -250; policy accept;",
            *arrivals,
            "}",
            "chain tunnelled { type filter hook input priority -250; policy accept;",
            *tunnelled,
            "}",
            "chain departures { type route hook output priority -140; policy accept;",
            *departures,
            "}",
            "}",
        ]
        return "\n".join(lines) + "\n"

    @staticmethod
    def _statements(name: str) -> tuple[str, str]:
        """ACT on the element of a packet's flow: with ports, without. The correspondent node comes first."""
        return (
            f"meta l4proto {_PORTS} ACT @{name} {{ ip6 saddr . meta l4proto . th sport . th dport }}",
            f"meta l4proto != {_PORTS} ACT @{name}_others {{ ip6 saddr . meta l4proto }}",
        )

    @staticmethod
    def _program(name: str) -> str | None:
        return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")

    def _run(self, program: str, command: list[str], text: str = "") -> subprocess.CompletedProcess:
        return subprocess.run(
            [self._program(program), *command[1:]], input=text, capture_output=True, text=True
        )

    def _must(self, command: list[str], text: str) -> None:
        done = self._run(command[0], command, text)
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines()[:1]
            raise DatapathError(
                f"packets cannot leave without a tunnel: {reason[0] if reason else command[0]}"
            )
