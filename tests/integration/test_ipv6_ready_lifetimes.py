"""The IPv6 Ready cases about how long the addresses of a mobile node are valid, and what it learns of that.

A case is named by its number; docs/ipv6-ready.md has all of them.
"""

import time

import pytest
from agent_network import CORRESPONDENT, OPTIMISED, Agent, AgentNetwork
from datapath_network import wait_for
from ipv6_ready import case
from ipv6_ready_mobile_node import Correspondent, HomeAgent
from observations import registered
from signalling import BU
from standstill import Standstill

VALID_S = 40
SOLICITATION, ADVERTISEMENT = 146, 147
UNKNOWN_OPTION = bytes((200, 1)) + bytes(6)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    network = AgentNetwork(tmp_path_factory.mktemp("network"), VALID_S)
    network.add_correspondent()
    yield network
    network.close()


@pytest.fixture
def ha(network):
    ha = HomeAgent(network)
    yield ha
    ha.close()


def solicits(ha, mn, **changes):
    """Accept a registration so that the home prefix has to be asked for; the solicitation."""
    ha.accept_all(mn, status=1, **changes)
    return ha.next_icmp(SOLICITATION)


@case("MN-2-1-1-1-006", what="no more than the remaining valid lifetime of the care-of address is asked for")
def test_lifetime_of_the_care_of_address(network, ha, tmp_path):
    with Agent(network.mn, tmp_path, first="lifetime_s = 400\n"):
        assert VALID_S - 12 <= ha.next_update().message.lifetime_s <= VALID_S


@case("MN-2-1-1-1-007", what="no more than the remaining valid lifetime of the home address is asked for")
def test_lifetime_of_the_home_address(network, ha, tmp_path):
    with Agent(network.mn, tmp_path, first="lifetime_s = 400\n") as mn:
        solicitation = solicits(ha, mn, lifetime=1)
        ha.send(ha.prefix_advertisement(solicitation, valid_s=VALID_S // 2))
        (told,) = wait_for(lambda: mn.events("home-prefixes-advertised"))
        sent = wait_for(lambda: mn.events("binding-update-sent", since=told["t"]))[0]
        update = wait_for(lambda: [u for u in ha.updates() if u.message.sequence == sent["sequence"]])[0]
        assert VALID_S // 4 <= update.message.lifetime_s <= VALID_S // 2


@case("MN-4-1-1-1-004", what="the first retransmission of a solicitation after 3 s, then twice that")
def test_solicitations_again(network, ha, tmp_path):
    with Standstill(time.time) as still, Agent(network.mn, tmp_path) as mn:
        solicits(ha, mn)
        ha.next_icmp(SOLICITATION, after=2)
        (first, a), (second, b), (third, c) = ha.icmp(SOLICITATION)[:3]
        # no earlier; how much later is a matter of the machine, up to what the next step would be
        assert still.allows(2.9, 6, first, second) and still.allows(5.9, 12, second, third)
        assert a.message.identifier == b.message.identifier == c.message.identifier


@case("MN-4-2-1-1-015", what="the reserved field of an advertisement is ignored")
@case("MN-4-2-1-1-019", what="options that are not known are ignored")
@pytest.mark.parametrize("changes", [{"reserved": 0x3FFF}, {"options": UNKNOWN_OPTION}])
def test_advertisements(network, ha, tmp_path, changes):
    """The prefix is asked for anew after 4 of its 5 s, not again after 3 s."""
    with Agent(network.mn, tmp_path) as mn:
        solicitation = solicits(ha, mn)
        ha.send(ha.prefix_advertisement(solicitation, valid_s=5, **changes))
        wait_for(lambda: mn.ask("status")["home_prefixes"])
        number, first = solicitation.message.identifier, ha.icmp(SOLICITATION)[0][0]
        anew = wait_for(lambda: [t for t, p in ha.icmp(SOLICITATION) if p.message.identifier != number])[0]
        assert anew - first > 3.9
        # one more of the same number only if it took that long to answer the first one
        (advertised,) = mn.events("home-prefixes-advertised")
        again = [e for e in mn.events("mobile-prefix-solicitation-sent") if e["identifier"] == number][1:]
        assert all(event["t"] < advertised["t"] for event in again)


def all_told(mn):
    """Whether the correspondent node has acknowledged both care-of addresses."""
    return sum(b["registered"] is not None for route in mn.ask("routes") for b in route["bindings"]) == 2


@case("MN-3-1-2-2-001", what="a Binding Update to a correspondent node when the home prefix ends earlier")
@pytest.mark.parametrize("carrier", ["bpf", "tun"])
def test_correspondents_are_told(network, tmp_path, carrier):
    """A binding of the first moments, while the prefixes were still told to be valid for long."""
    cn = Correspondent(network)
    network.mn.shell("echo 0 | tee /proc/sys/net/ipv6/conf/mn-*/accept_ra")
    addresses = [network.address("mn-wlan"), network.address("mn-cellular")]
    for address, name in zip(addresses, ("mn-wlan", "mn-cellular"), strict=True):
        network.mn.shell(f"ip -6 addr change {address}/64 dev {name} valid_lft 3000 preferred_lft 3000")
    more = f'{OPTIMISED}[datapath]\nroute_carrier = "{carrier}"\n'
    try:
        with (
            Agent(network.ha, tmp_path, first="prefix_interval_s = [0, 1]\n") as ha,
            Agent(network.mn, tmp_path, more, "lifetime_s = 400\n") as mn,
        ):
            cn.until(lambda: registered(mn) and all_told(mn))
            first = cn.messages(BU)
            assert {str(update.source) for update in first} == set(addresses)
            assert all(update.message.lifetime_s > 300 for update in first)
            ha.ask("home-prefix", prefix="2001:db8:100::/64", valid_s=100, preferred_s=100)
            cn.until(lambda: {str(u.source) for u in cn.messages(BU)[len(first) :]} == set(addresses))
            for update in cn.messages(BU)[len(first) :]:
                assert 60 < update.message.lifetime_s <= 100
                assert str(update.destination) == CORRESPONDENT
            numbers = [update.message.sequence for update in cn.messages(BU)]
            assert {(b - a) % 65536 for a, b in zip(numbers, numbers[1:], strict=False)} == {1}
    finally:
        network.mn.shell("echo 1 | tee /proc/sys/net/ipv6/conf/mn-*/accept_ra")
        cn.close()
