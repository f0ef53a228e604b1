"""What is known of a switch, and what can be asked of one.

Classes: `Switch`, `Port`, `Refusal`; `Read`, `Commit`, `Renew`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from controllers.rule import Group, Match, Rule, ToGroup

#: Rules by what identifies them in a switch.
Rules: TypeAlias = dict[tuple[int, int, Match], Rule]


@dataclass(frozen=True, slots=True)
class Port:
    """`live`: neither link nor port is down."""

    number: int
    live: bool


@dataclass(frozen=True, slots=True)
class Read:
    """Tell which rules and groups of ours there are; the answer goes to `Mirror.switch_tables`."""

    switch: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Make this change as a whole, or not at all; the answer goes to `Mirror.committed` or `refused`.

    Carried out in the order new groups, old rules, new rules, old groups. `wanted`: what is there afterwards.
    """

    switch: int
    number: int
    new_rules: tuple[Rule, ...]
    old_rules: tuple[Rule, ...]
    new_groups: tuple[Group, ...]
    old_groups: tuple[Group, ...]
    wanted: Mapping[int, Rules]


@dataclass(frozen=True, slots=True)
class Renew:
    """Put these rules, again if they are there; no answer is wanted."""

    switch: int
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A switch did not take the rules of an owner; `until` when that is not tried again, in seconds."""

    reason: str
    until: float
    delay_s: float


@dataclass(slots=True)
class Switch:
    """A connected switch. Owners are cookies of home addresses.

    rules: by owner; None until they have been read. dirty: owners whose rules may not be what is wanted.
    batch: of how many owners the rules are changed at once. settled_at: when last everything was as wanted,
    or a step towards it succeeded.
    """

    MAX_BATCH = 64

    number: int
    ports: dict[str, Port]
    rules: dict[int, Rules] | None = None
    groups: dict[int, Group] = field(default_factory=dict)
    counters: dict[tuple, tuple[int, int]] = field(default_factory=dict)
    dirty: set[int] = field(default_factory=set)
    refused: dict[int, Refusal] = field(default_factory=dict)
    batch: int = MAX_BATCH
    busy: Commit | None = None
    busy_since: float = 0.0
    committed: int = 0
    reading_since: float | None = None
    read_at: float = 0.0
    read_number: int = 0
    paused_until: float = 0.0
    settled_at: float | None = None
    _uses: Counter = field(default_factory=Counter)

    def forget(self) -> None:
        """What it has is not known any more."""
        self.rules, self.busy, self.reading_since, self.settled_at = None, None, None, None

    @property
    def is_quiet(self) -> bool:
        """Everything is as wanted, as far as is known."""
        return self.rules is not None and not self.busy and not self.dirty

    def everything(self) -> tuple[tuple[Rule, ...], tuple[Group, ...]]:
        """All rules and groups that it may have of ours: those that it has, those that are under way."""
        groups = dict(self.groups)
        owned = list((self.rules or {}).values())
        if self.busy:
            owned += self.busy.wanted.values()
            groups |= {group.number: group for group in self.busy.new_groups}
        rules = {key: rule for rules in owned for key, rule in rules.items()}
        return tuple(rules.values()), tuple(groups.values())

    def set_rules(self, rules: dict[int, Rules], groups: dict[int, Group]) -> None:
        """It has exactly these."""
        self.rules, self.groups = rules, groups
        self._uses = Counter(number for own in rules.values() for number in _groups_in(own))

    def put_rules(self, owner: int, rules: Rules) -> None:
        """It now has these of `owner`."""
        self._uses.subtract(_groups_in(self.rules.get(owner, {})))
        self._uses.update(_groups_in(rules))
        if rules:
            self.rules[owner] = rules
        else:
            self.rules.pop(owner, None)

    def unused_groups(self, wanted: Mapping[int, Rules]) -> tuple[Group, ...]:
        """Groups that no rule leads to once owners have what is `wanted`."""
        uses = Counter(self._uses)
        for owner, rules in wanted.items():
            uses.subtract(_groups_in(self.rules.get(owner, {})))
            uses.update(_groups_in(rules))
        return tuple(group for number, group in self.groups.items() if uses[number] <= 0)

    def change_to(self, number: int, wanted: dict[int, Rules], groups: Mapping[int, Group]) -> Commit:
        """The change that gives each owner what is `wanted`, which leads to `groups`."""
        new_rules, old_rules = [], []
        for owner, rules in wanted.items():
            there = self.rules.get(owner, {})
            new_rules += [rule for key, rule in rules.items() if there.get(key) != rule]
            old_rules += [rule for key, rule in there.items() if key not in rules]
        new_groups = tuple(group for group in groups.values() if self.groups.get(group.number) != group)
        old_groups = tuple(g for g in self.unused_groups(wanted) if g.number not in groups)
        return Commit(self.number, number, tuple(new_rules), tuple(old_rules), new_groups, old_groups, wanted)


def _groups_in(rules: Rules) -> list[int]:
    return [a.number for rule in rules.values() for a in rule.actions if isinstance(a, ToGroup)]
