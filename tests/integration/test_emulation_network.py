"""The multihomed network as it stands: who reaches whom, care-of addresses, lost and moved links."""

import itertools
import sys
from ipaddress import IPv6Network

import pytest

from testbed.emulation.network import Network
from testbed.emulation.process import EmulationError, wait_until
from topologies.multihome import MultihomeTopology

PREFIXES = {"mn-wlan": IPv6Network("2001:db8:201::/64"), "mn-cellular": IPv6Network("2001:db8:202::/64")}
FIXED = ["cn", "core", "ha", "hn", "ar1", "ar2"]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    with Network(MultihomeTopology(), tmp_path_factory.mktemp("logs")) as network:
        yield network


def ping_ms(node, *arguments):
    """The round-trip time of one ping in ms; None if there is no answer."""
    output = node.execute("sh", "-c", f"ping -6 -c1 -W10 {' '.join(arguments)} || true")
    return float(output.split("time=")[1].split()[0]) if "time=" in output else None


@pytest.mark.parametrize("source, destination", list(itertools.permutations(FIXED, 2)))
def test_fixed_nodes_reach_each_other_by_name(network, source, destination):
    assert ping_ms(network[source], destination) is not None


def test_care_of_addresses_come_by_autoconfiguration(network):
    addresses = network["mn"].await_care_of_addresses(timeout_s=30)
    assert {name: address in PREFIXES[name] for name, address in addresses.items()} == {
        "mn-wlan": True, "mn-cellular": True}


def test_default_routes_are_the_advertised_routers(network):
    network["mn"].await_care_of_addresses()
    routes = network["mn"].execute("ip", "-6", "route", "show", "default")
    for router, interface in (("ar1", "mn-wlan"), ("ar2", "mn-cellular")):
        listing = network[router].execute(*"ip -6 -br address show dev lan0 scope link".split())
        gateway = listing.split()[2].split("/")[0]
        assert f"default via {gateway} dev {interface} proto ra" in routes


@pytest.mark.parametrize("interface, delay_ms", [("mn-wlan", 10), ("mn-cellular", 40)])
def test_access_links_delay_as_asked(network, interface, delay_ms):
    address = network["mn"].await_care_of_addresses()[interface]
    ping_ms(network["cn"], str(address))  # the first one waits for neighbour discovery, too
    assert 2 * delay_ms <= min(ping_ms(network["cn"], str(address)) for _ in range(5)) < 2 * delay_ms + 5


def test_home_address_is_on_the_mobile_node_and_nobody_answers_for_it_yet(network):
    assert "2001:db8:100::100/128" in network["mn"].execute("ip", "-6", "address", "show", "dev", "lo")
    assert ping_ms(network["hn"], "-W1", "2001:db8:100::100") is None


def test_routers_have_no_address_on_the_ports_of_their_bridges(network):
    for node, port in (("ar1", "wlan-mn"), ("ha", "ha-hn")):
        assert network[node].execute("ip", "-6", "address", "show", "dev", port) == ""


def test_there_is_no_ipv4(network):
    for node in network.hosts:
        listing = node.execute("ip", "-4", "-br", "address", "show", "up")
        assert listing.split() == ["lo", "UNKNOWN", "127.0.0.1/8"]


def test_mobile_node_moves_to_another_access_network(network):
    mobile_node = network["mn"]
    mobile_node.await_care_of_addresses()

    def is_in(prefix):
        return mobile_node.care_of_address("mn-wlan") in prefix

    link = mobile_node.link("mn-wlan")
    link.move(network["ar2"], "lan0")
    try:
        wait_until(lambda: is_in(PREFIXES["mn-cellular"]), 30, "the new network's address")
        assert ping_ms(network["ar2"], str(mobile_node.care_of_address("mn-wlan"))) is not None
    finally:
        link.move(network["ar1"], "lan0")
    wait_until(lambda: is_in(PREFIXES["mn-wlan"]), 30, "the old network's address")


def test_lost_link_is_seen_and_comes_back(network):
    mobile_node = network["mn"]
    address = mobile_node.await_care_of_addresses()["mn-wlan"]
    link = mobile_node.link("mn-wlan")
    link.set_carrier(False)
    try:
        assert "NO-CARRIER" in mobile_node.execute("ip", "link", "show", "mn-wlan")
        assert ping_ms(network["cn"], "-W1", str(address)) is None
    finally:
        link.set_carrier(True)
    wait_until(lambda: ping_ms(network["cn"], "-W1", str(address)), 30, "an answer over the link")


def test_commands_find_the_projects_tools(network):
    assert network["mn"].cmd("echo $FLOWBIND_SOCKET").strip() == "/run/flowbind/mn.sock"
    assert network["mn"].cmd("command -v python").strip() == f"{sys.prefix}/bin/python"


def test_failing_command_is_an_error_with_its_words(network):
    with pytest.raises(EmulationError, match="^cn: ip link show nothing failed: .*nothing.* does not exist"):
        network["cn"].execute("ip", "link", "show", "nothing")


def test_second_network_in_the_same_place_is_refused(network):
    with pytest.raises(EmulationError, match="in use by another network"), Network(MultihomeTopology()):
        pass
    assert ping_ms(network["cn"], "hn") is not None  # the first one is unharmed
