"""Binding cache entries as JSON-able values, for a restart that keeps its promises.

Functions: `entry_to_snapshot`, `entry_from_snapshot`, `flow_to_snapshot`, `flow_from_snapshot`.
"""

from ipaddress import IPv6Address, IPv6Network
from typing import Any

from testbed.mobility.binding import Binding, FlowBinding
from testbed.mobility.binding_cache import CacheEntry
from testbed.mobility.forwarding import Action, OnLink
from testbed.wire.selector import SELECTORS, TrafficSelector


def entry_to_snapshot(entry: CacheEntry, now: float) -> dict[str, Any]:
    """`now` in seconds; lifetimes are written as what remains of them."""
    return {
        "home_address": str(entry.home_address),
        "local": str(entry.local),
        "sequence": entry.sequence,
        "bindings": [
            {
                "bid": binding.bid,
                "care_of_address": str(binding.care_of_address),
                "priority": binding.priority,
                "lifetime_s": binding.lifetime_s,
                "remaining_s": binding.expires - now,
                "on_link": _on_link_to_snapshot(binding.on_link),
            }
            for binding in entry.bindings.values()
        ],
        "flows": [flow_to_snapshot(flow) for flow in entry.flows.values()],
        "mobile_router": entry.mobile_router,
        "prefixes": [str(prefix) for prefix in entry.prefixes],
        "owner": entry.owner,
        "link_local": entry.link_local,
    }


def entry_from_snapshot(saved: dict[str, Any], saved_at: float) -> CacheEntry:
    """The inverse; `saved_at` is the time of the snapshot. Raises ValueError if it is not one."""
    try:
        entry = CacheEntry(
            IPv6Address(saved["home_address"]), IPv6Address(saved["local"]), int(saved["sequence"])
        )
        for item in saved["bindings"]:
            entry.bindings[int(item["bid"])] = Binding(
                int(item["bid"]),
                IPv6Address(item["care_of_address"]),
                int(item["priority"]),
                int(item["lifetime_s"]),
                saved_at + float(item["remaining_s"]),
                _on_link_from_snapshot(item.get("on_link")),
            )
        for item in saved["flows"]:
            flow = flow_from_snapshot(item)
            entry.flows[flow.fid] = flow
        entry.mobile_router = bool(saved.get("mobile_router", False))
        entry.prefixes = tuple(IPv6Network(prefix) for prefix in saved.get("prefixes", ()))
        entry.owner = saved.get("owner")
        entry.link_local = bool(saved.get("link_local", False))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a binding cache entry: {error!r}") from error
    return entry


def _on_link_to_snapshot(on_link: OnLink | None) -> list[Any] | None:
    return None if on_link is None else [on_link.neighbour_discovery, on_link.link_layer_address.hex()]


def _on_link_from_snapshot(saved: list[Any] | None) -> OnLink | None:
    return None if saved is None else OnLink(bool(saved[0]), bytes.fromhex(saved[1]))


def flow_to_snapshot(flow: FlowBinding) -> dict[str, Any]:
    """A flow binding; its selector as RFC 6088 octets in hexadecimal, after the number of their format."""
    selector = None if flow.selector is None else [flow.selector.ts_format, bytes(flow.selector).hex()]
    return {
        "fid": flow.fid,
        "priority": flow.priority,
        "action": int(flow.action),
        "bids": list(flow.bids),
        "selector": selector,
    }


def flow_from_snapshot(saved: dict[str, Any]) -> FlowBinding:
    """The inverse. Raises ValueError, KeyError or TypeError if it is not one."""
    selector: TrafficSelector | None = None
    if saved["selector"] is not None:
        number, octets = saved["selector"]
        selector = SELECTORS[number].parse(bytes.fromhex(octets))
    bids = tuple(int(bid) for bid in saved["bids"])
    return FlowBinding(int(saved["fid"]), int(saved["priority"]), Action(saved["action"]), bids, selector)
