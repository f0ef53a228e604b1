"""A binding as switch rules: `translate`, the classes `Way`, `Translation` and `FlowReport`.

Nothing here talks to a switch. In the core switch, packets to the home address that match a flow binding
go straight to the mobile node's interface in the bound access network. In the switch of an access
network, packets from the home address are let through, outside any tunnel, if they belong to a flow that
is bound to this access network.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from controllers.rule import (
    ETH_TYPE_IPV6,
    NORMAL,
    Action,
    DecrementHopLimit,
    Group,
    Match,
    Output,
    Rule,
    SetField,
    ToGroup,
    cookie,
    match,
    mirrored,
)
from controllers.selection import networks_of, select
from testbed.mobility.forwarding import Action as FlowAction
from testbed.mobility.forwarding import HomeBinding

#: Priorities: signalling first; flow bindings by PRI, each PRI with room for SPAN of them; the default
#: binding last.
SIGNALLING_PRIORITY = 65000
TOP, SPAN = 60000, 200
DEFAULT_PRIORITY = 10
#: Mobility Header (RFC 6275 §6.1): flow bindings do not apply to signalling.
MOBILITY_HEADER = 135

#: What the core switch does with packets that it leaves to the home agent; what an access switch does
#: with packets
#: that should have come in the tunnel (ingress filtering, RFC 2827); and with those that it lets through.
TO_HOME_AGENT: tuple[Action, ...] = (Output(NORMAL),)
REFUSE: tuple[Action, ...] = ()
ADMIT: tuple[Action, ...] = (Output(NORMAL),)


@dataclass(frozen=True, slots=True)
class Way:
    """How the core switch reaches a care-of address: through `port`, in frames from `source` to
    `destination`."""

    access: str
    port: int
    source: int
    destination: int


@dataclass(frozen=True, slots=True)
class FlowReport:
    """What became of a flow binding. `reason`: why (some of) its packets stay with the home agent, else
    None."""

    fid: int
    mirrored: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Translation:
    """Rules of the core switch with their groups, rules of each access network's switch by its name."""

    core: tuple[Rule, ...] = ()
    groups: tuple[Group, ...] = ()
    access: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    flows: tuple[FlowReport, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    """What happens to some packets to the home address: where they go in the core, or None: to the home
    agent."""

    priority: int
    fid: int
    matches: tuple[Match, ...]
    ways: tuple[Way, ...] | None


def translate(
    binding: HomeBinding,
    ways: Mapping[int, Way | str],
    table: int,
    max_matches: int = 256,
    mirror_default: bool = False,
) -> Translation:
    """The rules, in `table`, that treat the packets of a home address as its binding says.

    ways: for each BID how it is reached, or a sentence why it is not. What cannot be mirrored has rules
    that leave it to the home agent where rules of lower priority would catch it otherwise.
    """
    home = networks_of(binding.home_address, binding.prefixes)
    entries: list[_Entry] = []
    reports = []
    priority = TOP + 1
    for rule in binding.rules:
        priority = min(TOP - _pri(rule.priority) * SPAN, priority - 1)
        if priority <= DEFAULT_PRIORITY:  # only with more than SPAN flow bindings of the last few PRIs
            everything = select(None, home).exact
            entries.append(_Entry(DEFAULT_PRIORITY + 1, rule.fid, everything, None))
            reports += [
                FlowReport(late.fid, False, "there are too many flow bindings of its priority")
                for late in binding.rules[len(reports) :]
            ]
            break
        selection = select(rule.selector, home, max_matches)
        taken = _ways(rule.action, rule.bids, ways)
        if isinstance(taken, str):
            reason = selection.reason or taken
            entries.append(_Entry(priority, rule.fid, selection.exact + selection.doubtful, None))
        else:
            reason = selection.reason
            entries.append(_Entry(priority, rule.fid, selection.exact, taken))
            entries.append(_Entry(priority, rule.fid, selection.doubtful, None))
        reports.append(FlowReport(rule.fid, bool(selection.exact) and not isinstance(taken, str), reason))
    default = ways.get(binding.default_bid) if mirror_default else None
    if isinstance(default, Way):
        entries.append(_Entry(DEFAULT_PRIORITY, 0, select(None, home).exact, (default,)))
    while (
        entries and entries[-1].ways is None
    ):  # nothing is below it: its packets go to the home agent anyway
        entries.pop()
    entries = [entry for entry in entries if entry.matches]
    if not entries:
        return Translation(flows=tuple(reports))
    signalling = tuple(
        match(**_fields(found), ip_proto=MOBILITY_HEADER) for found in select(None, home).exact
    )
    entries.insert(0, _Entry(SIGNALLING_PRIORITY, 0, signalling, None))
    return _assemble(binding, entries, table, tuple(reports))


def _pri(priority: int) -> int:
    """The 8 bits that matter most: a FID-PRI has 16 (RFC 6089 §4.2), whose order among others stays."""
    return priority if priority <= 0xFF else priority >> 8


def _ways(action: FlowAction, bids: tuple[int, ...], ways: Mapping[int, Way | str]) -> tuple[Way, ...] | str:
    """Where a flow goes, each way once; or why the switch cannot do it."""
    if action is FlowAction.DISCARD:
        return ()
    found = [ways.get(bid, f"BID {bid} has no care-of address") for bid in bids]
    reason = next((way for way in found if isinstance(way, str)), None)
    return reason if reason is not None else tuple(dict.fromkeys(found))


def _assemble(
    binding: HomeBinding, entries: list[_Entry], table: int, flows: tuple[FlowReport, ...]
) -> Translation:
    core: dict[tuple, Rule] = {}
    groups: dict[int, Group] = {}
    access: dict[str, dict[tuple, Rule]] = {
        name: {} for name in sorted({way.access for entry in entries for way in entry.ways or ()})
    }
    for entry in entries:
        actions, group = _core_actions(entry.ways)
        if group:
            groups[group.number] = group
        reached = {way.access for way in entry.ways or ()}
        for found in entry.matches:
            _put(core, Rule(table, entry.priority, found, actions, cookie(binding.home_address, entry.fid)))
            for name, rules in access.items():
                verdict = ADMIT if name in reached else REFUSE
                _put(
                    rules,
                    Rule(
                        table,
                        entry.priority,
                        mirrored(found),
                        verdict,
                        cookie(binding.home_address, entry.fid),
                    ),
                )
    return Translation(
        tuple(core.values()),
        tuple(groups.values()),
        {name: _trimmed(rules) for name, rules in access.items()},
        flows,
    )


def _put(rules: dict[tuple, Rule], rule: Rule) -> None:
    """Where exact and doubtful matches of one flow binding are the same, the first says what is done."""
    rules.setdefault(rule.key, rule)


def _trimmed(rules: dict[tuple, Rule]) -> tuple[Rule, ...]:
    """Without the refusals below the last admission: what matches no rule is refused anyway."""
    last = min(rule.priority for rule in rules.values() if rule.actions == ADMIT)
    return tuple(rule for rule in rules.values() if rule.actions == ADMIT or rule.priority > last)


def _core_actions(ways: tuple[Way, ...] | None) -> tuple[tuple[Action, ...], Group | None]:
    if ways is None:
        return TO_HOME_AGENT, None
    if not ways:
        return (), None
    if len(ways) == 1:
        return (DecrementHopLimit(), *_delivery(ways[0])), None
    group = Group.of(tuple(_delivery(way) for way in ways))
    return (DecrementHopLimit(), ToGroup(group.number)), group


def _delivery(way: Way) -> tuple[Action, ...]:
    return SetField("eth_src", way.source), SetField("eth_dst", way.destination), Output(way.port)


def _fields(found: Match) -> dict[str, tuple[int, int]]:
    return {
        name: (value, (1 << 128) - 1 if mask is None else mask)
        for name, value, mask in found
        if name == "ipv6_dst"
    } | {"eth_type": ETH_TYPE_IPV6}
