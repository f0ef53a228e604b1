"""What is saved between two snapshots: with these, a restart knows all that was promised."""

import json

import pytest
from simulation import CELLULAR, HOME_ADDRESS, HOME_PREFIX, ROUTER, WLAN, attached_pair, pair, trio

from testbed.mobility.binding import FlowBinding
from testbed.mobility.correspondent_node import CorrespondentNode
from testbed.mobility.forwarding import Action
from testbed.mobility.home_agent import HomeAgent
from testbed.mobility.mobile_node import MobileNode


class Record:
    """What the agent of a role has saved: a snapshot, then changes."""

    def __init__(self, simulation, role, anew):
        self.simulation, self.role, self.anew = simulation, role, anew
        self.saved = [(json.dumps(role.snapshot(simulation.now)), simulation.now)]
        role.unsaved(simulation.now)

    def keep(self):
        """Save what is new; whether there was anything."""
        change = self.role.unsaved(self.simulation.now)
        if change is not None:
            self.saved.append((json.dumps(change), self.simulation.now))
        return change is not None

    def restarted(self):
        role = self.anew()
        for text, when in self.saved:
            role.restore(json.loads(text), when, self.simulation.now)
        return role


def same(record):
    """Nothing is lost by a restart."""
    now, (old, new) = record.simulation.now, (record.role, record.restarted())
    assert new.forwarding() == old.forwarding() and new.flows() == old.flows()
    assert new.snapshot(now) == old.snapshot(now)


def flow(fid, bid):
    return FlowBinding(fid, 10 * fid, Action.FORWARD, (bid,))


@pytest.mark.requirement("RFC 6275 §10.3.1: what was acknowledged is so after a restart of the home agent")
def test_each_change_of_a_home_agent():
    simulation, node, agent = pair()
    record = Record(simulation, agent, lambda: HomeAgent(agent.configuration, simulation.now))

    def step(action, *arguments):
        action(*arguments, simulation.now)
        simulation.run(1.5)
        assert record.keep() and not record.keep()
        same(record)

    step(node.attach, "wlan", WLAN, ROUTER)
    step(node.attach, "cellular", CELLULAR, ROUTER)
    step(node.add_flow, flow(1, 1))
    step(node.add_flow, flow(2, 2))
    step(node.replace_flow, flow(1, 2))
    step(node.remove_flow, 2)
    step(node.detach, "wlan")
    simulation.run(50)  # it is renewed
    assert record.keep()
    same(record)
    simulation.failing.add("ha")
    node.attach("wlan", WLAN + 1, ROUTER, simulation.now)
    simulation.run(0.5)  # which is refused; its sequence number must not be played back
    assert record.keep()
    same(record)
    simulation.failing.clear()
    step(node.deregister)
    assert record.restarted().forwarding() == {}


def test_bindings_that_run_out_are_not_there_after_a_restart():
    simulation, node, agent = attached_pair(lifetime_s=20)
    record = Record(simulation, agent, lambda: HomeAgent(agent.configuration, simulation.now))
    node.add_flow(flow(1, 1), simulation.now)
    simulation.run(1)
    assert record.keep()
    del simulation.roles["mn"]
    simulation.run(100)
    assert agent.forwarding() == {} == record.restarted().forwarding()


def test_a_correspondent_node():
    simulation, node, peer = trio()
    record = Record(simulation, peer, lambda: CorrespondentNode(peer.configuration, simulation.now))
    node.optimise(next(a for a, name in simulation.addresses.items() if name == "cn"), simulation.now)
    simulation.run(3)
    assert record.keep()
    same(record)


def test_a_mobile_node():
    """It saves all that it has, where that is something new."""
    simulation, node, _ = attached_pair()
    record = Record(simulation, node, lambda: MobileNode(node.configuration, simulation.now))
    simulation.run(5)
    assert not record.keep()
    node.add_flow(flow(1, 1), simulation.now)
    assert record.keep()
    record.saved = record.saved[-1:]
    again = record.restarted()
    assert [listed.flow for listed in again.registration.flows.values()] == [flow(1, 1)]
    assert again.registration.sequence == node.registration.sequence
    node.attach("wlan", HOME_PREFIX[0xAAAA], ROUTER, simulation.now)
    assert record.keep()  # a sequence number
    assert str(HOME_ADDRESS) not in record.saved[-1][0]
