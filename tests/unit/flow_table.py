"""A switch's tables in a few lines: what OpenFlow 1.3 says happens to a packet, for tests.

Class: `FlowTable`. Function: `openflow_fields`.
"""

from collections.abc import Iterable

from controllers.rule import FIELD_BITS, Group, Match, Rule

PORT_NAMES = {6: "tcp", 17: "udp", 132: "sctp"}


def openflow_fields(packet: dict) -> dict[str, int]:
    """What a switch sees of a packet whose fields are named as a traffic selector's."""
    fields = {
        "eth_type": 0x86DD,
        "ipv6_src": int(packet["source_address"]),
        "ipv6_dst": int(packet["destination_address"]),
        "ip_proto": packet["next_header"],
        "ip_dscp": packet["traffic_class"] >> 2,
        "ipv6_flabel": packet["flow_label"],
    }
    name = PORT_NAMES.get(packet["next_header"])
    if name:
        fields |= {f"{name}_src": packet["source_port"], f"{name}_dst": packet["destination_port"]}
    return fields


def matches(wanted: Match, fields: dict[str, int]) -> bool:
    for name, value, mask in wanted:
        if name not in fields:
            return False
        if fields[name] & (mask if mask is not None else (1 << FIELD_BITS[name]) - 1) != value:
            return False
    return True


class FlowTable:
    """Rules of one table and groups. `actions_for(fields)`: of the rule that a packet meets, None for
    none."""

    def __init__(self, rules: Iterable[Rule], groups: Iterable[Group] = ()) -> None:
        self.rules = sorted(rules, key=lambda rule: -rule.priority)
        self.groups = {group.number: group for group in groups}

    def actions_for(self, fields: dict[str, int]) -> tuple | None:
        met = [rule for rule in self.rules if matches(rule.match, fields)]
        if not met:
            return None
        best = [rule for rule in met if rule.priority == met[0].priority]
        assert len({rule.actions for rule in best}) == 1, "rules of one priority contradict each other"
        return best[0].actions
