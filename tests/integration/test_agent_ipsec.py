"""Signalling between real agents that the kernel protects by IPsec: ESP with manual keys."""

import json
import shutil
import subprocess
import sys
import time
from ipaddress import IPv6Address

import ipsec
import pytest
from agent_network import HOME_ADDRESS, HOME_AGENT, ROOT, AgentNetwork
from datapath_network import send_raw, wait_for
from ipsec import OTHER_HOME, Wire, decrypted, home_agent, mobile_node, state, statistics
from ipv6_ready import case
from observations import registered
from signalling import BA, BRR, BU, binding_identifier, ipv6_packet, mobility_header, with_options

from testbed.datapath.protection import why_not

requirement = pytest.mark.requirement
esp = pytest.mark.backend("signalling", "ESP")

ESP, ROUTING, OPTIONS, MOBILITY = 50, 43, 60, 135
NO_HOME = str(IPv6Address(HOME_ADDRESS) + 2)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    ipsec.needed()
    network = AgentNetwork(tmp_path_factory.mktemp("network"))
    yield network
    network.close()


@pytest.fixture(autouse=True)
def forgetful(request):
    """What killed agents leave is gone after the test: associations, and with them sequence numbers."""
    yield
    if "network" in request.fixturenames:
        network = request.getfixturevalue("network")
        for node in (network.mn, network.ha):
            node.shell("ip xfrm state flush; ip xfrm policy flush")


@pytest.fixture
def wire(network):
    wire = Wire(network)
    yield wire
    wire.close()


@esp
@requirement("RFC 6275 §5.1: Binding Updates and Acknowledgements are protected by ESP in transport mode")
@requirement("RFC 3776 §3.1: Home Address option, then ESP; type 2 routing header, then ESP")
@requirement("RFC 3776 §4.1: manual configuration of security associations")
@requirement("RFC 5648 §5.2: the care-of address is in the Binding Identifier option, where ESP protects it")
@case("MN-1-1-2-1-001", what="Use the manual configuration of security association between MN and HA")
def test_registration(network, wire, tmp_path):
    untouched = {node: node.shell(LISTING) for node in (network.mn, network.ha)}
    with home_agent(network, tmp_path) as ha, mobile_node(network, tmp_path) as mn:
        wait_for(lambda: registered(mn))
        mn.ask("flow-add", fid=2, bids=["cellular"], next_header="udp")
        assert len(ha.ask("bindings")) == 2 and [flow["fid"] for flow in ha.ask("flows")] == [1, 2]
        packets = wire.packets()
        assert packets and {(data[6], data[40]) for data in packets} == {(OPTIONS, ESP), (ROUTING, ESP)}
        for data in packets:
            source, destination = map(str, map(IPv6Address, (data[8:24], data[24:40])))
            assert {source, destination} & {network.address("mn-wlan"), network.address("mn-cellular")}
            assert HOME_AGENT in (source, destination)
            assert IPv6Address(data[48:64]) == IPv6Address(HOME_ADDRESS)
        if shutil.which("tshark"):
            found = decrypted(packets, tmp_path / "esp.pcap")
            kinds = [int(kind) for kind, *_ in found]
            assert kinds.count(BU) >= 2 and kinds.count(BA) >= 2 and set(kinds) == {BU, BA}
            assert all(bad == "0" or bad == "False" or not bad for *_, bad, _ in found)
            for kind, care_of, alternate, *_ in found:
                assert bool(care_of) == (int(kind) == BU) and not alternate
        network.set_link("wlan", False)
        try:
            wait_for(lambda: len({b["care_of_address"] for b in ha.ask("bindings")}) == 1)
            wait_for(lambda: registered(mn))
        finally:
            network.set_link("wlan", True)
        wait_for(lambda: len({b["care_of_address"] for b in ha.ask("bindings")}) == 2)
        wait_for(lambda: registered(mn))
        network.mn.shell(f"ping -c 2 -W 2 -I {HOME_ADDRESS} 2001:db8:100::2")
        for agent in (mn, ha):
            for command in ("status", "bindings", "counters"):
                assert ipsec.TO_HOME_AGENT[2] not in json.dumps(agent.ask(command))
        assert mn.stop() == 0
        wait_for(lambda: ha.ask("bindings") == [])
        assert not {data[6] for data in wire.packets()} & {MOBILITY, ESP}
        assert ha.stop() == 0
    for node, before in untouched.items():
        assert node.shell(LISTING) == before


LISTING = "ip xfrm state; ip xfrm policy; nft list ruleset; ip -6 rule; ip -6 address show dev lo"


def update(network, sequence, lifetime_s=60):
    """A Binding Update (Mobility Header) of the mobile node's, at the care-of address in wlan."""
    address = network.address("mn-wlan", "2001:db8:201:")
    data = with_options(
        bytes((sequence >> 8, sequence & 255, 0xC0, 0, 0, lifetime_s // 4)), binding_identifier(1, address)
    )
    return mobility_header(BU, data), address


@esp
@requirement("RFC 6275 §5.1, draft §10: a Binding Update that ESP does not protect changes nothing")
@requirement("RFC 3776 §4.2: a mobile node cannot use its association for another home address")
@requirement("RFC 3776 §4.3: a Binding Update is only accepted with the care-of address inside of ESP")
def test_what_is_not_authentic_changes_nothing(network, tmp_path):
    with home_agent(network, tmp_path, encrypted=False) as ha:
        begin = 1000
        header, address = update(network, 1)
        send_raw(network.ar, ipsec.protected(header, address, begin))
        wait_for(lambda: ha.ask("bindings"))  # what is made here is right, as long as nothing is changed
        before, drops = state(ha), statistics(network.ha)
        header, _ = update(network, 2, 0)
        right = ipsec.protected(header, address, begin + 1)
        changed = right[:-30] + bytes((right[-30] ^ 1,)) + right[-29:]
        for packets, counter in (
            ([ipsec.protected(header, address, begin + 1, key="55" * 32), changed], "XfrmInStateProtoError"),
            ([ipsec.protected(header, address, begin)], "XfrmInStateSeqError"),
            ([ipsec.protected(header, address, begin - 40)], "XfrmInStateSeqError"),
            ([ipsec.protected(header, address, begin + 1, OTHER_HOME)], "XfrmInStateMismatch"),
        ):
            for data in packets:
                send_raw(network.ar, data)
            wanted = drops[counter] + len(packets)
            wait_for(lambda counter=counter, wanted=wanted: statistics(network.ha)[counter] == wanted)
            drops = statistics(network.ha)
            assert state(ha) == before
        # by no ESP at all: the agent says why
        counted = ha.ask("counters")["messages"]["dropped"]
        send_raw(network.ar, ipv6_packet(address, HOME_AGENT, header, HOME_ADDRESS))
        send_raw(network.ar, ipv6_packet(address, HOME_AGENT, header, NO_HOME))
        wait_for(lambda: ha.ask("counters")["messages"]["dropped"] == counted + 2)
        reasons = [event["reason"] for event in ha.events("message-dropped")]
        assert "not protected by ESP (RFC 6275 §5.1)" in reasons[-2]
        assert "no security association" in reasons[-1]
        # ESP, but the care-of address is nowhere but in the IPv6 header
        plain = mobility_header(BU, bytes((0, 3, 0xC0, 0, 0, 15)))
        send_raw(network.ar, ipsec.protected(plain, address, begin + 2))
        wait_for(lambda: "no option with the care-of address" in ha.events("message-dropped")[-1]["reason"])
        assert state(ha) == before
        send_raw(network.ar, ipsec.protected(header, address, begin + 3))  # and what is right still is
        wait_for(lambda: ha.ask("bindings") == [])


@esp
@requirement("RFC 3776 §4.4, draft §10: what is played back changes nothing, before and after restarts")
def test_played_back(network, wire, tmp_path):
    with home_agent(network, tmp_path) as ha, mobile_node(network, tmp_path) as mn:
        wait_for(lambda: registered(mn))
        mn.ask("flow-replace", fid=1, bids=["cellular"])
        mn.ask("flow-remove", fid=1)
        old = wire.packets()
        before = state(ha, mn)

        def errors(node):
            return statistics(node)["XfrmInStateSeqError"]

        def play():
            drops = [errors(node) for node in (network.ha, network.mn)]
            for data in old:
                send_raw(network.ar, data)
            updates = sum(data[6] == OPTIONS for data in old)
            wanted = [drops[0] + updates, drops[1] + len(old) - updates]
            wait_for(lambda: [errors(node) for node in (network.ha, network.mn)] == wanted)

        assert {data[6] for data in old} == {OPTIONS, ROUTING}
        play()
        assert state(ha, mn) == before
        # killed: the kernel still has the associations, and takes the new agents' messages
        for agent in (ha, mn):
            agent.process.kill()
            agent.process.wait()
            agent.start()
        wait_for(lambda: registered(mn))
        play()
        assert mn.stop() == 0
        wait_for(lambda: ha.ask("bindings") == [])
        # ended: they are gone, what was received is in the file
        assert ha.stop() == 0
        ha.start()
        mn.start()
        wait_for(lambda: registered(mn))
        before = state(ha, mn)
        play()
        assert state(ha, mn) == before


@esp
@requirement("RFC 6275 §5.1: a Binding Acknowledgement that ESP does not protect is not believed")
def test_acknowledgements_without_esp(network, tmp_path):
    with mobile_node(network, tmp_path) as mn:
        sent = wait_for(lambda: mn.events("binding-update-sent"))[-1]
        acknowledgement = bytes((0, 0)) + sent["sequence"].to_bytes(2, "big") + b"\0\xf0"
        for count, (kind, data) in enumerate(((BA, acknowledgement), (BRR, bytes(2))), start=1):
            header = mobility_header(kind, data)
            at = sent["care_of_address"]
            send_raw(network.ar, ipv6_packet(HOME_AGENT, at, header, routing_address=HOME_ADDRESS))
            wait_for(lambda count=count: len(mn.events("message-dropped")) == count)
        assert all("not protected by ESP" in event["reason"] for event in mn.events("message-dropped"))
        assert not any(binding["registered"] for binding in mn.ask("bindings"))


@esp
@requirement("RFC 3776 §3.3, §4.1: prefix discovery is protected by ESP")
def test_prefix_discovery(network, wire, tmp_path):
    with home_agent(network, tmp_path, first="prefix_interval_s = [0, 1]\n") as ha:
        with mobile_node(network, tmp_path) as mn:
            wait_for(lambda: registered(mn))
            wire.packets()
            done = ha.flowbind("home-prefix", "2001:db8:100::/64", "--valid", "3600", "--preferred", "30")
            assert done.returncode == 0, done.stderr
            wait_for(lambda: mn.ask("status")["home_prefixes"])
            assert {(data[6], data[40]) for data in wire.packets()} <= {(OPTIONS, ESP), (ROUTING, ESP)}


def test_a_kernel_without_it(tmp_path):
    """The agent says so, and what to do, and does not start."""
    if why_not() is None:
        pytest.skip("this kernel can do it")
    file = tmp_path / "mn.toml"
    file.write_text(
        f'role = "mobile-node"\nname = "mn"\nhome_address = "{HOME_ADDRESS}"\nhome_agent = "{HOME_AGENT}"\n'
        f'[[interface]]\nname = "none"\nbid = 1\npriority = 1\n[control]\nsocket = "{tmp_path}/mn.sock"\n'
        f"[ipsec]\n{ipsec.tables()}"
    )
    begun = time.monotonic()
    command = [sys.executable, "-m", "testbed.agent", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and time.monotonic() - begun < 30
    assert "this kernel cannot protect signalling by IPsec: ESP: " in done.stderr
    assert "RFC 4285" in done.stderr
