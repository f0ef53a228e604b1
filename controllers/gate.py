"""The gates in table 0 that lead packets to our rules. Function: `gates`."""

from collections.abc import Iterable
from ipaddress import IPv6Network

from controllers.fabric import Fabric
from controllers.rule import ETH_TYPE_IPV6, INFRASTRUCTURE, NORMAL, GoTo, Output, Rule, match
from controllers.switch import Switch

GATE_PRIORITY = 40000


def gates(fabric: Fabric, switch: Switch, prefixes: Iterable[IPv6Network]) -> tuple[Rule, ...]:
    """From table 0 to our rules: packets to these networks of home addresses that come in at the core's edge,
    and those from there that come from mobile nodes, not from the network, in an access network."""
    at_core = switch.number == fabric.core
    names = fabric.edge_ports if at_core else fabric.ports_of(switch.number)
    ports = [switch.ports[name].number for name in names if name in switch.ports]
    if not at_core and len(ports) < len(names):
        return ()  # it could not be told where packets come from
    lease_s, found = fabric.lease_s, []
    enter, leave = (GoTo(fabric.table),), (Output(NORMAL),)
    for prefix in prefixes:
        network = int(prefix.network_address), int(prefix.netmask)
        for port in ports:
            if at_core:
                packets = match(in_port=port, eth_type=ETH_TYPE_IPV6, ipv6_dst=network)
                found.append(Rule(0, GATE_PRIORITY, packets, enter, INFRASTRUCTURE, lease_s))
            else:
                packets = match(in_port=port, eth_type=ETH_TYPE_IPV6, ipv6_src=network)
                found.append(Rule(0, GATE_PRIORITY + 1, packets, leave, INFRASTRUCTURE, lease_s))
        if not at_core:
            packets = match(eth_type=ETH_TYPE_IPV6, ipv6_src=network)
            found.append(Rule(0, GATE_PRIORITY, packets, enter, INFRASTRUCTURE, lease_s))
    return tuple(found)
