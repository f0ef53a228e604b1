"""Changes, repair and removal of the datapath's kernel state, with traffic running."""

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Iterator
from ipaddress import IPv6Address

import pytest
from backend import backends
from datapath_network import (
    CORRESPONDENT,
    HOME_ADDRESS,
    HOME_ADDRESS_2,
    HOME_AGENT,
    WLAN,
    Namespace,
    Network,
    answers,
    binding,
    needed,
    path,
    wait_for,
)

from testbed.datapath.datapath import Datapath, DatapathConfiguration
from testbed.datapath.error import DatapathError
from testbed.datapath.slots import Slots
from testbed.mobility.forwarding import Action, FlowRule, HomeBinding, Path, Side
from testbed.wire.selector import IPv6TrafficSelector


@pytest.fixture(scope="module", params=backends("tunnel"))
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    backend = needed(request.param)
    network = Network()
    network.backend = backend
    yield network
    network.close()


def anchor_on(network: Network) -> Datapath:
    configuration = DatapathConfiguration(network.backend, home_interface="home0")
    return network.ha.run(lambda: Datapath(Side.ANCHOR, configuration))


def mobile_on(network: Network) -> Datapath:
    return network.mn.run(lambda: Datapath(Side.MOBILE, DatapathConfiguration(network.backend)))


def rule(fid: int, port: int, bid: int | None) -> FlowRule:
    selector = IPv6TrafficSelector(source_port=(port, port))
    if bid is None:
        return FlowRule(fid, fid, selector, Action.DISCARD)
    return FlowRule(fid, fid, selector, Action.FORWARD, (bid,))


_SO_RCVBUFFORCE = 33
#: Packets of one direction on their way at most: what the kernel's own queues take (1,000 a processor), even
#: where those who empty them stand still meanwhile.
_UNDER_WAY = 100
#: What has not arrived by then is lost.
_PATIENCE_S = 20.0


class Stream:
    """Numbered UDP packets from the correspondent node's port `port` to the mobile node, and back."""

    def __init__(self, network: Network, port: int, interval_s: float = 0.0002) -> None:
        self._far = network.cn.socket()
        self._far.bind(("::", port))
        self._near = network.mn.socket()
        self._near.bind((str(HOME_ADDRESS), port))
        for end in (self._far, self._near):  # whatever the machine does meanwhile, the receivers lose nothing
            end.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 32 << 20)
        self._interval_s = interval_s
        self._port = port
        self._stop = threading.Event()
        self.sent = [0, 0]
        self.received: list[set[int]] = [set(), set()]
        ends = (self._far, HOME_ADDRESS, self._near), (self._near, CORRESPONDENT, self._far)
        self._senders = [
            threading.Thread(target=self._send, args=(way, end[0], end[1]), daemon=True)
            for way, end in enumerate(ends)
        ]
        self._receivers = [
            threading.Thread(target=self._receive, args=(way, end[2]), daemon=True)
            for way, end in enumerate(ends)
        ]
        for thread in (*self._receivers, *self._senders):
            thread.start()

    def _send(self, way: int, source: socket.socket, destination: IPv6Address) -> None:
        while not self._stop.wait(self._interval_s):
            if self.sent[way] - len(self.received[way]) < _UNDER_WAY:
                source.sendto(struct.pack("!I", self.sent[way]), (str(destination), self._port))
                self.sent[way] += 1

    def _receive(self, way: int, receiver: socket.socket) -> None:
        while True:
            data = receiver.recv(100)
            if data == b"end":
                return
            self.received[way].add(*struct.unpack("!I", data))

    def lost(self) -> tuple[int, int]:
        """Stop; packets that did not arrive, down and up."""
        self._stop.set()
        for thread in self._senders:
            thread.join()
        with contextlib.suppress(AssertionError):
            wait_for(lambda: self._missing() == (0, 0), _PATIENCE_S)
        for end in (self._far, self._near):  # to itself, past the tunnel
            end.sendto(b"end", (end.getsockname()[0] if end is self._near else "::1", self._port))
        for thread in self._receivers:
            thread.join()
        self._far.close()
        self._near.close()
        return self._missing()

    def _missing(self) -> tuple[int, int]:
        down, up = (sent - len(got) for sent, got in zip(self.sent, self.received, strict=True))
        return down, up


@pytest.mark.requirement("draft §4: a change of bindings loses no packet of flows that it does not concern")
def test_changes_lose_nothing(network: Network):
    anchor, mobile = anchor_on(network), mobile_on(network)
    try:

        def both(**more) -> None:
            network.ha.run(lambda: anchor.apply({HOME_ADDRESS: binding(True, **more)}))
            network.mn.run(lambda: mobile.apply({HOME_ADDRESS: binding(False, **more)}))

        both(rules=(rule(1, 4001, 1), rule(2, 4002, 2)))
        untouched, moved = Stream(network, 4001), Stream(network, 4002)
        for turn in range(100):
            more = (rule(2, 4002, 1 + turn % 2), rule(3, 4003, None), rule(4, 4004, 2 - turn % 2))
            both(rules=(rule(1, 4001, 1), *more[: 1 + turn % 3]), default=1 + turn // 2 % 2)
            path = Path(1, HOME_AGENT, WLAN)
            other = HomeBinding(HOME_ADDRESS_2, (path,), 1) if turn % 2 else None
            network.ha.run(lambda other=other: anchor.apply({HOME_ADDRESS_2: other}))
        assert untouched.lost() == (0, 0)
        assert moved.lost() == (0, 0)
        assert min(untouched.sent) > 100
    finally:
        network.ha.run(anchor.close)
        network.mn.run(mobile.close)


@pytest.mark.requirement("draft §4: a change of bindings loses no packet of flows that it does not concern")
def test_care_of_address_comes_and_goes(network: Network):
    anchor, mobile = anchor_on(network), mobile_on(network)
    try:

        def both(bids: tuple[int, ...], **more) -> None:
            network.ha.run(lambda: anchor.apply({HOME_ADDRESS: binding(True, bids=bids, **more)}))
            network.mn.run(lambda: mobile.apply({HOME_ADDRESS: binding(False, bids=bids, **more)}))

        both((2,), default=2)
        stream = Stream(network, 4002)
        for _ in range(20):
            both((1, 2), default=2, rules=(rule(1, 4001, 1),))
            both((2,), default=2)
        assert stream.lost() == (0, 0)
    finally:
        network.ha.run(anchor.close)
        network.mn.run(mobile.close)


#: What a person, another program or a crash may do to the kernel's state.
DAMAGES = [
    "nft delete table ip6 flowbind",
    "nft flush table ip6 flowbind",
    "nft flush chain ip6 flowbind home_2001_db8_100__100",
    "nft flush map ip6 flowbind homes",
    "nft flush set ip6 flowbind tunnels",
    "nft add rule ip6 flowbind prerouting counter",
    "nft insert rule ip6 flowbind prerouting drop",
    "nft add chain ip6 flowbind stranger",
    "nft add element ip6 flowbind tunnels '{ 2001:db8::1 . 2001:db8::2 }'",
    "ip -6 rule del fwmark 0x100000/0x7fff0000 lookup 20016",
    "ip -6 rule del priority 102; ip -6 rule add priority 0 lookup local",
    "ip -6 rule add priority 130 fwmark 0x990000/0x7fff0000 lookup 20200 protocol 177",
    "ip -6 route flush table 20016",
    "ip -6 route flush table 20001; ip -6 route flush table 20003",
    "ip -6 route add 2001:db8:9::/64 dev lo table 20016",
    "ip -6 route replace unreachable 2001:db8:100::100 table 20016 metric 1024",
    "ip -6 route append 2001:db8:100::100 dev flowbind0 table 20017 metric 1024",
    "ip link del flowbind0",
    "ip link set flowbind1 down",
    "ip link set flowbind0 mtu 1400",
    "ip -6 neigh flush proxy; ip -6 neigh del proxy 2001:db8:100::100 dev home0",
    "ip address flush dev lo scope global",
    "ip -6 neigh add proxy 2001:db8:100::999 dev home0 protocol 177",
]


@pytest.mark.long
@pytest.mark.parametrize("side", [Side.ANCHOR, Side.MOBILE], ids=lambda side: side.value)
def test_reconcile_repairs_any_damage(network: Network, side: Side):
    is_anchor = side is Side.ANCHOR
    node = network.ha if is_anchor else network.mn
    wanted = {HOME_ADDRESS: binding(is_anchor, rules=(rule(1, 4001, 1), rule(2, 4002, 2)))}
    anchor, mobile = anchor_on(network), mobile_on(network)
    datapath = anchor if is_anchor else mobile
    chooser = random.Random(6089)
    try:
        network.ha.run(lambda: anchor.apply({HOME_ADDRESS: binding(True)}))
        network.mn.run(lambda: mobile.apply({HOME_ADDRESS: binding(False)}))
        node.run(lambda: datapath.reconcile(wanted))
        before = state(node)
        assert node.run(lambda: datapath.reconcile(wanted)) == 0
        for turn in range(len(DAMAGES) + 20):
            done = [DAMAGES[turn]] if turn < len(DAMAGES) else chooser.sample(DAMAGES, chooser.randint(2, 5))
            for damage in done:
                node.shell(damage, check=False)
            if turn % 3 == 2:  # by a new process, which knows nothing
                datapath = (anchor_on if is_anchor else mobile_on)(network)
            node.run(lambda d=datapath: d.reconcile(wanted))
            assert state(node) == before, done
            assert node.run(lambda d=datapath: d.reconcile(wanted)) == 0, done
            wait_for(lambda: answers(network.cn, HOME_ADDRESS), 30)
    finally:
        for owner, data in ((network.ha, anchor), (network.mn, mobile), (node, datapath)):
            owner.run(data.close)


def state(node: Namespace) -> str:
    """What the kernel has, without what differs from time to time: its own routes and the operational states
    of devices follow some time after what was asked of it."""
    text = node.shell(
        "nft -s list ruleset; ip -6 rule; ip -6 route show table all | grep -v 'proto kernel' | sort;"
        "ip -6 neigh show proxy; ip -6 address show dev lo;"
        "ip -o link | sed 's/^[0-9]*: //; s/ state [A-Z]*//; s/qlen.*//' |"
        " sort | grep flowbind | sed 's/@[^ ]*//'; ip sr tunsrc show"
    )
    lines = [line for line in text.splitlines() if "link/" not in line]
    # chains, sets and counters are listed in the order in which they were made, as are rules of one priority
    blocks = "\n".join(line for line in lines if "lookup" not in line).split("\n\n")
    blocks = [block.removeprefix("table ip6 flowbind {\n") for block in blocks]
    return "\n".join(sorted(blocks) + sorted(line for line in lines if "lookup" in line))


def test_reconcile_takes_over_from_a_killed_agent_without_loss(network: Network):
    anchor, mobile = anchor_on(network), mobile_on(network)
    try:
        # slots in an order that a fresh start would not choose
        network.ha.run(lambda: anchor.apply({HOME_ADDRESS: binding(True, bids=(2,))}))
        network.mn.run(lambda: mobile.apply({HOME_ADDRESS: binding(False, bids=(2,))}))
        wanted = [{HOME_ADDRESS: binding(side, rules=(rule(1, 4001, 1),))} for side in (True, False)]
        network.ha.run(lambda: anchor.apply(wanted[0]))
        network.mn.run(lambda: mobile.apply(wanted[1]))
        stream, other = Stream(network, 4001), Stream(network, 4002)
        wait_for(lambda: anchor.counters()[HOME_ADDRESS, 1][0] > 10)
        for _ in range(5):
            anchor, mobile = anchor_on(network), mobile_on(network)
            assert network.ha.run(lambda d=anchor: d.reconcile(wanted[0])) == 0
            assert network.mn.run(lambda d=mobile: d.reconcile(wanted[1])) == 0
        assert anchor.counters()[HOME_ADDRESS, 1][0] > 10
        # a table that has to be replaced keeps counters and loses nothing, either
        count = anchor.counters()[HOME_ADDRESS, 1][0]
        network.ha.shell("nft add chain ip6 flowbind stranger")
        assert network.ha.run(lambda: anchor.reconcile(wanted[0])) == 1
        assert anchor.counters()[HOME_ADDRESS, 1][0] >= count
        assert stream.lost() == (0, 0)
        assert other.lost() == (0, 0)
    finally:
        network.ha.run(anchor.close)
        network.mn.run(mobile.close)


@pytest.mark.parametrize("side", [Side.ANCHOR, Side.MOBILE], ids=lambda side: side.value)
def test_close_leaves_nothing(network: Network, side: Side):
    is_anchor = side is Side.ANCHOR
    node = network.ha if is_anchor else network.mn
    node.shell(
        "nft add table inet other; nft add chain inet other mine '{ type filter hook input priority 0; }'"
    )
    everything = (
        "ip -6 rule; ip -6 route show table all | sort; ip address; nft list ruleset; ip sr tunsrc show;"
        "ip -6 neigh show proxy; sysctl -a 2>/dev/null | grep '^net.ipv6'"
    )
    before = node.shell(everything)
    datapath = (anchor_on if is_anchor else mobile_on)(network)
    assert node.shell(everything) == before, "nothing before the first call"
    node.run(lambda: datapath.apply({HOME_ADDRESS: binding(is_anchor, rules=(rule(1, 4001, 1),))}))
    assert node.shell(everything) != before
    node.run(datapath.close)
    node.run(datapath.close)
    wait_for(lambda: comparable(node.shell(everything)) == comparable(before))
    node.shell("nft delete table inet other")


def comparable(text: str) -> list[str]:
    """Without ages of addresses and routes."""
    return [line for line in text.splitlines() if "expires" not in line and "valid_lft" not in line]


def test_all_changes_back_is_the_same_state(network: Network):
    anchor = anchor_on(network)
    try:
        for step in (binding(True), None):
            network.ha.run(lambda step=step: anchor.apply({HOME_ADDRESS: step}))
        before = state(network.ha)
        for step in (
            binding(True),
            binding(True, rules=(rule(1, 1, 1), rule(2, 2, None))),
            binding(True, bids=(2,)),
            binding(True, default=None, bids=()),
            None,
        ):
            network.ha.run(lambda step=step: anchor.apply({HOME_ADDRESS: step}))
        assert state(network.ha) == before
    finally:
        network.ha.run(anchor.close)


def test_refused_change_is_rolled_back(network: Network):
    mobile = mobile_on(network)
    try:
        network.mn.run(lambda: mobile.apply({HOME_ADDRESS: binding(False)}))
        before = state(network.mn)
        gone = Path(3, IPv6Address("2001:db8:205::1"), HOME_AGENT, "no-such0", IPv6Address("fe80::1"))
        paths = (*binding(False).paths, gone)
        with pytest.raises(DatapathError, match="no interface no-such0"):
            network.mn.run(lambda: mobile.apply({HOME_ADDRESS: HomeBinding(HOME_ADDRESS, paths, 3)}))
        assert state(network.mn) == before
        network.mn.shell("ip link add idle type veth peer name idle-far")
        down = Path(1, WLAN, HOME_AGENT, "idle", IPv6Address("fe80::1"))
        with pytest.raises(DatapathError, match="route"):
            network.mn.run(
                lambda: mobile.apply({HOME_ADDRESS: HomeBinding(HOME_ADDRESS, (down, path(2, False)), 1)})
            )
        assert state(network.mn) == before
        assert network.mn.run(lambda: mobile.reconcile({HOME_ADDRESS: binding(False)})) == 0
    finally:
        network.mn.shell("ip link del idle", check=False)
        network.mn.run(mobile.close)


def test_refused_rules_are_rolled_back(network: Network):
    anchor = anchor_on(network)
    try:
        network.ha.run(lambda: anchor.apply({HOME_ADDRESS: binding(True)}))
        before = state(network.ha)
        network.ha.shell("nft delete table ip6 flowbind")
        with pytest.raises(DatapathError, match="flow rules"):
            network.ha.run(lambda: anchor.apply({HOME_ADDRESS: binding(True, bids=(1,), default=1)}))
        network.ha.run(lambda: anchor.reconcile({HOME_ADDRESS: binding(True)}))
        assert state(network.ha) == before
    finally:
        network.ha.run(anchor.close)


def test_link_that_comes_back_needs_no_more_than_the_binding(network: Network):
    mobile = mobile_on(network)
    try:
        network.mn.run(lambda: mobile.apply({HOME_ADDRESS: binding(False, default=1)}))
        before = state(network.mn)
        network.mn.shell("ip link set wlan down")
        with network.mn.socket() as sender:  # a network that loses packets is no error
            sender.bind((str(HOME_ADDRESS), 0))
            sender.sendto(b"x", (str(CORRESPONDENT), 53))
        network.mn.shell(
            f"ip link set wlan up; ip address replace {WLAN}/64 dev wlan nodad;"
            "ip -6 route replace default via 2001:db8:201::1"
        )
        wait_for(lambda: "LOWER_UP" in network.mn.shell("ip link show wlan"))
        network.mn.run(lambda: mobile.apply({HOME_ADDRESS: binding(False, default=1)}))
        assert state(network.mn) == before
    finally:
        network.mn.run(mobile.close)


def test_wrong_bindings_are_refused(network: Network):
    anchor = anchor_on(network)
    inside = HomeBinding(HOME_ADDRESS, (Path(1, HOME_AGENT, HOME_ADDRESS),), 1)
    dangling = HomeBinding(HOME_ADDRESS, (Path(1, HOME_AGENT, WLAN),), 1, (rule(1, 1, 2),))
    two_agents = HomeBinding(
        HOME_ADDRESS, (Path(1, HOME_AGENT, WLAN), Path(2, IPv6Address("2001:db8:ff01::1"), WLAN)), 1
    )
    try:
        for wrong, words in (
            (inside, "inside itself"),
            (dangling, "BID 2"),
            (two_agents, "one tunnel source"),
        ):
            if words == "one tunnel source" and anchor.backend != "seg6":
                continue
            with pytest.raises(DatapathError, match=words):
                network.ha.run(lambda wrong=wrong: anchor.apply({HOME_ADDRESS: wrong}))
    finally:
        network.ha.run(anchor.close)


def test_change_is_fast_among_many(network: Network):
    anchor = anchor_on(network)
    many = {
        HOME_ADDRESS + i: HomeBinding(
            HOME_ADDRESS + i,
            tuple(Path(bid, HOME_AGENT, WLAN + 10 * i + bid) for bid in (1, 2)),
            1,
            (rule(1, 4001, 1), rule(2, 4002, 2)),
        )
        for i in range(300)
    }
    try:
        network.ha.run(lambda: anchor.reconcile(many))
        assert network.ha.run(lambda: anchor.reconcile(many)) == 0
        rules = network.ha.shell("ip -6 rule").count("\n")
        assert rules < 12, "policy rules do not grow with the number of mobile nodes"
        assert Slots(shared=True).assign([many[HOME_ADDRESS]]) == {HOME_ADDRESS: {1: 0, 2: 1}}
        changed = many[HOME_ADDRESS]
        changed = HomeBinding(HOME_ADDRESS, changed.paths, 2, (rule(1, 4001, 2),))
        network.ha.run(lambda: anchor.apply({HOME_ADDRESS: changed}))
        assert anchor.counters().keys() == (
            {(address, fid) for address in many for fid in (1, 2, None)} - {(HOME_ADDRESS, 2)}
        )
    finally:
        network.ha.run(anchor.close)
