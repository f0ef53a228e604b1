"""Real agents that speak RFC 6089 with each other, read by tshark and scapy."""

import json
import subprocess
import sys

import pytest
from agent_network import CORRESPONDENT, HOME_ADDRESS, Agent
from datapath_network import Capture, wait_for
from scapy.layers.inet6 import IPv6
from scapy.utils import wrpcap

from testbed.agent.control import Refused
from testbed.scapy import MIP6OptFlowIdentificationRFC6089, MIP6OptFlowSummary

DIALECT = 'dialect = "rfc6089"\n'


def settled(mn):
    return all(b["registered"] == b["care_of_address"] for b in mn.ask("bindings")) and all(
        flow["state"] == "registered" for flow in mn.ask("flows")
    )


def essence(agent):
    return {f["fid"]: (f["action"], tuple(f["bids"]), f["description"]) for f in agent.ask("flows")}


@pytest.mark.requirement("RFC 6089 §5: flow bindings are added, changed, kept and removed by real agents")
def test_a_life_of_flow_bindings(network, tmp_path):
    with Agent(network.ha, tmp_path, first=DIALECT) as ha, Agent(network.mn, tmp_path, first=DIALECT) as mn:
        capture = Capture(network.ar, "core"), Capture(network.ar, "wlan"), Capture(network.ar, "cellular")
        wait_for(lambda: settled(mn))
        assert essence(ha) == essence(mn) == {1: ("forward", (1,), "tcp, source port 22")}
        mn.ask("flow-add", fid=2, bids=["wlan", "cellular"], action="n-cast", next_header="udp")
        mn.ask("flow-add", fid=3, bids=["cellular"])
        assert essence(ha) == essence(mn)
        assert essence(ha)[2] == ("n-cast", (1, 2), "udp")
        assert essence(ha)[3] == ("forward", (2,), "everything")
        mn.ask("flow-replace", fid=1, bids=["cellular"])
        mn.ask("flow-remove", fid=3)
        wait_for(lambda: essence(ha) == essence(mn))
        assert set(essence(ha)) == {1, 2} and essence(ha)[1][1] == (2,)
        network.set_link("cellular", False)
        try:
            wait_for(lambda: len({b["care_of_address"] for b in ha.ask("bindings")}) == 1)
            wait_for(lambda: essence(ha) == essence(mn))
        finally:
            network.set_link("cellular", True)
        wait_for(lambda: len({b["care_of_address"] for b in ha.ask("bindings")}) == 2)
        assert set(essence(ha)) == {1, 2}
        with pytest.raises(Refused, match="RFC 6089 has no flow bindings that discard"):
            mn.ask("flow-add", fid=9, action="discard")
        packets = [IPv6(data) for each in capture for data in each.packets() if data[6] in (43, 60)]
        _read_by_scapy_and_tshark(packets, tmp_path)
        assert mn.stop() == 0
        wait_for(lambda: ha.ask("bindings") == [])


def _read_by_scapy_and_tshark(packets, folder):
    options = [option for packet in packets for option in getattr(packet.lastlayer(), "options", ())]
    flows = [option for option in options if isinstance(option, MIP6OptFlowIdentificationRFC6089)]
    summaries = [option for option in options if isinstance(option, MIP6OptFlowSummary)]
    assert {flow.fid for flow in flows} == {1, 2, 3}
    assert {fid for summary in summaries for fid in summary.fids} == {1, 2, 3}
    file = folder / "messages.pcap"
    wrpcap(str(file), packets, linktype=229)  # LINKTYPE_IPV6
    command = ["tshark", "-r", str(file), "-V"]
    read = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert "Flow Identification" in read and "Flow Summary" in read
    assert "Malformed" not in read


SERVER = f"""
import socket
s = socket.create_server(("{CORRESPONDENT}", 22), family=socket.AF_INET6)
print("ready", flush=True)
c, _ = s.accept(); c.sendall(bytes(100000)); c.close()
"""
CLIENT = (
    f'import socket; s = socket.create_connection(("{CORRESPONDENT}", 22), 10, ("{HOME_ADDRESS}", 0)); '
    "print(sum(iter(lambda: len(s.recv(65536)), 0)))"
)


def packets_by_flow(node):
    """Packets that left by optimised routes, by FID."""
    found = json.loads(node.shell("nft -j list counters table ip6 flowbind_ro"))
    values = [item["counter"] for item in found["nftables"] if "counter" in item]
    return {value["name"].rpartition(".")[2]: value["packets"] for value in values if "." in value["name"]}


@pytest.mark.requirement("RFC 6089 §5.3: flow bindings at the agent of a correspondent node, on real packets")
def test_a_life_of_flow_bindings_at_a_correspondent_node(network, tmp_path):
    with (
        Agent(network.ha, tmp_path, first=DIALECT),
        Agent(network.cn, tmp_path, first=DIALECT) as cn,
        Agent(network.mn, tmp_path, first=DIALECT) as mn,
    ):
        wait_for(lambda: settled(mn))
        mn.ask("optimise", address=CORRESPONDENT)
        wait_for(lambda: len(cn.ask("bindings")) == 2 and cn.ask("flows"))
        assert essence(cn) == essence(mn) == {1: ("forward", (1,), "tcp, source port 22")}
        wait_for(lambda: mn.ask("routes")[0]["flows"][0]["state"] == "registered")
        server = network.cn.start(sys.executable, "-c", SERVER, stdout=subprocess.PIPE, text=True)
        assert server.stdout.readline() == "ready\n"
        assert network.mn.shell(f"{sys.executable} -c '{CLIENT}'").strip() == "100000"
        assert packets_by_flow(network.cn)["fid1"] > 1 and packets_by_flow(network.mn)["fid1"] > 1
        mn.ask("flow-add", fid=2, bids=["cellular"], next_header="udp")
        mn.ask("flow-add", fid=3, bids=["wlan", "cellular"], action="n-cast", next_header="icmpv6")
        mn.ask("flow-replace", fid=1, bids=["cellular"])
        wait_for(lambda: essence(cn) == {fid: e for fid, e in essence(mn).items() if fid != 3})
        assert {fid: bids for fid, (_, bids, _) in essence(cn).items()} == {1: (2,), 2: (2,)}
        mn.ask("flow-remove", fid=2)
        wait_for(lambda: set(essence(cn)) == {1})
        network.set_link("cellular", False)
        try:
            wait_for(lambda: len({b["care_of_address"] for b in cn.ask("bindings")}) == 1)
            assert set(essence(cn)) == {1}
        finally:
            network.set_link("cellular", True)
        wait_for(lambda: len({b["care_of_address"] for b in cn.ask("bindings")}) == 2)
        assert mn.stop() == 0
        wait_for(lambda: cn.ask("bindings") == [])
        assert cn.stop() == 0


@pytest.mark.requirement("RFC 6089 §5.2.6: a home agent that knows no such options supports no flow bindings")
def test_dialects_do_not_mix(network, tmp_path):
    with Agent(network.ha, tmp_path) as ha, Agent(network.mn, tmp_path, first=DIALECT) as mn:
        wait_for(lambda: mn.events("flow-bindings-unsupported"))
        wait_for(lambda: len(ha.ask("bindings")) == 2)
        assert ha.ask("flows") == []
        with pytest.raises(Refused, match="does not support flow bindings"):
            mn.ask("flow-add", fid=5, bids=["wlan"])
