"""Bindings mirrored into real switches: `ovs-ofctl dump-flows` and traffic say what happens."""

import itertools
import json
import os
import socket
import statistics
import threading
import time

import pytest
from backend import backends
from controller_network import (
    FOREIGN,
    OURS,
    ControllerNetwork,
    needed_datapath,
    needs_controller,
    needs_switches,
)

from testbed.emulation.controller import FlowBindingController
from testbed.emulation.process import wait_until
from testbed.measure.traffic import start_traffic

pytestmark = [needs_switches, needs_controller, pytest.mark.long]

#: What a sender catches up with that stood still for 1.5 s fits a port's queue, of some 160 packets.
PER_SECOND = 75.0
SSH = {"next_header": "tcp", "source_port": "22"}


def udp(port):
    return {"next_header": "udp", "source_port": str(port)}


@pytest.fixture(scope="module", params=backends("switch"))
def network(tmp_path_factory, request):
    folder, datapath = tmp_path_factory.mktemp("controller"), needed_datapath(request.param)
    with ControllerNetwork(folder, datapath=datapath, audit_s=1.0, feed_grace_s=2.0) as network:
        yield network


@pytest.fixture
def bound(network):
    """`bound(fid, ...)` adds a flow binding and waits for its rules; all are removed at the end."""
    fids = []

    def bind(fid, bids=("mn-wlan",), **arguments):
        network.bind("add", fid, bids=list(bids), **arguments)
        fids.append(fid)
        network.await_mirrored(fid)

    yield bind
    for fid in fids:
        network.bind("remove", fid)
    wait_until(lambda: not network.rules("s0", table=10)[1:], 30, "the removal of all rules")


def test_a_flow_binding_becomes_rules_of_the_core_and_of_its_access_network(network, bound):
    bound(1, priority=10, **SSH)
    (rule,) = network.rules("s0", fid=1)
    assert "ipv6_dst=2001:db8:100::100" in rule and "tp_src=22" in rule and 'output:"s0-s1"' in rule
    assert "dec_ttl" in rule and "eth_dst" in rule
    (rule,) = network.rules("s1", fid=1)
    assert "ipv6_src=2001:db8:100::100" in rule and "tp_dst=22" in rule and rule.endswith("actions=NORMAL")
    assert network.rules("s2", fid=1) == []
    network.bind("replace", 1, bids=["mn-cellular"])
    wait_until(lambda: 'output:"s0-s2"' in network.rules("s0", fid=1)[0], 30, "the move of the rule")
    wait_until(lambda: not network.rules("s1", fid=1), 30, "the removal of the old rule")
    assert network.rules("s2", fid=1)[0].endswith("actions=NORMAL")
    assert network.has_foreign_rule()


def test_both_directions_pass_by_the_home_agent_and_nothing_is_lost(network, bound):
    bound(2, **udp(5002))
    down, up = network.probe("down", 5002), network.probe("up", 5002, downlink=False)
    network.run(0.5, network.probe("first", 5002))  # the mobile node learns that it may do without the tunnel
    before = network.ha_packets()
    (arrived,) = network.run(1.0, down)
    assert arrived.sent > 80 and arrived.lost == 0 and arrived.duplicates == 0
    assert network.ha_packets()[0] == before[0], "packets to the mobile node went through the home agent"
    sent = arrived.sent
    wait_until(lambda: network.flows()[2]["packets"] >= sent, 30, "the count at the core switch")
    (arrived,) = network.run(1.0, up)
    assert arrived.sent > 80 and arrived.lost == 0


def test_an_answer_leaves_without_a_tunnel(network, bound):
    bound(3, next_header="icmpv6")
    ping = ["ping", "-6", "-n", "-c", "20", "-i", "0.05", "2001:db8:100::100"]
    assert " 0% packet loss" in network.cn.execute(*ping)

    def packets(switch):  # a switch counts with some delay
        return sum(rule["packets"] for rule in network.flows()[3]["rules"] if rule["switch"] == switch)

    wait_until(lambda: packets("core") >= 20, 30, "20 requests at the core switch")
    # the first answers may still take the tunnel
    wait_until(lambda: packets("wlan") >= 18, 30, "18 answers at the access network's switch")


def test_tcp_has_right_checksums_and_the_full_rate(network, bound):
    bound(4, next_header="tcp", source_port="5201")
    before = network.ha_packets()[0]
    server = network.cn.spawn("iperf3", "--server", "--one-off", log="iperf3-server.log")
    listening = ["ss", "-Hltn", "sport", "=", ":5201"]
    wait_until(lambda: network.cn.execute(*listening), 30, "the iperf3 server")
    network.mn.execute(
        "iperf3",
        "--client",
        "2001:db8:300::2",
        "--bind",
        "2001:db8:100::100",
        "--time",
        "2",
        "--reverse",
        "--json",
    )
    server.wait(60)
    wait_until(lambda: network.flows()[4]["octets"] > 5_000_000, 30, "the count at the core switch")
    assert network.ha_packets()[0] - before < 20, "only the handshake may pass the home agent"


def test_n_cast_is_a_group_and_every_packet_arrives_twice(network, bound):
    bound(5, bids=("mn-wlan", "mn-cellular"), action="n-cast", **udp(5005))
    assert "group:" in network.rules("s0", fid=5)[0]
    groups = network.daemon.ofctl("dump-groups", "s0")
    assert "type=all" in groups and groups.count("bucket=") == 2
    (arrived,) = network.run(1.0, network.probe("copies", 5005))
    assert arrived.lost == 0 and arrived.duplicates == arrived.sent


def test_flowbind_rules_shows_bindings_beside_their_rules(network, bound):
    bound(18, priority=10, **udp(5018))
    network.bind("add", 19, bids=["mn-wlan"], priority=1, next_header="esp", spi="5")
    try:
        (arrived,) = network.run(0.5, network.probe("counted", 5018))
        sent = arrived.sent

        def listed():
            return {
                flow["fid"]: flow for flow in json.loads(network.ha.execute("flowbind", "rules", "--json"))
            }

        wait_until(lambda: listed()[18]["switches"]["packets"] == sent, 30, "the count of the switches")
        wait_until(lambda: "SPI" in listed()[19]["reason"], 30, "the reason")
        assert listed()[18]["mirrored"] and not listed()[19]["mirrored"]
        text = network.ha.execute("flowbind", "rules", "--verbose")
        assert "udp_src=5018" in text and "home agent" in text
    finally:
        network.bind("remove", 19)


def test_unused_groups_are_removed(network):
    wait_until(lambda: "type=" not in network.daemon.ofctl("dump-groups", "s0"), 30, "the end of all groups")


def test_discard_is_done_by_the_core_switch(network, bound):
    bound(6, action="discard", **udp(5006))
    assert network.rules("s0", fid=6)[0].endswith("actions=drop")
    before = network.ha_packets()[0]
    (arrived,) = network.run(0.5, network.probe("gone", 5006))
    assert arrived.received == 0 and arrived.sent > 30
    assert network.ha_packets()[0] == before


def test_what_openflow_cannot_express_stays_with_the_home_agent_and_is_reported(network):
    network.bind("add", 7, bids=["mn-wlan"], next_header="esp", spi="5", priority=1)
    network.bind("add", 8, bids=["mn-wlan"], priority=2, **udp(5008))
    try:
        network.await_mirrored(8)
        flow = network.flows()[7]
        assert not flow["mirrored"] and "SPI" in flow["reason"]
        assert network.rules("s0", fid=7)[0].endswith("actions=NORMAL")
        (arrived,) = network.run(0.5, network.probe("other", 5008))
        assert arrived.lost == 0
    finally:
        network.bind("remove", 7)
        network.bind("remove", 8)


def test_packets_without_a_rule_are_filtered_by_their_source(network):
    """RFC 2827: the home address is no source of the access network."""
    spoof = (
        "from scapy.all import Ether, IPv6, UDP, sendp, conf; import sys;"
        "sendp(Ether(dst=sys.argv[1])/IPv6(src='2001:db8:100::100', dst='2001:db8:300::2')/"
        "UDP(sport=9, dport=9999), iface='mn-wlan', verbose=False)"
    )
    router = network.network["ar1"].execute("cat", "/sys/class/net/lan0/address").strip()

    def refused():
        lines = network.s1.rules("table=0") + network.s1.rules("table=10")
        return sum(int(line.split("n_packets=")[1].split(",")[0]) for line in lines if "drop" in line)

    before = refused()
    network.mn.execute("python", "-c", spoof, router)
    wait_until(lambda: refused() > before, 30, "the refusal")


def test_a_handover_moves_the_rules(network, bound):
    bound(9, **udp(5009))
    link = next(link for link in network.network.links if link.intf1.name == "mn-wlan")
    link.set_carrier(False)
    try:
        wait_until(lambda: 'output:"s0-s2"' in "".join(network.rules("s0", fid=9)), 30, "the rules' move")
    finally:
        link.set_carrier(True)
    wait_until(lambda: 'output:"s0-s1"' in "".join(network.rules("s0", fid=9)), 30, "the rules' return")


def test_rules_follow_within_50_ms_and_flows_that_stay_lose_nothing(network, bound):
    bound(10, **udp(5010))
    bound(11, **udp(5011))
    stays = network.probe("stays", 5010, PER_SECOND)
    started = time.monotonic()
    network.run(0.3, network.probe("first", 5010))
    start_traffic([stays])
    for number in range(50):
        port = "s0-s2" if number % 2 == 0 else "s0-s1"
        network.bind("replace", 11, bids=["mn-cellular" if number % 2 == 0 else "mn-wlan"])
        output = f'output:"{port}"'
        wait_until(lambda wanted=output: wanted in "".join(network.rules("s0", fid=11)), 30, "the change")
    (arrived,) = network.finish(stays)
    assert arrived.lost == 0 and arrived.duplicates == 0
    assert arrived.sent > 30
    changes = latencies_ms(network, started)
    assert len(changes) >= 50
    if "FLOWBIND_EMULATED" not in os.environ:  # an emulated processor's time says nothing of a real one's
        assert statistics.median(changes) < 50


def latencies_ms(network, since):
    """From each change of the binding cache to the switches having its rules, milliseconds."""
    found, cause = [], None
    for event in sorted(network.events(), key=lambda event: event["t"]):
        if event["t"] < since:
            continue
        if event["node"] == "ha" and event["event"] == "binding-changed":
            cause = event["t"]
        elif event["event"] == "rules-ready" and cause is not None:
            found.append((event["t"] - cause) * 1000)
            cause = None
    return found


def test_a_crash_of_the_switches_is_survived(network, bound):
    bound(12, **SSH)
    wanted = {switch: network.rules(switch) for switch in ("s0", "s1", "s2")}
    network.daemon.kill_switching()
    network.daemon.start_switching()
    for switch in (network.s0, network.s1, network.s2):
        switch.put_base_rules()
    wait_until(lambda: {s: network.rules(s) for s in wanted} == wanted, 30, "the rules' return")
    wait_until(network.gate_is_open, 30, "the opening of the gate")
    network.daemon.ofctl("add-flow", "s0", FOREIGN)


def test_rules_that_others_change_are_put_right_and_those_of_others_stay(network, bound):
    bound(13, **SSH)
    wanted = network.rules("s0")
    network.daemon.ofctl("del-flows", "s0", f"{OURS},table=10")
    wait_until(lambda: network.rules("s0") == wanted, 30, "the repair")
    assert network.has_foreign_rule()


def test_a_full_table_is_reported_leaves_nothing_behind_and_is_tried_again(network):
    network.daemon.vsctl(
        "--",
        "--id=@full",
        "create",
        "Flow_Table",
        "flow_limit=3",
        "overflow_policy=refuse",
        "--",
        "set",
        "Bridge",
        "s0",
        "flow_tables:10=@full",
    )
    try:
        network.bind("add", 14, bids=["mn-wlan"], **udp(5014))
        wait_until(lambda: "table is full" in (network.flows()[14]["reason"] or ""), 30, "the report")
        assert network.rules("s0", fid=14) == [], "half of it was installed"
        (arrived,) = network.run(0.5, network.probe("by the home agent", 5014))
        assert arrived.lost == 0
    finally:
        network.daemon.vsctl("clear", "Bridge", "s0", "flow_tables")
    network.await_mirrored(14)
    network.bind("remove", 14)


def test_without_the_controller_the_home_agent_takes_over(network, bound):
    bound(15, **udp(5015))
    network.run(0.3, network.probe("first", 5015))
    down = network.probe("down", 5015, PER_SECOND)
    up = network.probe("up", 5016, PER_SECOND, downlink=False)
    start_traffic([down, up])
    network.controller.kill()
    wait_until(lambda: not network.gate_is_open(), 30, "the closing of the gate")
    before = network.ha_packets()[0]
    wait_until(lambda: network.ha_packets()[0] > before + 100, 30, "packets through the home agent")
    arrived = network.finish(down, up)
    for one in arrived:
        assert longest_loss(one) < PER_SECOND, "a second's packets in a row"
    network.controller.start()
    network.await_mirrored(15)
    wait_until(network.gate_is_open, 30, "the opening of the gate")
    assert network.has_foreign_rule()


def longest_loss(one):
    """How many packets in a row were lost."""
    arrived = [-1, *sorted(map(int, one.order)), one.sent]
    return max(later - earlier - 1 for earlier, later in itertools.pairwise(arrived))


def test_the_controller_takes_its_rules_along_when_it_ends(network, bound):
    bound(16, **SSH)
    network.controller.stop()
    for switch in ("s0", "s1", "s2"):
        assert network.rules(switch) == [] and network.rules(switch, table=0) == []
    assert network.has_foreign_rule()
    network.controller.start()
    network.await_mirrored(16)


def test_the_home_agents_end_ends_the_rules_and_its_return_brings_them_back(network, bound):
    bound(17, **SSH)
    network.ha.kill_agent()
    wait_until(lambda: not network.rules("s0", fid=17), 30, "the end of the rules")
    network.start_home_agent()  # it takes up the promises of its earlier life
    network.await_mirrored(17)


def test_a_malformed_feed_does_not_end_the_controller(tmp_path):
    """What answers at the feed's socket is no agent, or one that sends nonsense."""
    path = "/run/flowbind/no-agent.sock"
    answers = [b"nonsense\n", b'{"feed":"change","serial":5,"bindings":[],"removed":[]}\n', b"{}\n" * 3]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen(4)

        def serve():
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        fabric = {
            "core": 1,
            "edge_ports": ["e"],
            "feeds": [path],
            "access": [
                {
                    "name": "a",
                    "prefix": "2001:db8:201::/64",
                    "switch": 2,
                    "core_port": "p",
                    "network_ports": [],
                }
            ],
        }
        controller = FlowBindingController("nonsense", fabric=fabric, log_directory=tmp_path)
        controller.start()
        try:
            thread.join(30)
            assert not thread.is_alive()
            wait_until(
                lambda: controller.log_file.read_text().count("is not understood") >= 2, 30, "complaints"
            )
            assert controller.ask("status")["bindings"] == 0
        finally:
            controller.stop()
            os.unlink(path)
