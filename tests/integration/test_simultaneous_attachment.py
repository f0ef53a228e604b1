"""A mobile node on its home link and abroad at once (RFC 5648 §5.6): real agents, links and packets."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from observations import answered, events

from testbed.emulation.network import Network
from testbed.emulation.node import AccessRouter
from testbed.emulation.process import wait_until
from topologies.multihome import HOME_INTERFACE, MultihomeTopology

requirement = pytest.mark.requirement
HOME_ADDRESS, CORRESPONDENT, NEIGHBOURS = "2001:db8:100::100", "2001:db8:300::2", "2001:db8:100::/64"
INTERFACES = ("mn-wlan", "mn-cellular", "mn-other")
#: Packets of an exchange, and the octets of each: more than Router Advertisements are meanwhile.
COUNT, SIZE = 20, 1000


def to(bid, fid=1):
    return {"fid": fid, "bids": [bid], "next_header": "icmpv6", "source_address": CORRESPONDENT}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    topology = MultihomeTopology("wlan:100:1+cellular:100:1+other:100:1", home_advertisements=True)
    with Network(topology, tmp_path_factory.mktemp("logs")) as network:
        network["mn"].await_care_of_addresses()
        yield network


@pytest.fixture
def start(network):
    """Start the agents, come home with the interface mn-wlan; all goes back in the end."""
    network.test_began = time.monotonic()
    link = network["mn"].link("mn-wlan")

    def start(flows=(), preferred=None, **home_agent):
        ha = network["ha"].start_agent(network.topo.home_agent_configuration(**home_agent))
        mn = network["mn"].start_agent(
            network.topo.mobile_node_configuration(
                flows=flows, preferred=preferred, returning_home="simultaneous"
            )
        )
        wait_until(lambda: registered(mn), 30, "the registration abroad")
        link.move(network["ha"], HOME_INTERFACE)
        return ha, mn

    yield start
    network["mn"].stop_agent()
    link.move(network["ar1"], AccessRouter.bridge)
    network["ha"].stop_agent()
    wait_until(lambda: str(network["mn"].care_of_address("mn-wlan")).startswith("2001:db8:201:"), 30, "wlan")


def registered(mn):
    return all(b["registered"] == b["care_of_address"] is not None for b in mn.ask("bindings"))


def at_both(ha, mn):
    return registered(mn) and [b["bid"] for b in ha.ask("bindings") if b["on_home_link"]] == [1]


def octets(node, interface):
    """What an interface has received and sent."""
    folder = f"/sys/class/net/{interface}/statistics"
    received, sent = node.execute("cat", f"{folder}/rx_bytes", f"{folder}/tx_bytes").split()
    return int(received), int(sent)


def exchange(node, *destinations):
    """COUNT pings to each of these at the same time; all are answered."""
    def pings(destination):
        return answered(node, destination, f"-s{SIZE}", count=COUNT)

    with ThreadPoolExecutor() as pool:
        assert all(pool.map(pings, destinations))


def carriers(network, node, *destinations):
    """The interfaces of the mobile node that carry COUNT packets in each direction, or more, during an
    exchange of `node` with these."""
    before = {name: octets(network["mn"], name) for name in INTERFACES}
    exchange(network[node], *destinations)
    after = {name: octets(network["mn"], name) for name in INTERFACES}
    grown = {name: [b - a for a, b in zip(before[name], after[name], strict=True)] for name in INTERFACES}
    return {name for name in INTERFACES if min(grown[name]) >= COUNT * SIZE}


def way(network, node="cn"):
    """Which interface an exchange with this node takes; it answers all of it."""
    found = carriers(network, node, HOME_ADDRESS)
    assert len(found) == 1, found
    return found.pop()


def neighbour(node):
    return node.execute("ip", "-6", "neigh", "show", HOME_ADDRESS)


@requirement("RFC 5648 §5.6.2: packets go directly to the home address on the link, or by a tunnel")
@requirement("RFC 5648 §5.6.5: a node that leaves the home link sends a Binding Update without the H flag")
@requirement("draft §6.4: flow bindings are abolished only by a node that wishes to return home completely")
def test_a_flow_by_the_home_link_and_another_by_a_foreign_link(network, start):
    ha, mn = start([to("cellular")], preferred="wlan")
    wait_until(lambda: at_both(ha, mn), 30, "the home binding")
    assert mn.ask("status")["at_home"] == "mn-wlan"
    for node in ("ha", "mn"):
        listed = network[node].execute("flowbind", "bindings").splitlines()
        (line,) = [line for line in listed if "on the home link" in line]
        assert line.split()[1] == "1" and HOME_ADDRESS in line
    assert way(network) == "mn-cellular"
    # at once: the flow by the foreign link, all else by the home link
    assert carriers(network, "mn", CORRESPONDENT, "2001:db8:300::1") == {"mn-cellular", "mn-wlan"}
    # moved from one to the other and back
    mn.ask("flow-replace", fid=1, bids=["wlan"])
    assert way(network) == "mn-wlan"
    mn.ask("flow-replace", fid=1, bids=["cellular"])
    assert way(network) == "mn-cellular"
    mn.ask("flow-replace", fid=1, bids=["wlan"])
    # away again: it goes on by what is left
    network["mn"].link("mn-wlan").set_carrier(False)
    try:
        wait_until(lambda: not any(b["on_home_link"] for b in ha.ask("bindings")), 30, "the end of it")
        wait_until(lambda: registered(mn), 30, "the acknowledgement")
        assert way(network) in ("mn-cellular", "mn-other")
        exchange(network["hn"], HOME_ADDRESS)
    finally:
        network["mn"].link("mn-wlan").set_carrier(True)
    wait_until(lambda: at_both(ha, mn), 30, "the return")
    assert way(network) == "mn-wlan"
    assert way(network, "hn") == "mn-wlan"


@requirement("RFC 5648 §5.6.4: Binding Update Accepted: it operates Neighbour Discovery for the home address")
def test_the_mobile_node_defends_its_home_address(network, start):
    ha, mn = start()
    wait_until(lambda: at_both(ha, mn), 30, "the home binding")
    mac = network["mn"].execute("cat", "/sys/class/net/mn-wlan/address").strip()
    assert HOME_ADDRESS not in network["ha"].execute("ip", "-6", "neigh", "show", "proxy")
    exchange(network["hn"], HOME_ADDRESS)
    wait_until(lambda: mac in neighbour(network["hn"]), 30, "its answer to Neighbour Solicitations")
    assert HOME_ADDRESS in network["mn"].execute("ip", "-6", "address", "show", "dev", "mn-wlan")
    assert way(network) == "mn-other"  # the preferred one, abroad
    assert network["mn"].stop_agent() == 0
    wait_until(lambda: ha.ask("bindings") == [], 30, "the end of the bindings")
    assert HOME_ADDRESS not in network["mn"].execute("ip", "-6", "address", "show", "dev", "mn-wlan")


@requirement("RFC 5648 §6.3: with other routers on the home link, status 5 in the answer")
@requirement("RFC 5648 §5.6.4: MCOA RETURNHOME WO/NDP: no Neighbour Discovery for the home address")
def test_a_home_link_with_other_routers(network, start):
    ha, mn = start([to("wlan")], other_routers=True)
    wait_until(lambda: at_both(ha, mn), 30, "the home binding")
    assert HOME_ADDRESS in network["ha"].execute("ip", "-6", "neigh", "show", "proxy")
    assert HOME_ADDRESS not in network["mn"].execute("ip", "-6", "address", "show", "dev", "mn-wlan")
    statuses = [e["status"] for e in events(network, "mn", "binding-acknowledgement-received")]
    assert statuses[-1] == 5
    assert way(network) == "mn-wlan"
    mac = network["ha"].execute("cat", f"/sys/class/net/{HOME_INTERFACE}/address").strip()
    assert way(network, "hn") == "mn-other"  # by the home agent, and by the default binding
    assert mac in neighbour(network["hn"])
    mn.ask("flow-add", fid=2, bids=["wlan"], next_header="icmpv6", source_address=NEIGHBOURS)
    assert way(network, "hn") == "mn-wlan"  # back to the link that they came from, without Redirect
    assert mac in neighbour(network["hn"])
    assert network["mn"].stop_agent() == 0
    wait_until(lambda: ha.ask("bindings") == [], 30, "the end of the bindings")


@requirement("RFC 5648 §4.4: MCOA SIMULTANEOUS HOME AND FOREIGN PROHIBITED (169)")
def test_a_home_agent_that_prohibits_it(network, start):
    ha, mn = start([to("cellular")], policy={"simultaneous_attachment": False})
    wait_until(lambda: ha.ask("bindings") == [], 30, "the complete return")
    assert events(network, "mn", "simultaneous-attachment-refused")
    wait_until(lambda: mn.ask("status")["registered"] is False, 30, "the acknowledgement")
    assert way(network) == "mn-wlan"
    assert "flowbind" not in network["mn"].execute("ip", "-6", "route", "get", CORRESPONDENT)


def test_a_home_agent_that_starts_again(network, start):
    ha, mn = start([to("wlan")], state=str(network.log_directory / "ha.state"), other_routers=True)
    wait_until(lambda: at_both(ha, mn), 30, "the home binding")
    network["ha"].agent.process.kill()
    network["ha"].agent.process.wait()
    ha = network["ha"].start_agent(network.topo.home_agent_configuration(
        state=str(network.log_directory / "ha.state"), other_routers=True))
    assert [b["bid"] for b in ha.ask("bindings") if b["on_home_link"]] == [1]
    assert way(network) == "mn-wlan"
