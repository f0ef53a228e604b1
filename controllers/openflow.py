"""Rules and groups as OpenFlow 1.3 messages of the Ryu API, and back.

Functions: `put_rule`, `delete_rule`, `put_group`, `delete_group`, `flow_request`, `group_request`, `rule_of`,
`group_of`, `port_of`, `bundle`, `error_in_words`.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address
from typing import Any

from controllers.rule import (
    COOKIE_MASK,
    FIELD_BITS,
    INFRASTRUCTURE,
    MARK,
    Action,
    DecrementHopLimit,
    GoTo,
    Group,
    Match,
    Output,
    Rule,
    SetField,
    ToGroup,
    is_ours,
)
from controllers.ryu_api import ofproto, parser
from controllers.switch import Port

_BUNDLE_FLAGS = ofproto.ONF_BF_ATOMIC | ofproto.ONF_BF_ORDERED
_ERRORS = {
    (ofproto.OFPET_FLOW_MOD_FAILED, ofproto.OFPFMFC_TABLE_FULL): "its table is full",
    (ofproto.OFPET_GROUP_MOD_FAILED, ofproto.OFPGMFC_OUT_OF_GROUPS): "it has no room for more groups",
    (ofproto.OFPET_BAD_REQUEST, ofproto.OFPBRC_BAD_EXPERIMENTER): "it knows no bundles",
    (ofproto.OFPET_BAD_REQUEST, ofproto.OFPBRC_BAD_EXP_TYPE): "it knows no bundles",
    (ofproto.OFPET_BAD_REQUEST, ofproto.OFPBRC_EPERM): "it does not permit changes",
}


def put_rule(datapath: Any, rule: Rule) -> Any:
    """A message that adds a rule, or changes what it does; its counters go on."""
    return _flow_mod(datapath, rule, ofproto.OFPFC_ADD)


def delete_rule(datapath: Any, rule: Rule) -> Any:
    """A message that removes a rule, provided that it is ours."""
    return _flow_mod(datapath, rule, ofproto.OFPFC_DELETE_STRICT)


def _flow_mod(datapath: Any, rule: Rule, command: int) -> Any:
    adds = command == ofproto.OFPFC_ADD
    return parser.OFPFlowMod(
        datapath,
        cookie=rule.cookie,
        cookie_mask=0 if adds else COOKIE_MASK,
        table_id=rule.table,
        command=command,
        hard_timeout=rule.hard_timeout_s,
        priority=rule.priority,
        buffer_id=ofproto.OFP_NO_BUFFER,
        out_port=ofproto.OFPP_ANY,
        out_group=ofproto.OFPG_ANY,
        match=_to_match(rule.match),
        instructions=_to_instructions(rule.actions) if adds else [],
    )


def put_group(datapath: Any, group: Group) -> Any:
    """A message that adds a group."""
    buckets = [parser.OFPBucket(actions=_to_actions(actions)) for actions in group.buckets]
    return parser.OFPGroupMod(datapath, ofproto.OFPGC_ADD, ofproto.OFPGT_ALL, group.number, buckets)


def delete_group(datapath: Any, group: Group) -> Any:
    """A message that removes a group."""
    return parser.OFPGroupMod(datapath, ofproto.OFPGC_DELETE, ofproto.OFPGT_ALL, group.number, [])


def bundle(datapath: Any, number: int, messages: Sequence[Any]) -> list[Any]:
    """The messages that have `messages` carried out in this order, all or none (EXT-230). Only the last is
    the commit."""
    number &= 0xFFFFFFFF

    def control(kind: int) -> Any:
        return parser.ONFBundleCtrlMsg(datapath, number, kind, _BUNDLE_FLAGS, [])

    inside = [parser.ONFBundleAddMsg(datapath, number, _BUNDLE_FLAGS, message, []) for message in messages]
    return [control(ofproto.ONF_BCT_OPEN_REQUEST), *inside, control(ofproto.ONF_BCT_COMMIT_REQUEST)]


def flow_request(datapath: Any) -> Any:
    """Ask for all rules of ours."""
    return parser.OFPFlowStatsRequest(
        datapath, 0, ofproto.OFPTT_ALL, ofproto.OFPP_ANY, ofproto.OFPG_ANY, INFRASTRUCTURE, COOKIE_MASK
    )


def group_request(datapath: Any) -> Any:
    """Ask for all groups."""
    return parser.OFPGroupDescStatsRequest(datapath, 0)


def rule_of(entry: Any) -> Rule | None:
    """The rule in a part of a flow statistics reply; None if it is not ours.

    Whatever is in it that we never send makes it different from all rules that are wanted, so that it is
    replaced.
    """
    if not is_ours(entry.cookie):
        return None
    actions: list[Action] = []
    for instruction in entry.instructions:
        if isinstance(instruction, parser.OFPInstructionGotoTable):
            actions.append(GoTo(instruction.table_id))
        elif isinstance(instruction, parser.OFPInstructionActions):
            actions += _from_actions(instruction.actions)
        else:
            actions.append(_foreign(instruction))
    return Rule(
        entry.table_id,
        entry.priority,
        _from_match(entry.match),
        tuple(actions),
        entry.cookie,
        entry.hard_timeout,
    )


def group_of(entry: Any) -> Group | None:
    """The group in a part of a group description reply; None if it is not ours."""
    if entry.group_id >> 24 != MARK:
        return None
    buckets = tuple(tuple(_from_actions(bucket.actions)) for bucket in entry.buckets)
    return Group(entry.group_id, buckets if entry.type == ofproto.OFPGT_ALL else ())


def port_of(description: Any) -> tuple[str, Port]:
    """Name and state of a port."""
    live = not (description.state & ofproto.OFPPS_LINK_DOWN or description.config & ofproto.OFPPC_PORT_DOWN)
    return description.name.rstrip(b"\0").decode(errors="replace"), Port(description.port_no, live)


def error_in_words(message: Any) -> str:
    """What an error message says."""
    known = _ERRORS.get((message.type, message.code))
    return known or f"OpenFlow error type {message.type}, code {message.code}"


def _to_text(field: str, number: int) -> Any:
    if field.startswith("ipv6_") and FIELD_BITS[field] == 128:
        return str(IPv6Address(number))
    if field.startswith("eth_") and FIELD_BITS[field] == 48:
        return ":".join(f"{octet:02x}" for octet in number.to_bytes(6, "big"))
    return number


def _from_text(value: Any) -> int:
    if isinstance(value, int):
        return value
    if value.count(":") == 5 and all(len(part) == 2 for part in value.split(":")):
        return int(value.replace(":", ""), 16)
    return int(IPv6Address(value))


def _to_match(wanted: Match) -> Any:
    return parser.OFPMatch(
        **{
            name: _to_text(name, value) if mask is None else (_to_text(name, value), _to_text(name, mask))
            for name, value, mask in wanted
        }
    )


def _from_match(found: Any) -> Match:
    fields = []
    for name, value in found.items():
        value, mask = value if isinstance(value, tuple) else (value, None)
        mask = None if mask is None else _from_text(mask)
        if name in FIELD_BITS and mask == (1 << FIELD_BITS[name]) - 1:
            mask = None
        fields.append((name, _from_text(value), mask))
    return tuple(sorted(fields, key=lambda field: field[0]))


def _to_instructions(actions: Sequence[Action]) -> list[Any]:
    instructions = [parser.OFPInstructionGotoTable(a.table) for a in actions if isinstance(a, GoTo)]
    others = [action for action in actions if not isinstance(action, GoTo)]
    if others:
        apply = parser.OFPInstructionActions(ofproto.OFPIT_APPLY_ACTIONS, _to_actions(others))
        instructions.insert(0, apply)
    return instructions


def _to_actions(actions: Iterable[Action]) -> list[Any]:
    return [_to_action(action) for action in actions]


def _to_action(action: Action) -> Any:
    if isinstance(action, SetField):
        return parser.OFPActionSetField(**{action.field: _to_text(action.field, action.value)})
    if isinstance(action, DecrementHopLimit):
        return parser.OFPActionDecNwTtl()
    if isinstance(action, ToGroup):
        return parser.OFPActionGroup(action.number)
    if isinstance(action, Output):
        return parser.OFPActionOutput(action.port, 0)
    raise TypeError(f"{action} is no action for a list of actions")


def _from_actions(actions: Iterable[Any]) -> list[Action]:
    found: list[Action] = []
    for action in actions:
        if isinstance(action, parser.OFPActionSetField):
            found.append(SetField(action.key, _from_text(action.value)))
        elif isinstance(action, parser.OFPActionDecNwTtl):
            found.append(DecrementHopLimit())
        elif isinstance(action, parser.OFPActionGroup):
            found.append(ToGroup(action.group_id))
        elif isinstance(action, parser.OFPActionOutput):
            found.append(Output(action.port))
        else:
            found.append(_foreign(action))
    return found


def _foreign(thing: Any) -> SetField:
    """Something that we never send."""
    return SetField(type(thing).__name__, 0)
