"""Real agents on plain hosts: registration, flow bindings, handover, restart, end."""

import json
import signal
import statistics
import time

import pytest
from agent_network import HOME_ADDRESS, Agent
from datapath_network import answers, wait_for
from observations import bound
from standstill import Standstill

from testbed.agent.control import Client, Refused


@pytest.fixture
def agents(network, tmp_path):
    with Agent(network.ha, tmp_path) as ha, Agent(network.mn, tmp_path) as mn:
        wait_for(lambda: registered(mn))
        yield ha, mn


def registered(mn):
    """Care-of address by BID, once the home agent has acknowledged what is wanted and all flow bindings."""
    bindings, flows = mn.ask("bindings"), mn.ask("flows")
    settled = all(b["registered"] and b["registered"] == b["care_of_address"] for b in bindings)
    settled = settled and all(flow["state"] == "registered" for flow in flows)
    return {b["bid"]: b["registered"] for b in bindings} if settled else None


def test_both_care_of_addresses_are_registered(network, agents):
    ha, mn = agents
    expected = {1: network.address("mn-wlan"), 2: network.address("mn-cellular")}
    assert registered(mn) == bound(ha) == expected
    assert [b["bid"] for b in ha.ask("bindings") if b["default"]] == [2]
    (flow,) = ha.ask("flows")
    assert (flow["fid"], flow["bids"], flow["description"]) == (1, [1], "tcp, source port 22")
    status = mn.ask("status")
    assert status["registered"] and status["home_address"] == HOME_ADDRESS
    assert [interface["link"] for interface in status["interfaces"]] == ["up", "up"]
    wait_for(lambda: answers(network.hn, HOME_ADDRESS))


@pytest.mark.requirement("RFC 6275 §10.4.1: unsolicited Neighbour Advertisement for a home address")
def test_the_home_agent_claims_the_home_address_on_the_home_link(network, tmp_path):
    network.hn.shell(f"ip -6 neigh replace {HOME_ADDRESS} lladdr 02:00:00:00:00:99 dev eth0 nud stale")
    mac = json.loads(network.ha.shell("ip -j link show dev home0"))[0]["address"]
    with Agent(network.ha, tmp_path), Agent(network.mn, tmp_path):
        wait_for(lambda: mac in network.hn.shell(f"ip -6 neigh show {HOME_ADDRESS} dev eth0"))


def test_flow_bindings_are_changed_from_the_command_line(network, agents):
    ha, mn = agents
    added = mn.flowbind("flow", "add", "3", "--to", "wlan", "--next-header", "tcp", "--source-port", "443")
    assert (added.returncode, added.stderr) == (0, "")
    assert added.stdout == "flow binding 3: forward tcp, source port 443 to 1 (mn-wlan)\n"
    flows = {flow["fid"]: flow for flow in ha.ask("flows")}
    assert (flows[3]["bids"], flows[3]["priority"], flows[3]["action"]) == ([1], 10, "forward")

    replaced = mn.flowbind("flow", "replace", "3", "--to", "2", "--priority", "5", "--json")
    assert json.loads(replaced.stdout)["interfaces"] == ["mn-cellular"]
    flows = {flow["fid"]: flow for flow in ha.ask("flows")}
    assert (flows[3]["bids"], flows[3]["priority"]) == ([2], 5)
    assert flows[3]["description"] == "tcp, source port 443"

    selector = ("--next-header", "udp", "--source-port", "5004")
    copied = mn.flowbind("flow", "add", "5", "--action", "n-cast", "--to", "wlan,cellular", *selector)
    assert copied.returncode == 0
    dropped = mn.flowbind("flow", "add", "6", "--action", "discard", "--source-address", "2001:db8:bad::/48")
    assert dropped.stdout == "flow binding 6: discard source address 2001:db8:bad::/48 to nowhere\n"
    listing = mn.flowbind("flows").stdout
    assert "n-cast   1 (mn-wlan), 2 (mn-cellular)  udp" in listing

    assert mn.flowbind("flow", "remove", "3").stdout == "flow binding 3 removed\n"
    assert sorted(flow["fid"] for flow in ha.ask("flows")) == [1, 5, 6]
    fids = {counter["fid"] for counter in json.loads(mn.flowbind("counters", "--json").stdout)["flows"]}
    assert fids == {None, 1, 5, 6}
    events = mn.flowbind("events", "-n", "500").stdout
    assert "flow-changed peer=2001:db8:100::1 fid=3 operation=replace" in events


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("add 1 --to wlan", "FID 1 is in use already: replace or remove it"),
        ("add 9 --to moon", "bids: there is no BID or interface 'moon'; known are 1 (mn-wlan), 2 (mn-cel"),
        ("add 9 --to 7", "bids: there is no BID or interface '7'; known are 1 (mn-wlan)"),
        ("add 9", "bids: is missing; expected at least one BID or interface"),
        ("add 9 --to 1 --source-port x", "source_port: expected a number or a range"),
        ("replace 9 --to 1", "there is no flow binding with FID 9"),
        ("remove 9", "there is no flow binding with FID 9"),
        ("remove 70000", "fid: expected at most 65535, not 70000"),
    ],
)
def test_a_wrong_change_is_one_sentence_and_changes_nothing(agents, arguments, sentence):
    ha, mn = agents
    before = mn.ask("flows"), ha.ask("flows")
    done = mn.flowbind("flow", *arguments.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"flowbind: {sentence}")
    assert done.stderr.count("\n") == 1
    assert (mn.ask("flows"), ha.ask("flows")) == before


def test_the_home_agents_policy_is_told_in_its_words(network, tmp_path):
    with Agent(network.ha, tmp_path, "[policy]\nn_cast = false") as ha, Agent(network.mn, tmp_path) as mn:
        wait_for(lambda: registered(mn))
        with pytest.raises(Refused, match=r"refused flow binding 5: n cast not supported \(status 139\)"):
            mn.ask("flow-add", fid=5, action="n-cast", bids=[1, 2])
        assert [flow["fid"] for flow in mn.ask("flows")] == [flow["fid"] for flow in ha.ask("flows")] == [1]
        with pytest.raises(Refused, match="^ha is a home agent: flow bindings are changed at their mobile"):
            ha.ask("flow-remove", fid=1)


def test_a_lost_link_is_answered_within_milliseconds(network, agents):
    ha, mn = agents
    wlan, cellular = registered(mn)[1], registered(mn)[2]
    detection, reaction = [], []
    with Standstill() as still:
        for _ in range(3):
            # RFC 6275 §11.8: three Binding Updates a second; those of the last round count no more
            wait_for(lambda: mn.events("binding-update-sent")[-1]["t"] < time.monotonic() - 1)
            cut = time.monotonic()
            network.set_link("wlan", False)
            wait_for(lambda: bound(ha) == {1: cellular, 2: cellular})
            lost = wait_for(lambda cut=cut: mn.events("link-lost", since=cut))[0]["t"]
            sent = wait_for(lambda lost=lost: mn.events("binding-update-sent", since=lost))[0]["t"]
            # includes the start of the `ip` command
            detection.append(lost - cut - still.seconds(cut, lost))
            reaction.append(sent - lost - still.seconds(lost, sent))
            network.set_link("wlan", True)
            wait_for(lambda: bound(ha) == {1: wlan, 2: cellular})
            assert mn.events("link-gained", since=lost)
            wait_for(lambda: registered(mn))
    assert statistics.median(reaction) < 0.010, (detection, reaction)
    assert statistics.median(detection) < 0.100, (detection, reaction)


def test_an_interface_is_switched_off_and_on(network, agents):
    ha, mn = agents
    wlan, cellular = registered(mn)[1], registered(mn)[2]
    network.mn.shell("ip link set mn-wlan down")
    wait_for(lambda: bound(ha) == {1: cellular, 2: cellular})
    network.mn.shell("ip link set mn-wlan up")
    wait_for(lambda: bound(ha) == {1: wlan, 2: cellular})


@pytest.mark.requirement("RFC 4861 §7.2.3: the router learns of an address by a solicitation from it")
def test_access_routers_know_a_care_of_address_before_anything_comes_there(network, tmp_path):
    wlan, cellular = network.address("mn-wlan"), network.address("mn-cellular")
    for name, address in (("wlan", wlan), ("cellular", cellular)):
        network.ar.shell(f"ip -6 neigh flush {address} dev {name}")
    with Agent(network.ha, tmp_path), Agent(network.mn, tmp_path) as mn:
        wait_for(lambda: registered(mn))
        for name, address in (("wlan", wlan), ("cellular", cellular)):
            wait_for(lambda a=address, n=name: knows(network, a, n))
        # asked for in vain while it was away: the router would go on asking only once a second
        network.set_link("wlan", False)
        network.ar.shell(f"ip -6 neigh flush {wlan} dev wlan; ping -c1 -W1 {wlan} || true")
        assert not knows(network, wlan, "wlan")
        network.set_link("wlan", True)
        wait_for(lambda: knows(network, wlan, "wlan"))


def knows(network, address, interface):
    return "lladdr" in network.ar.shell(f"ip -6 neigh show {address} dev {interface}")


@pytest.mark.requirement("RFC 6275 §11.5.1: movement detection")
def test_an_interface_moves_to_another_access_network(network, agents):
    ha, mn = agents
    cellular = registered(mn)[2]
    try:
        network.set_link("wlan", False)
        network.ar.shell("ip link set wlan-mn master other")
        network.set_link("wlan", True)
        moved = wait_for(lambda: network.address("mn-wlan", "2001:db8:203:"))
        wait_for(lambda: bound(ha) == {1: moved, 2: cellular})
    finally:
        network.set_link("wlan", False)
        network.ar.shell("ip link set wlan-mn master wlan")
        network.set_link("wlan", True)
    wait_for(lambda: bound(ha) == {1: network.address("mn-wlan", "2001:db8:201:"), 2: cellular})
    wait_for(lambda: answers(network.hn, HOME_ADDRESS))


def test_a_home_agent_that_was_killed_keeps_its_promises(network, agents):
    ha, mn = agents
    mn.ask("flow-add", fid=3, bids=["wlan"], source_port=443)
    bindings, flows = bound(ha), ha.ask("flows")
    assert ha.stop(signal.SIGKILL) == -signal.SIGKILL
    updates = mn.ask("counters")["messages"]["sent"]
    ha.start()
    assert (bound(ha), ha.ask("flows")) == (bindings, flows)
    assert all(0 < binding["remaining_s"] < 60 for binding in ha.ask("bindings"))
    wait_for(lambda: answers(network.hn, HOME_ADDRESS))
    assert mn.ask("counters")["messages"]["sent"] == updates


def test_a_mobile_node_that_was_killed_comes_back(network, agents):
    ha, mn = agents
    mn.ask("flow-add", fid=3, bids=["wlan"], source_port=443)
    mn.stop(signal.SIGKILL)
    mn.start()
    wait_for(lambda: registered(mn))
    assert sorted(flow["fid"] for flow in ha.ask("flows")) == [1, 3]
    wait_for(lambda: answers(network.hn, HOME_ADDRESS))


@pytest.mark.requirement("RFC 6275 §11.7.1: de-registration")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_of_a_mobile_node_is_a_de_registration(network, agents, number):
    ha, mn = agents
    assert mn.stop(number) == 0
    wait_for(lambda: bound(ha) == {})
    assert ha.ask("flows") == []
    assert "flowbind" not in network.mn.shell("nft list ruleset")
    assert "proto 177" not in network.mn.shell("ip -6 rule")
    assert not (mn.folder / "mn.sock").exists()


def test_the_end_does_not_wait_long_for_a_home_agent_that_is_gone(agents):
    ha, mn = agents
    ha.stop(signal.SIGKILL)
    begun = time.monotonic()
    assert mn.stop() == 0
    assert time.monotonic() - begun < 15


def test_bindings_are_removed_by_command(agents):
    ha, mn = agents
    assert mn.flowbind("deregister").stdout == "all bindings removed\n"
    assert bound(ha) == {}
    assert mn.ask("status")["registered"] is False


def test_a_flushed_ruleset_is_repaired_with_the_next_change(network, agents):
    ha, mn = agents
    network.ha.shell("nft flush ruleset")
    mn.ask("flow-add", fid=3, bids=["wlan"], source_port=443)
    assert [event["event"] for event in ha.ask("events")].count("datapath-repaired") == 1
    assert {counter["fid"] for counter in ha.ask("counters")["flows"]} == {None, 1, 3}
    wait_for(lambda: answers(network.hn, HOME_ADDRESS))


def test_an_unwritable_state_does_not_stop_the_service(network, tmp_path):
    (tmp_path / "ha.state").mkdir()
    with Agent(network.ha, tmp_path) as ha, Agent(network.mn, tmp_path) as mn:
        wait_for(lambda: registered(mn))
        assert set(bound(ha)) == {1, 2}


def test_events_can_be_followed(agents):
    _, mn = agents
    with Client(mn.socket) as client:
        events = client.events(last=0)
        mn.ask("flow-add", fid=4, bids=["wlan"], source_port=80)
        names = []
        while "flow-changed" not in names:
            names.append(next(events)["event"])
    told = [name for name in names if name.startswith("binding-")]
    # on a slow machine there may be a second Binding Update before the answer
    assert told[0] == "binding-update-sent" and told[-1] == "binding-acknowledgement-received"
    assert set(told) <= {*told[:1], *told[-1:], "binding-update-unanswered"}


def test_an_agent_is_small(agents):
    for agent in agents:
        with open(f"/proc/{agent.process.pid}/status") as file:
            (resident_kib,) = (int(line.split()[1]) for line in file if line.startswith("VmRSS:"))
        assert resident_kib <= 40 * 1024
