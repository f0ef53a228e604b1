"""Two mobile nodes with real agents, behind one home agent or behind one each. Class: `PeerNetwork`.

To the network of `AgentNetwork`: mobile node `peer` on the bridges wlan and other, and a home agent `ha2`.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from agent_network import HOME, HOME_ADDRESS, KEY, Agent, AgentNetwork
from datapath_network import Namespace, wait_for

#: Home address and home agent of the peer, by the number of home agents.
PEER_HOMES = {1: ("2001:db8:100::200", "2001:db8:100::1"), 2: ("2001:db8:101::200", "2001:db8:101::1")}
_PEER_PATHS = ("wlan", "other")
_PEER = f"""
role = "mobile-node"
name = "peer"
home_address = "HOME_ADDRESS"
home_agent = "HOME_AGENT"
state = "FOLDER/peer.state"
security = {{ spi = 1001, key = "{KEY}" }}
[[interface]]
name = "peer-wlan"
bid = 1
priority = 10
[[interface]]
name = "peer-other"
bid = 2
priority = 20
[[flow]]
fid = 1
bids = ["other"]
next_header = "udp"
destination_port = 5000
"""


class PeerNetwork(AgentNetwork):
    """`home_agents`: 1 or 2."""

    def __init__(self, folder: Path, home_agents: int) -> None:
        super().__init__(folder)
        self.folder = folder
        self.peer, self.ha2 = Namespace("peer"), Namespace("ha2")
        self.home_agents = home_agents
        self.peer_home, self.peer_home_agent = PEER_HOMES[home_agents]
        for name in _PEER_PATHS:
            self.peer.shell(f"ip link add peer-{name} type veth peer name {name}-peer netns {self.ar.pid}")
            self.ar.shell(f"ip link set {name}-peer master {name} up")
            self.peer.shell(
                f"echo 0 >/proc/sys/net/ipv6/conf/peer-{name}/router_solicitation_delay; "
                f"ip link set peer-{name} up"
            )
        self.ha2.shell(
            "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding; ip link add home0 type veth peer name end; "
            f"ip link add core type veth peer name core2 netns {self.ar.pid}; "
            "ip link set home0 up; ip link set end up; ip link set core up; "
            "ip -6 addr add 2001:db8:101::1/64 dev home0 nodad; "
            "ip -6 addr add 2001:db8:ff02::1/64 dev core nodad; "
            "ip -6 route add default via 2001:db8:ff02::2"
        )
        self.ar.shell(
            "ip link set core2 up; ip -6 addr add 2001:db8:ff02::2/64 dev core2 nodad; "
            "ip -6 route add 2001:db8:101::/64 via 2001:db8:ff02::1"
        )
        self.ha.shell("ip -6 route add 2001:db8:101::/64 via 2001:db8:ff01::2")
        for name in _PEER_PATHS:
            wait_for(lambda name=name: self.peer_address(name))

    def peer_address(self, name: str) -> str | None:
        """The care-of address of an interface of the peer."""
        found = json.loads(self.peer.shell(f"ip -j -6 addr show dev peer-{name} scope global"))
        entries = [entry.get("local") for link in found for entry in link.get("addr_info", ())]
        return next((entry for entry in entries if entry), None)

    @contextlib.contextmanager
    def agents(self, more: str = "", of_peer: str = "") -> Iterator[tuple[Agent, Agent]]:
        """The agents of the two mobile nodes, registered; `more` is in front of their configurations."""
        peer_text = _PEER.replace("HOME_ADDRESS", self.peer_home).replace("HOME_AGENT", self.peer_home_agent)
        theirs = f'{{ home_address = "{self.peer_home}", spi = 1001, key = "{KEY}" }}'
        second = HOME.replace('name = "ha"', 'name = "ha2"').replace("2001:db8:100::", "2001:db8:101::")
        second = second.replace("ha.state", "ha2.state")
        before, _, behind = second.partition("security_association = [")
        second = f"{before}security_association = [{theirs}]{behind[behind.index(']') + 1 :]}"
        both = HOME.replace("security_association = [", f"security_association = [{theirs}, ")
        with contextlib.ExitStack() as stack:
            stack.enter_context(Agent(self.ha, self.folder, text=both))
            if self.home_agents == 2:
                stack.enter_context(Agent(self.ha2, self.folder, text=second))
            mn = stack.enter_context(Agent(self.mn, self.folder, first=more))
            peer = stack.enter_context(Agent(self.peer, self.folder, first=more + of_peer, text=peer_text))
            for agent in (mn, peer):
                wait_for(lambda agent=agent: len([b for b in agent.ask("bindings") if b["registered"]]) == 2)
            yield mn, peer

    def addresses(self) -> tuple[str, str]:
        """The home addresses of the two."""
        return HOME_ADDRESS, self.peer_home

    def close(self) -> None:
        for node in (self.peer, self.ha2):
            node.close()
        super().close()
