"""The Home Test of real agents goes through a tunnel of ESP, which moves with the mobile node."""

import re
import shutil
from ipaddress import IPv6Address

import ipsec
import pytest
from agent_network import CORRESPONDENT, HOME_ADDRESS, HOME_AGENT, Agent, AgentNetwork
from backend import backends
from datapath_network import Capture, ipv6, needed, send_raw, wait_for
from ipsec import Wire, decrypted, home_agent, mobile_node, statistics
from ipv6_ready import case
from observations import registered
from signalling import FIXED, HOT, HOTI, checksummed, mobility_header

requirement = pytest.mark.requirement
pytestmark = pytest.mark.backend("signalling", "ESP")

IPV6, ESP, MOBILITY = 41, 50, 135
#: Another of the correspondent node's addresses.
SECOND = str(IPv6Address(CORRESPONDENT) + 1)
LISTING = "ip xfrm state; ip xfrm policy; nft list ruleset; ip -6 rule; ip -6 address show dev lo"


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    ipsec.needed()
    folder = tmp_path_factory.mktemp("network")
    network = AgentNetwork(folder)
    network.add_correspondent().shell(f"ip -6 addr add {SECOND}/64 dev eth0 nodad")
    network.advertise_home(folder)
    yield network
    network.close()


@pytest.fixture
def wire(network):
    wire = Wire(network)
    yield wire
    wire.close()


@pytest.fixture(params=backends("tunnel"))
def agents(network, tmp_path, request):
    """Home agent, mobile node and correspondent node, with each kind of ordinary tunnels."""
    backend = f'[datapath]\ntunnel_backend = "{needed(request.param)}"\n'
    with (
        home_agent(network, tmp_path, tunnel=True, more=backend) as ha,
        mobile_node(network, tmp_path, tunnel=True, more=backend) as mn,
        Agent(network.cn, tmp_path) as cn,
    ):
        wait_for(lambda: registered(mn))
        yield ha, mn, cn
        assert mn.stop() == 0 and ha.stop() == 0
    network.take_away("wlan")
    for node in (network.mn, network.ha):
        node.shell("ip xfrm state flush; ip xfrm policy flush")


def have_tested(mn, correspondent):
    """Have a Home Test with this address of the correspondent node."""
    mn.ask("optimise", address=correspondent)
    wait_for(lambda: correspondent in [e["peer"] for e in mn.events("home-test-received")])


def outer(packets):
    """Of ESP packets in tunnel mode, by SPI: source and destination, and sequence numbers."""
    found = {}
    for data in packets:
        if data[6] == ESP:
            spi, sequence = (int.from_bytes(data[at : at + 4], "big") for at in (40, 44))
            ends = str(IPv6Address(data[8:24])), str(IPv6Address(data[24:40]))
            found.setdefault(spi, []).append((*ends, sequence))
    return found


def unprotected(node):
    """Home Test Inits or Home Tests that were dropped as IPsec did not protect them."""
    listed = node.shell("nft list counter ip6 flowbind_ipsec unprotected_home_tests")
    return int(re.search(r"packets (\d+)", listed)[1])


def policies(node):
    """Policies for what is in tunnels."""
    return node.shell("ip xfrm policy").count("mode tunnel")


@requirement("RFC 6275 §5.2.5, §10.4.6: Home Test Init and Home Test are under ESP in tunnel mode, encrypted")
@requirement("RFC 3776 §3.2: outer header, ESP in tunnel mode, inner header, Home Test Init; and Home Test")
def test_home_test(network, wire, agents, tmp_path):
    _, mn, cn = agents
    wlan, cellular = (network.address(f"mn-{name}") for name in ("wlan", "cellular"))
    plain = Capture(network.cn, "eth0")
    have_tested(mn, CORRESPONDENT)
    wait_for(lambda: {b["care_of_address"] for b in cn.ask("bindings")} == {wlan, cellular})
    packets = wire.packets()
    # the correspondent node gets what it always gets: from the home address, and answers to it
    kinds = {(data[8:24], data[42]) for data in plain.packets() if data[6] == MOBILITY}
    assert (IPv6Address(HOME_ADDRESS).packed, HOTI) in kinds
    plain.close()
    found = outer(packets)
    ends = {spi: {entry[:2] for entry in entries} for spi, entries in found.items()}
    spis = [spi for _, spi, *_ in ipsec.TUNNEL]
    assert ends == {spis[0]: {(cellular, HOME_AGENT)}, spis[1]: {(HOME_AGENT, cellular)}}
    if shutil.which("tshark"):
        tunnelled = [data for data in packets if data[6] == ESP]
        told = decrypted(tunnelled, tmp_path / "tunnel.pcap", ("ipv6.src", "ipv6.dst", "mip6.mhtype"))
        assert {tuple(fields) for fields in told} == {
            (f"{cellular},{HOME_ADDRESS}", f"{HOME_AGENT},{CORRESPONDENT}", str(HOTI)),
            (f"{HOME_AGENT},{CORRESPONDENT}", f"{cellular},{HOME_ADDRESS}", str(HOT)),
        }
    assert all(data[40 + 6] != MOBILITY for data in packets if data[6] == IPV6)


@pytest.mark.long
@requirement("RFC 6275 §10.4.6: the care-of address changes, the association stays, with its numbers")
@requirement("RFC 3776 §4.3: the tunnel's outer addresses follow the primary care-of address at both ends")
def test_movement(network, wire, agents):
    ha, mn, _ = agents
    wlan = network.address("mn-wlan")
    have_tested(mn, CORRESPONDENT)
    before = outer(wire.packets())
    network.set_link("cellular", False)
    try:
        wait_for(lambda: {b["care_of_address"] for b in ha.ask("bindings")} == {wlan})
        wait_for(lambda: registered(mn))
        wire.packets()
        have_tested(mn, SECOND)
        after = outer(wire.packets())
    finally:
        network.set_link("cellular", True)
    for (_, spi, *_), ends in zip(ipsec.TUNNEL, ((wlan, HOME_AGENT), (HOME_AGENT, wlan)), strict=True):
        assert {entry[:2] for entry in after[spi]} == {ends}
        assert max(n for *_, n in before[spi]) < min(n for *_, n in after[spi])
    wait_for(lambda: registered(mn))


@requirement("RFC 6275 §10.4.5: what is reverse tunnelled without ESP is discarded, where policy says so")
@requirement("RFC 6275 §11.6.2: a Home Test that the security policy does not find protected is dropped")
def test_without_esp(network, agents):
    _, mn, _ = agents
    cellular = network.address("mn-cellular")
    for node, source, destination, kind, ends in (
        (network.ha, cellular, HOME_AGENT, HOTI, (HOME_ADDRESS, CORRESPONDENT)),
        (network.mn, HOME_AGENT, cellular, HOT, (CORRESPONDENT, HOME_ADDRESS)),
    ):
        reached = Capture(network.cn, "eth0")
        dropped = unprotected(node)
        received = len(mn.events("home-test-received"))
        inner = ipv6(*ends, MOBILITY, checksummed(mobility_header(kind, FIXED[kind]), *ends))
        send_raw(network.ar, ipv6(source, destination, IPV6, inner))
        wait_for(lambda node=node, n=dropped: unprotected(node) == n + 1)
        assert not [data for data in reached.packets() if data[6] == MOBILITY]
        assert len(mn.events("home-test-received")) == received
        reached.close()


@pytest.mark.long
@requirement("RFC 3776 §4.2: at home, policies of the tunnel are inactive; associations are kept")
@requirement("RFC 6275 §11.5.5: returning home, and leaving again, with IPsec")
@case("MN-1-2-2-1-018", what="Sending HoTI (Security policy entries is inactive)")
@case("MN-1-2-2-1-019", what="Sending HoTI (Foreign -> home -> Foreign)")
def test_returning_home(network, wire, agents):
    ha, mn, cn = agents
    assert (policies(network.mn), policies(network.ha)) == (2, 2)
    have_tested(mn, CORRESPONDENT)
    wait_for(lambda: len(cn.ask("bindings")) == 2)
    before = outer(wire.packets())
    network.bring_home("wlan")
    try:
        wait_for(lambda: ha.ask("bindings") == [] and mn.ask("status")["at_home"] == "mn-wlan")
        wait_for(lambda: (policies(network.mn), policies(network.ha)) == (0, 0))
        network.mn.shell(f"ping -c 2 -W 2 -I {HOME_ADDRESS} 2001:db8:100::2")
        network.hn.shell(f"ping -c 2 -W 2 {HOME_ADDRESS}")
        wait_for(lambda: cn.ask("bindings") == [])  # by a Home Test on the home link
        assert set(outer(wire.packets())) <= {spi for _, spi, *_ in ipsec.TRANSPORT}
    finally:
        network.take_away("wlan")
    wait_for(lambda: len(ha.ask("bindings")) == 2 and registered(mn))
    assert (policies(network.mn), policies(network.ha)) == (2, 2)
    wire.packets()
    have_tested(mn, SECOND)
    after = outer(wire.packets())
    for _, spi, *_ in ipsec.TUNNEL:
        assert max(n for *_, n in before[spi]) < min(n for *_, n in after[spi])


@requirement("RFC 3776 §4.4: what is played back in the tunnel is dropped, before and after restarts")
def test_played_back(network, wire, agents):
    ha, mn, _ = agents
    have_tested(mn, CORRESPONDENT)
    old = [data for data in wire.packets() if data[6] == ESP]

    def play():
        for node, address in ((network.ha, HOME_AGENT), (network.mn, network.address("mn-cellular"))):
            mine = [data for data in old if data[24:40] == IPv6Address(address).packed]
            wanted = statistics(node)["XfrmInStateSeqError"] + len(mine)
            assert mine
            for data in mine:
                send_raw(network.ar, data)
            wait_for(lambda node=node, n=wanted: statistics(node)["XfrmInStateSeqError"] == n)

    play()
    for agent in (ha, mn):  # killed: the kernel still has the associations
        agent.process.kill()
        agent.process.wait()
        agent.start()
    wait_for(lambda: registered(mn))
    play()
    assert mn.stop() == 0 and ha.stop() == 0  # ended: what was received is in the file
    ha.start()
    mn.start()
    wait_for(lambda: registered(mn))
    play()


def test_nothing_stays(network, tmp_path):
    untouched = {node: node.shell(LISTING) for node in (network.mn, network.ha)}
    with home_agent(network, tmp_path, tunnel=True) as ha, mobile_node(network, tmp_path, tunnel=True) as mn:
        wait_for(lambda: registered(mn))
        assert (policies(network.mn), policies(network.ha)) == (2, 2)
        assert mn.stop() == 0 and ha.stop() == 0
    for node, before in untouched.items():
        assert node.shell(LISTING) == before
