"""The whole chain on a real network: correspondent, home agent with two tunnels, mobile node; traffic,
captures, machine watch, result. The tunnels are IPv6-in-IPv6, the paths are told apart at the mobile node's
interfaces."""

import json
import os
import subprocess
import time

import pytest

from testbed.measure.capture import Capture
from testbed.measure.machine import LATE_ABOVE_MS, MachineWatch, read_machine
from testbed.measure.metadata import host_metadata, metadata
from testbed.measure.process import HostProcess, MeasurementError
from testbed.measure.traffic import BulkTransfer, Host, TcpProbe, UdpProbe, start_traffic, stop_traffic
from testbed.report.assembly import assemble
from testbed.report.flow_figures import FlowBinding
from testbed.report.result import read_result, write_result

CORRESPONDENT, HOME_ADDRESS = "2001:db8:300::2", "2001:db8:100::100"
#: Longer than a machine that stands still at times does so.
CUT_S = 2.5
TICK_S = 0.02
CARE_OF = {"mn-wlan": "2001:db8:201::100", "mn-cellular": "2001:db8:202::100"}


class Namespace:
    """A host: a network namespace held open by a process that does nothing."""

    def __init__(self):
        own = os.readlink("/proc/self/ns/net")
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        while os.readlink(f"/proc/{self.holder.pid}/ns/net") == own:
            pass

    def popen(self, arguments, **options):
        enter = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--"]
        return subprocess.Popen([*enter, *arguments], **options)

    def ip(self, *commands: str) -> None:
        process = self.popen(["ip", "-6", "-batch", "-"], stdin=subprocess.PIPE, text=True)
        process.communicate("\n".join(commands) + "\n")
        assert process.returncode == 0, commands

    def close(self) -> None:
        self.holder.kill()
        self.holder.wait()


class TwoPaths:
    """cn -- ha == wlan, cellular == mn. `use` steers all packets to the home address through one tunnel."""

    def __init__(self):
        self.cn, self.ha, self.mn = hosts = Namespace(), Namespace(), Namespace()
        for host in hosts:
            host.ip("link set lo up")
            host.popen(["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1",
                        "net.ipv6.conf.all.seg6_enabled=1", "net.ipv6.conf.default.seg6_enabled=1"]).wait()
        self._link(self.cn, "cn-ha", f"{CORRESPONDENT}/64", self.ha, "ha-cn", "2001:db8:300::1/64")
        self.cn.ip("link set cn-ha mtu 1400")  # leave room for the tunnels' header
        for number, name in enumerate(CARE_OF, 1):
            self._link(self.mn, name, f"{CARE_OF[name]}/64", self.ha, f"ha-{number}",
                       f"2001:db8:20{number}::1/64")
            # Decapsulate whatever arrives for the care-of address, before it is taken as local.
            self.mn.ip(f"route add {CARE_OF[name]}/128 encap seg6local action End.DT6 table 255 "
                       f"dev {name} table 99")
        self.mn.ip("rule add pref 1 ipproto 41 lookup 99", "rule add pref 2 lookup local", "rule del pref 0",
                   f"addr add {HOME_ADDRESS}/128 dev lo", f"route add {CORRESPONDENT} via 2001:db8:201::1")
        self.cn.ip("route add 2001:db8:100::/64 via 2001:db8:300::1")
        for host, interface in ((self.cn, "cn-ha"), (self.ha, "ha-cn"), (self.ha, "ha-1"), (self.ha, "ha-2"),
                                *((self.mn, name) for name in CARE_OF)):
            host.popen(["ethtool", "-K", interface, "tso", "off", "gso", "off", "gro", "off"],
                       stdout=subprocess.DEVNULL).wait()
        self.use("mn-wlan")

    @staticmethod
    def _link(left, left_name, left_address, right, right_name, right_address):
        left.ip(f"link add {left_name} type veth peer name {right_name} netns {right.holder.pid}",
                f"addr add {left_address} dev {left_name} nodad", f"link set {left_name} up")
        right.ip(f"addr add {right_address} dev {right_name} nodad", f"link set {right_name} up")

    def use(self, interface: str) -> None:
        number = list(CARE_OF).index(interface) + 1
        self.ha.ip(f"route replace {HOME_ADDRESS} encap seg6 mode encap.red segs {CARE_OF[interface]} "
                   f"dev ha-{number}")

    def carried(self, interface: str) -> int:
        """Packets that have come to the mobile node by the interface."""
        text = self.mn.popen(["cat", "/proc/net/dev"], stdout=subprocess.PIPE, text=True).communicate()[0]
        return next(int(line.split()[2]) for line in text.splitlines() if f" {interface}:" in f" {line}")

    def cut(self) -> None:
        """Lose what is on its way to the mobile node, until the next `use`."""
        self.ha.ip(f"route replace blackhole {HOME_ADDRESS}")

    def ping(self) -> None:
        """Wait until packets pass both ways over both tunnels."""
        for interface in (*CARE_OF, "mn-wlan"):
            self.use(interface)
            deadline = time.monotonic() + 10
            while self.cn.popen(["ping", "-q", "-c1", "-W1", HOME_ADDRESS], stdout=subprocess.DEVNULL).wait():
                assert time.monotonic() < deadline, f"no path over {interface}"

    def close(self) -> None:
        for host in (self.cn, self.ha, self.mn):
            host.close()


@pytest.fixture
def network():
    network = TwoPaths()
    yield network
    network.close()


def go_on_for(seconds: float) -> None:
    """The traffic itself takes this time, in which the machine runs: nothing is sent while it stands still.
    """
    for _ in range(int(seconds / TICK_S)):
        time.sleep(TICK_S)


def test_a_move_between_paths_from_traffic_to_result(network, tmp_path):
    network.ping()
    correspondent, mobile = Host(network.cn.popen, CORRESPONDENT), Host(network.mn.popen, HOME_ADDRESS)
    traffic = [
        TcpProbe("ssh", 1, correspondent, mobile, tmp_path, port=22),
        BulkTransfer("https", correspondent, mobile, tmp_path, port=443, bitrate=8_000_000),
        TcpProbe("web", 2, correspondent, mobile, tmp_path, port=80, kind="web", per_second=2,
                 page_size=50_000),
        UdpProbe("voip", 3, correspondent, mobile, tmp_path, port=5004, per_second=50, size=172),
        UdpProbe("uplink", 4, correspondent, mobile, tmp_path, port=5006, per_second=100, size=500,
                 downlink=False),
    ]
    at_cn = Capture(network.cn.popen, "cn", ["cn-ha"], tmp_path)
    at_mn = Capture(network.mn.popen, "mn", list(CARE_OF), tmp_path)
    watch = MachineWatch(subprocess.Popen, tmp_path)
    watch.start()
    for capture in (at_cn, at_mn):
        capture.start()
    for capture in (at_cn, at_mn):
        capture.wait_ready()
    origin_s = time.monotonic()
    start_traffic(traffic)
    started_s = time.monotonic()

    go_on_for(1.5)
    move_s = time.monotonic()
    network.use("mn-cellular")
    moved_s = time.monotonic()
    events = tmp_path / "events.jsonl"
    cause = {"t": move_s, "node": "experiment", "event": "flow-replace", "fid": 1}
    events.write_text(json.dumps(cause) + "\n")
    go_on_for(1.5)

    assert stop_traffic(traffic) == {}
    end_s = time.monotonic()
    for capture in (at_cn, at_mn):
        assert all(counts["drops"] == 0 for counts in capture.stop().values())
    watch.stop()
    samples = read_machine(watch.log)
    assert len(samples) > 10
    # what stood still meanwhile, be it the machine, was not the path
    still_ms = sum(sample.late_ms for sample in samples if sample.late_ms > LATE_ABOVE_MS)

    result = assemble(
        experiment="two paths", metadata=metadata(hosts={"cn": host_metadata(network.cn.holder.pid)}),
        origin_s=origin_s, end_s=end_s, traffic=traffic, bindings={"voip": FlowBinding(1, "udp 5004", 1)},
        correspondent=at_cn.files, access=at_mn.files, event_logs=[events, tmp_path / "none"],
        machine_log=watch.log)
    write_result(result, tmp_path / "result.json")
    result = read_result(tmp_path)
    assert result.metadata["hosts"]["cn"]["sysctls"]["net.ipv6.conf.all.forwarding"] == "1"

    voip = result.flow("voip")
    assert voip.fid == 1 and voip.sent > 100 and voip.received == voip.sent
    assert voip.lost == voip.duplicates == voip.reordered == 0
    assert voip.lost_at.sender == voip.lost_at.link == voip.lost_at.receiver == 0
    assert 15 < voip.interruption_ms < 200 + still_ms and voip.one_way_delay_ms.p50 < 5
    assert [path.interface for path in voip.paths] == list(CARE_OF)
    assert [path.care_of_addresses for path in voip.paths] == [[address] for address in CARE_OF.values()]
    assert sum(path.packets for path in voip.paths) == voip.received

    for name in ("ssh", "https", "web"):
        flow = result.flow(name)
        assert flow.counted == "capture" and flow.lost == 0 and flow.sent > 10, name
        assert {path.interface for path in flow.paths} == set(CARE_OF), name
    https = result.flow("https")
    assert https.goodput_bps < 8.8e6 and https.round_trip_ms.p50 < 50
    assert https.goodput_bps > 7.2e6 * (1 - still_ms / 1000 / (end_s - started_s))
    assert result.flow("web").page_time_ms.p50 < 200 + still_ms
    assert result.flow("ssh").record_delay_ms.p50 < 5
    uplink = result.flow("uplink")
    assert not uplink.downlink and uplink.received == uplink.sent > 100
    assert [path.interface for path in uplink.paths] == ["mn-wlan"]

    (handover,) = result.handovers
    assert handover.at_s == pytest.approx(move_s - origin_s, abs=1e-5)
    assert handover.flows["voip"].old_path == "mn-wlan" and handover.flows["voip"].new_path == "mn-cellular"
    assert 0 <= handover.stages_ms["first_packet"] <= handover.flows["voip"].first_packet_ms < 100 + still_ms
    assert handover.flows["voip"].lost == 0
    in_bins = result.time_series.flows["https"]
    series, carried = in_bins.throughput_bps, in_bins.carried_octets
    change, changed = (int((moment - origin_s) / 0.1) for moment in (move_s, moved_s))
    assert sum(series["mn-cellular"][:change]) == 0 and sum(series["mn-wlan"][changed + 2:]) == 0
    assert sum(map(sum, series.values())) * 0.1 / 8 == sum(path.octets for path in https.paths)
    assert sum(carried["mn-wlan"][changed + 1:]) == 0 < sum(carried["mn-cellular"][changed + 1:])
    assert {name: sum(octets) for name, octets in carried.items()} == {
        path.interface: path.octets for path in https.paths}
    assert sum(in_bins.sent) == https.sent


def test_a_capture_survives_the_interface_going_down_and_being_replaced(network, tmp_path):
    network.ping()
    capture = Capture(network.mn.popen, "mn", ["mn-cellular"], tmp_path)
    capture.start()
    capture.wait_ready()

    def captured(address: str) -> None:
        """Ping until the file shows it."""
        deadline = time.monotonic() + 10
        show = ["tcpdump", "-nr", capture.files[0].path, "icmp6"]
        while f"{address}: ICMP6, echo request" not in subprocess.run(
                show, capture_output=True, text=True).stdout:
            network.ha.popen(["ping", "-q", "-c1", "-W1", address], stdout=subprocess.DEVNULL).wait()
            assert time.monotonic() < deadline, address

    network.mn.ip("link set mn-cellular down", "link set mn-cellular up",
                  f"addr add {CARE_OF['mn-cellular']}/64 dev mn-cellular nodad")
    captured(CARE_OF["mn-cellular"])
    network.mn.ip("link del mn-cellular")
    TwoPaths._link(network.mn, "mn-cellular", "2001:db8:203::100/64",
                   network.ha, "ha-2", "2001:db8:203::1/64")
    captured("2001:db8:203::100")
    counts = capture.stop()["mn-cellular"]
    assert counts["drops"] == 0 and counts["packets"] >= 4


def test_traffic_survives_an_interruption_and_its_loss_is_where_it_happened(network, tmp_path):
    network.ping()
    correspondent, mobile = Host(network.cn.popen, CORRESPONDENT), Host(network.mn.popen, HOME_ADDRESS)
    traffic = [BulkTransfer("https", correspondent, mobile, tmp_path, port=443, bitrate=4_000_000),
               UdpProbe("voip", 1, correspondent, mobile, tmp_path, port=5004, per_second=50, size=172)]
    captures = [Capture(network.cn.popen, "cn", ["cn-ha"], tmp_path),
                Capture(network.mn.popen, "mn", list(CARE_OF), tmp_path)]
    for capture in captures:
        capture.start()
    for capture in captures:
        capture.wait_ready()
    origin_s = time.monotonic()
    start_traffic(traffic)
    go_on_for(1)
    cut_s = time.monotonic() - origin_s
    network.cut()
    is_cut_s = time.monotonic() - origin_s
    go_on_for(CUT_S)
    network.use("mn-cellular")
    dead_s = time.monotonic() - origin_s - cut_s
    carried, deadline = network.carried("mn-cellular"), time.monotonic() + 60
    while network.carried("mn-cellular") < carried + 400:  # TCP goes on when its next retransmission is due
        assert time.monotonic() < deadline, "the transfer does not go on"
    assert stop_traffic(traffic) == {}
    end_s = time.monotonic()
    for capture in captures:
        capture.stop()

    result = assemble(experiment="cut", metadata={}, origin_s=origin_s, end_s=end_s, traffic=traffic,
                      bindings={}, correspondent=captures[0].files, access=captures[1].files, event_logs=[])
    voip, https = result.flow("voip"), result.flow("https")
    late_s = voip.sender_lateness_ms.max / 1000
    shortest_s = CUT_S - 0.1
    assert https.error is None and https.retransmits and https.interruption_ms > 1000 * shortest_s
    assert 1000 * shortest_s < voip.interruption_ms < 1000 * (dead_s + late_s) + 300
    assert 50 * (shortest_s - late_s) - 1 < voip.lost < 50 * (dead_s + late_s) + 15
    assert (voip.lost_at.sender, voip.lost_at.link, voip.lost_at.receiver) == (0, voip.lost, 0)
    assert cut_s - late_s - 0.1 < voip.interruption_at_s < is_cut_s + 0.1


def test_a_transfer_over_a_dead_path_ends_with_an_error_not_with_a_hang(network, tmp_path):
    network.ping()
    bulk = BulkTransfer("https", Host(network.cn.popen, CORRESPONDENT), Host(network.mn.popen, HOME_ADDRESS),
                        tmp_path, port=443, bitrate=4_000_000)
    start_traffic([bulk])
    network.cut()
    assert stop_traffic([bulk]) == {}
    assert bulk.summaries["talker"]["error"] == "the path was dead at the end: no report came"


def test_a_client_without_a_server_is_an_error_in_one_sentence(network, tmp_path):
    network.ping()
    arguments = ["tcp-connect", "--kind", "web", "--local", HOME_ADDRESS, "--remote", CORRESPONDENT,
                 "--remote-port", 80, "--connect-timeout", 0.3, "--send-log", tmp_path / "a",
                 "--receive-log", tmp_path / "b"]
    client = HostProcess(network.mn.popen, "client of web", "testbed.measure.probe", arguments)
    with pytest.raises(MeasurementError, match="client of web ended before it was ready: .* refused"):
        client.wait_ready()
