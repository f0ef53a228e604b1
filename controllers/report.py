"""What the controller tells about itself: `rules_report`, `status_report`. JSON-able."""

from ipaddress import IPv6Address
from typing import Any

from controllers.mirror import Mirror
from controllers.rule import (
    NORMAL,
    Action,
    DecrementHopLimit,
    GoTo,
    Match,
    Output,
    Rule,
    SetField,
    ToGroup,
    cookie,
)
from controllers.switch import Switch


def status_report(mirror: Mirror, library: str, feeds: dict[str, bool]) -> dict[str, Any]:
    """One glance: switches, feeds, how much is mirrored."""
    return {
        "library": library,
        "bindings": len(mirror.bindings),
        "feeds": [{"feed": path, "connected": connected} for path, connected in feeds.items()],
        "switches": [
            {
                "switch": number,
                "name": name_of(mirror, number),
                "connected": number in mirror.switches,
                "ready": number in mirror.switches and mirror.switches[number].is_quiet,
                "rules": _count(mirror.switches.get(number)),
                "refused": len(mirror.switches[number].refused) if number in mirror.switches else 0,
            }
            for number in sorted(mirror.fabric.switches)
        ],
    }


def rules_report(mirror: Mirror) -> list[dict[str, Any]]:
    """The flow bindings of each home address with the switch rules that mirror them, and the rules'
    counters."""
    return [_home(mirror, address) for address in sorted(mirror.bindings)]


def _home(mirror: Mirror, home_address: IPv6Address) -> dict[str, Any]:
    binding = mirror.bindings[home_address]
    reports = {report.fid: report for report in mirror.effective(home_address).flows}
    refusal = next(
        (
            s.refused[cookie(home_address)]
            for s in mirror.switches.values()
            if cookie(home_address) in s.refused
        ),
        None,
    )
    connected = mirror.fabric.core in mirror.switches
    flows = []
    for rule in binding.rules:
        report = reports[rule.fid]
        reason = report.reason
        if not connected:
            reason = "the core switch is not connected"
        elif refusal is not None:
            reason = f"a switch refuses its rules: {refusal.reason}"
        there = _rules(mirror, home_address, rule.fid)
        flows.append(
            {
                "fid": rule.fid,
                "priority": rule.priority,
                "action": rule.action.name.lower().replace("_", "-"),
                "bids": list(rule.bids),
                "mirrored": report.mirrored and connected and refusal is None,
                "reason": reason,
                "rules": there,
                "packets": sum(item["packets"] for item in there if item["steers"]),
                "octets": sum(item["octets"] for item in there if item["steers"]),
            }
        )
    return {
        "home_address": str(home_address),
        "paths": [{"bid": path.bid, "care_of_address": str(path.remote)} for path in binding.paths],
        "default_bid": binding.default_bid,
        "flows": flows,
        "others": _rules(mirror, home_address, 0),
    }


def _rules(mirror: Mirror, home_address: IPv6Address, fid: int) -> list[dict[str, Any]]:
    found = []
    for number, switch in sorted(mirror.switches.items()):
        for rule in ((switch.rules or {}).get(cookie(home_address)) or {}).values():
            if rule.cookie == cookie(home_address, fid):
                packets, octets = switch.counters.get(rule.key, (0, 0))
                found.append(
                    {
                        "switch": name_of(mirror, number),
                        "priority": rule.priority,
                        "match": match_in_words(rule.match),
                        "actions": actions_in_words(rule, switch),
                        "steers": number == mirror.fabric.core and rule.actions != (Output(NORMAL),),
                        "packets": packets,
                        "octets": octets,
                    }
                )
    return sorted(found, key=lambda item: (item["switch"] != "core", -item["priority"]))


def name_of(mirror: Mirror, number: int) -> str:
    """ "core", or the access network's name."""
    return next((a.name for a in mirror.fabric.access if a.switch == number), "core")


def _count(switch: Switch | None) -> int:
    return sum(len(rules) for rules in (switch.rules or {}).values()) if switch else 0


def match_in_words(found: Match) -> str:
    """As `ovs-ofctl` writes it, more or less."""
    words = []
    for name, value, mask in found:
        if name.startswith("ipv6_") and name != "ipv6_flabel":
            text = str(IPv6Address(value))
            text += "" if mask is None else f"/{mask.bit_count()}"
        else:
            text = str(value) if mask is None else f"{value:#x}/{mask:#x}"
        if name != "eth_type":
            words.append(f"{name}={text}")
    return ",".join(words) or "any"


def actions_in_words(rule: Rule, switch: Switch) -> str:
    """What a rule does."""
    names = {port.number: name for name, port in switch.ports.items()}
    return ",".join(_action_in_words(action, names) for action in rule.actions) or "drop"


def _action_in_words(action: Action, names: dict[int, str]) -> str:
    if isinstance(action, Output):
        return "normal" if action.port == NORMAL else f"output:{names.get(action.port, action.port)}"
    if isinstance(action, SetField):
        value = ":".join(f"{octet:02x}" for octet in action.value.to_bytes(6, "big"))
        return f"{action.field}={value}"
    if isinstance(action, ToGroup):
        return f"group:{action.number:#x}"
    if isinstance(action, GoTo):
        return f"table:{action.table}"
    assert isinstance(action, DecrementHopLimit)
    return "dec_ttl"
