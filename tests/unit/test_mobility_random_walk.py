"""A random walk: movement, flow changes, losses, duplicates, restarts. Once it is quiet again, the mobile
node's list and the home agent's cache agree, and every flow has a way."""

import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from simulation import CELLULAR, HOME_ADDRESS, HOME_AGENT, ROUTER, WLAN, agree, pair

from testbed.mobility.binding import FlowBinding
from testbed.mobility.forwarding import Action
from testbed.mobility.home_agent import HomeAgent
from testbed.mobility.listed_flows import FlowError
from testbed.wire.selector import IPv6TrafficSelector

ADDRESSES = {"wlan": (WLAN, WLAN + 0x10000), "cellular": (CELLULAR, CELLULAR + 0x10000)}


class RandomWalk(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.random = random.Random(1)
        self.loss = self.duplication = 0.0
        self.simulation, self.node, self.agent = pair(self._fate, lifetime_s=40)
        for addresses in ADDRESSES.values():
            self.simulation.addresses.update(dict.fromkeys(addresses, "mn"))

    def _fate(self, packet):
        if self.random.random() < self.loss:
            return []
        copies = 2 if self.random.random() < self.duplication else 1
        return [self.random.uniform(0.005, 0.3) for _ in range(copies)]

    @rule(
        loss=st.sampled_from((0.0, 0.2, 0.7)),
        duplication=st.sampled_from((0.0, 0.3)),
        seed=st.integers(0, 2**16),
    )
    def weather(self, loss, duplication, seed):
        self.loss, self.duplication = loss, duplication
        self.random.seed(seed)

    @rule(name=st.sampled_from(("wlan", "cellular")), which=st.integers(0, 1))
    def attach(self, name, which):
        self.node.attach(name, ADDRESSES[name][which], ROUTER, self.simulation.now)

    @rule(name=st.sampled_from(("wlan", "cellular")))
    def detach(self, name):
        self.node.detach(name, self.simulation.now)

    @rule(
        operation=st.sampled_from(("add_flow", "replace_flow")),
        fid=st.integers(1, 3),
        priority=st.integers(0, 5),
        action=st.sampled_from(Action),
        bids=st.sampled_from(((1,), (2,), (1, 2), (2, 1))),
        port=st.sampled_from((None, 22, 443)),
    )
    def flow(self, operation, fid, priority, action, bids, port):
        if action is Action.N_CAST:
            bids = (1, 2)
        selector = None if port is None else IPv6TrafficSelector(source_port=(port, port))
        try:
            getattr(self.node, operation)(
                FlowBinding(fid, priority, action, bids, selector), self.simulation.now
            )
        except FlowError:
            pass

    @rule(fid=st.integers(1, 3))
    def remove(self, fid):
        try:
            self.node.remove_flow(fid, self.simulation.now)
        except FlowError:
            pass

    @rule(seconds=st.sampled_from((0.01, 0.1, 1.0, 10.0, 60.0)))
    def wait(self, seconds):
        self.simulation.run(seconds)

    @rule(with_memory=st.booleans())
    def restart_home_agent(self, with_memory):
        saved = self.agent.snapshot(self.simulation.now)
        self.agent = HomeAgent(self.agent.configuration, self.simulation.now)
        if with_memory:
            self.agent.restore(saved, self.simulation.now, self.simulation.now)
        self.simulation.add("ha", self.agent, HOME_AGENT)

    @invariant()
    def every_packet_has_one_way(self):
        """Whatever is under way: rules name only BIDs that have a path, and there is a default."""
        for role in (self.node, self.agent):
            for wanted in role.forwarding().values():
                bids = {path.bid for path in wanted.paths}
                assert (wanted.default_bid in bids) == bool(bids)
                for rule_ in wanted.rules:
                    assert set(rule_.bids) <= bids
                    assert (rule_.action is Action.DISCARD) == (not rule_.bids)
                assert [(r.priority, r.fid) for r in wanted.rules] == sorted(
                    (r.priority, r.fid) for r in wanted.rules
                )

    def teardown(self):
        """Good weather, a little patience: both sides say the same, and it is what was asked for."""
        self.loss = self.duplication = 0.0
        self.node.attach("cellular", CELLULAR, ROUTER, self.simulation.now)
        self.node.attach("wlan", WLAN, ROUTER, self.simulation.now)
        self.simulation.run(150)
        agree(self.node, self.agent)
        listed = self.node.registration.flows
        assert all(item.operation is None for item in listed.values())
        assert {b.bid: b.registered for b in self.node.registration.bindings.values()} == {
            1: WLAN,
            2: CELLULAR,
        }
        assert self.node.home_binding(HOME_ADDRESS).rules == self.agent.home_binding(HOME_ADDRESS).rules
        self.node.deregister(self.simulation.now)
        self.simulation.run(30)
        assert self.agent.forwarding() == {} and self.node.forwarding() == {}


TestRandomWalk = RandomWalk.TestCase
TestRandomWalk.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
