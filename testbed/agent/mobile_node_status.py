"""How a mobile node stands, for `flowbind status`. Function: `mobile_node_status`."""

from typing import Any

from testbed.agent.access_links import AccessLinks
from testbed.agent.configuration import Interface, MobileNodeFile
from testbed.agent.netlink import LinkMonitor
from testbed.mobility.hierarchical_node import HierarchicalMobileNode
from testbed.mobility.mobile_node import MobileNode


def mobile_node_status(
    file: MobileNodeFile, mobile: MobileNode, monitor: LinkMonitor, access: AccessLinks
) -> dict[str, Any]:
    """JSON-able, addresses as text; parts that a node does not have are left out."""
    return {
        "home_address": str(file.home_address),
        "home_agent": str(mobile.home_agent),
        "home_prefixes": [
            {
                "prefix": str(prefix.prefix),
                "valid_s": prefix.valid_lifetime_s,
                "preferred_s": prefix.preferred_lifetime_s,
            }
            for prefix in mobile.home_prefixes.prefixes
        ],
        "registered": mobile.registered,
        "at_home": mobile.home_interface,
        "interfaces": [_interface(interface, monitor, access) for interface in file.interface],
        **_mobile_network(mobile),
        **_hierarchy(mobile),
    }


def _interface(interface: Interface, monitor: LinkMonitor, access: AccessLinks) -> dict[str, Any]:
    link, attachment = monitor.link(interface.name), access.attachment(interface.name)
    return {
        "name": interface.name,
        "bid": interface.bid,
        "priority": interface.priority,
        "link": "none" if link is None else "up" if link.up else "down",
        "care_of_address": str(attachment.care_of_address) if attachment else None,
        "gateway": str(attachment.gateway) if attachment else None,
    }


def _mobile_network(mobile: MobileNode) -> dict[str, Any]:
    """What a mobile router has to say for itself."""
    network = mobile.registration.mobile_network
    if network is None:
        return {}
    return {
        "mobile_network": {
            "prefixes": [str(prefix) for prefix in network.prefixes],
            "mode": "explicit" if network.explicit else "implicit",
            "served": network.served,
            "refused": mobile.registration.given_up,
        }
    }


def _hierarchy(mobile: MobileNode) -> dict[str, Any]:
    local = mobile.local if isinstance(mobile, HierarchicalMobileNode) else None
    if local is None:
        return {}
    return {
        "anchor_point": str(local.peer),
        "regional_address": str(local.home_address),
        "registered_with_anchor_point": local.known_to_peer,
        "correspondents_get": "regional" if mobile.regional_routes else "on-link",
    }
