"""The nf_tables table in the kernel: changed in one transaction, compared, put in order. Class: `Ruleset`."""

import errno
import struct
from collections import Counter
from collections.abc import Hashable, Mapping

from testbed.datapath.classifier import EMPTY, Classifier, HomeRules, flat
from testbed.datapath.netlink import Netlink, NetlinkError, attributes, text
from testbed.datapath.nftables import (
    DELETE_ELEMENT,
    GET_CHAIN,
    GET_ELEMENT,
    GET_RULE,
    GET_SET,
    NEW_ELEMENT,
    Element,
    parse_counter,
    parse_elements,
    parse_name,
    parse_rule,
)


class Ruleset:
    """One table. What each key (a home address, or None for the base) contributes is `HomeRules`.

    `own`: names of sets each of whose elements belongs to one key. Of the elements of others it is counted
    how many keys need them.
    """

    def __init__(
        self, netlink: Netlink, name: str, comment: str, own: frozenset[str] = frozenset()
    ) -> None:
        self._netlink = netlink
        self._name = name
        self._comment = comment
        self._own = own
        self._uses: Counter[tuple[str, tuple[Element, ...]]] = Counter()
        self.classifier: Classifier | None = None
        self._reassembly = True

    def change(self, before: Mapping[Hashable, HomeRules], after: Mapping[Hashable, HomeRules]) -> None:
        """Go from `before` to `after`, which have the same keys, in one transaction. Raises NetlinkError."""
        table = self.classifier.table
        uses: Counter[tuple[str, tuple[Element, ...]]] = Counter()
        sets, chains, rules, gone, counters, old_counters, old_sets = [], [], [], [], [], [], []
        for key, new in after.items():
            old = before.get(key, EMPTY)
            if new is old:
                continue
            uses.subtract(old.elements)
            uses.update(new.elements)
            for name, wanted in new.chains.items():
                if name not in old.chains:
                    chains.append(table.chain(name))
                elif old.chains[name] == wanted:
                    continue
                else:
                    chains.append(table.flush(name))
                rules += [table.rule(name, rule) for rule in wanted]
            gone += [name for name in old.chains if name not in new.chains]
            sets += [table.set(*definition) for definition in new.sets if definition not in old.sets]
            old_sets += [table.delete_set(d[0]) for d in old.sets if d not in new.sets]
            counters += [table.counter(name) for name in new.counters if name not in old.counters]
            old_counters += [table.delete_counter(name) for name in old.counters if name not in new.counters]
        added = flat(e for e, change in uses.items() if change > 0 and not self._uses[e])
        removed = flat(e for e, change in uses.items() if change < 0 and self._uses[e] + change <= 0)
        messages = self._elements_messages(DELETE_ELEMENT, removed)
        messages += sets + chains + counters + rules
        messages += self._elements_messages(NEW_ELEMENT, added)
        messages += [table.flush(name) for name in gone] + [table.delete_chain(name) for name in gone]
        messages += old_counters + old_sets
        if messages:
            self._transact(messages)
        self._count(uses)

    def _count(self, uses: Mapping[tuple[str, tuple[Element, ...]], int]) -> None:
        for element, change in uses.items():
            if change and element[0] not in self._own:
                self._uses[element] += change
                if not self._uses[element]:
                    del self._uses[element]

    def delete(self) -> None:
        """Delete the table, if it is there. Raises NetlinkError."""
        table = self.classifier.table
        self._transact([table.create(self._comment), table.delete()])
        self._uses.clear()

    def repair(self, wanted: Mapping[Hashable, HomeRules]) -> int:
        """Make the table exactly as wanted. If anything is wrong, one transaction puts a right one in its
        place, with the counters of the old one. Returns 1 if it had to, 0 if not. Raises NetlinkError."""
        uses: Counter[tuple[str, tuple[Element, ...]]] = Counter()
        for rules in wanted.values():
            uses.update(rules.elements)
        self._uses.clear()
        self._count(uses)
        elements = flat(uses)
        if self._is_right(wanted, elements):
            return 0
        try:
            self._replace(wanted, elements)
        except NetlinkError as error:
            # no tproxy expression, hence no way to ask for reassembly
            if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP) or not self._reassembly:
                raise
            self._reassembly = False
            if not self._is_right(wanted, elements):
                self._replace(wanted, elements)
        return 1

    def _base_chains(self) -> dict:
        chains = self.classifier.base_chains()
        if not self._reassembly:
            chains.pop("reassembly", None)
            chains.pop("fragments", None)
        return chains

    def _replace(
        self, wanted: Mapping[Hashable, HomeRules], elements: Mapping[str, list[Element]]
    ) -> None:
        table = self.classifier.table
        values = self._counters()
        messages = [table.create(self._comment), table.delete(), table.create(self._comment)]
        names = set(self.classifier.BASE_COUNTERS).union(*(rules.counters for rules in wanted.values()))
        messages += [table.counter(name, *values.get(name, (0, 0))) for name in sorted(names)]
        messages += [table.set(*definition) for definition in self._all_sets(wanted)]
        base = self._base_chains()
        messages += [
            table.base_chain(name, *hook) if hook else table.chain(name) for name, (hook, _) in base.items()
        ]
        homes = {name: rules for new in wanted.values() for name, rules in new.chains.items()}
        messages += [table.chain(name) for name in homes]
        for name, rules in [*((name, rules) for name, (_, rules) in base.items()), *homes.items()]:
            messages += [table.rule(name, rule) for rule in rules]
        messages += self._elements_messages(NEW_ELEMENT, elements)
        self._transact(messages)

    def _elements_messages(self, kind: int, elements: Mapping[str, list[Element]]) -> list[tuple]:
        """Messages that add or take away elements, by set: as many as they need."""
        return [
            self.classifier.table.elements(kind, name, part)
            for name, group in elements.items()
            for part in _parts(group)
        ]

    def _is_right(
        self, wanted: Mapping[Hashable, HomeRules], elements: Mapping[str, list[Element]]
    ) -> bool:
        """Whether the kernel has this table, rule by rule and element by element."""
        base = self._base_chains()
        chains = {name: (hook, rules) for name, (hook, rules) in base.items()}
        chains |= {name: (None, rules) for new in wanted.values() for name, rules in new.chains.items()}
        if self._chains() != {name: hook and hook[1:] for name, (hook, _) in chains.items()}:
            return False
        rules = {name: [rule.digest for rule in rules] for name, (_, rules) in chains.items() if rules}
        if self._rules() != rules:
            return False
        names = set(self.classifier.BASE_COUNTERS).union(*(new.counters for new in wanted.values()))
        if self._counters().keys() != names:
            return False
        sets = self._all_sets(wanted)
        ours = [definition[0] for definition in sets if len(definition) == 4]  # not those that rules fill
        return self._sets() == {definition[0] for definition in sets} and all(
            self.elements(name) == set(elements.get(name, ())) for name in ours
        )

    def _all_sets(self, wanted: Mapping[Hashable, HomeRules]) -> list[tuple]:
        """Arguments of `Table.set`."""
        own = (definition for rules in wanted.values() for definition in rules.sets)
        return [*self.classifier.base_sets(), *own]

    # -- what the kernel has

    def _dump(self, kind: int, *parts: bytes) -> list[bytes]:
        try:
            return self._netlink.dump(*self.classifier.table.request(kind, *parts))
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return []
            raise

    def _chains(self) -> dict[str, tuple[int, int] | None]:
        """Chains of the table, with hook and priority."""
        found: dict[str, tuple[int, int] | None] = {}
        for body in self._dump(GET_CHAIN):
            table, name = parse_name(body, 3)
            if table == self._name:
                hook = attributes(attributes(body, 4).get(4, b""))
                found[name] = struct.unpack(">Ii", hook[1] + hook[2]) if hook else None
        return found

    def _rules(self) -> dict[str, list[bytes | None]]:
        found: dict[str, list[bytes | None]] = {}
        for body in self._dump(GET_RULE):
            if parse_name(body, 2)[0] == self._name:
                chain, digest = parse_rule(body)
                found.setdefault(chain, []).append(digest)
        return found

    def _sets(self) -> set[str]:
        found = (parse_name(body, 2) for body in self._dump(GET_SET))
        return {name for table, name in found if table == self._name}

    def elements(self, name: str) -> set[Element]:
        """What is in a set. Raises NetlinkError."""
        # the kernel may have an end at the very beginning of an interval set, which says nothing
        return {
            element for body in self._dump(GET_ELEMENT, text(2, name)) for element in parse_elements(body)
        }

    def _counters(self) -> dict[str, tuple[int, int]]:
        return dict(map(parse_counter, self._netlink.dump(*self.classifier.table.counters_request())))

    def _transact(self, messages: list[tuple[int, int, bytes]]) -> None:
        begin = self.classifier.table.BEGIN
        self._netlink.transaction(begin, messages, begin)


def _parts(elements: list[Element], size: int = 200) -> list[list[Element]]:
    """The elements in messages of a length that an attribute can have."""
    parts = []
    start = 0
    while start < len(elements):
        end = min(start + size, len(elements))
        while end < len(elements) and elements[end].end:  # keep the two ends of an interval together
            end += 1
        parts.append(elements[start:end])
        start = end
    return parts
