"""The rules of a mobile node with many flow bindings: a connection goes through them once, a change of one
rewrites those beside it only.

They only find out a number, by which connections that are known go at once to the same action, in a chain of
its own (see `recent_flows`). They stand in blocks, each a chain, which another one goes through. Where a
block begins follows from the FIDs in it, so that the same flow bindings give the same blocks whatever was
before.

Classes: `HomeRules`, `ManyRules`. Function: `blocks`.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TypeAlias

from testbed.datapath import mark
from testbed.datapath.nftables import (
    JUMP,
    NOT_EQUAL,
    RETURN,
    TYPE_MARK,
    TYPE_VERDICT,
    Element,
    Rule,
    compare,
    set_mark,
    verdict,
)
from testbed.datapath.recent_flows import act, follow, marked, note, number
from testbed.mobility.forwarding import FlowRule, HomeBinding

#: One rule in so many begins a block (a power of 2).
_BLOCK = 16
_DIGEST_OCTETS = 4

#: The alternatives that match, and what is done then.
Translation: TypeAlias = tuple[list[bytes], bytes]


@dataclass(frozen=True, slots=True)
class HomeRules:
    """What the table has for one home address: `chains` with their rules, `counters`, elements of sets.

    `elements`: pairs of set name and elements that belong together (the two ends of an interval). `sets`:
    what `Table.set` takes, for sets of its own.
    """

    chains: dict[str, tuple[Rule, ...]]
    counters: dict[str, tuple[IPv6Address, int | None]]
    elements: frozenset[tuple[str, tuple[Element, ...]]]
    sets: tuple[tuple, ...] = ()


#: Rules that follow one another, by the FID of the first one.
Blocks: TypeAlias = dict[int, tuple[FlowRule, ...]]


def blocks(rules: tuple[FlowRule, ...]) -> Blocks:
    """The rules in blocks of some sixteen, in order."""
    starts = [
        index
        for index, rule in enumerate(rules)
        if not index or not (rule.fid * 0x9E3779B1 >> 16) & (_BLOCK - 1)
    ]
    ends = [*starts[1:], len(rules)]
    return {rules[start].fid: rules[start:end] for start, end in zip(starts, ends, strict=False)}


def _free(rules: Iterable[FlowRule]) -> int:
    """A FID that none of them has."""
    used = {rule.fid for rule in rules}
    return next(fid for fid in range(65536) if fid not in used)


def _only_in(ours: Blocks, theirs: Blocks) -> list[FlowRule]:
    """The rules of those blocks that are not the same there."""
    return [rule for fid, block in ours.items() if theirs.get(fid) != block for rule in block]


class ManyRules:
    """Translates them. Remembers a digest of all rules of a home address, as notes of connections have it."""

    def __init__(self) -> None:
        self._digests: dict[IPv6Address, tuple[tuple[FlowRule, ...], int]] = {}

    def forget(self, home_address: IPv6Address) -> None:
        """It has no flow bindings any more."""
        self._digests.pop(home_address, None)

    def translate(
        self,
        binding: HomeBinding,
        known: tuple[FlowRule, ...],
        chain: str,
        defaults: tuple[bytes, ...],
        translation: Callable[[FlowRule], Translation],
    ) -> tuple[list[Rule], HomeRules, list[FlowRule]]:
        """The rules of the chain `chain`, what there is beside it (but for counters), and the flow bindings
        that these are about: without the blocks that the rules `known` have just so. `defaults`: what is done
        where none has matched, the first that does something; all but the last ask for packets unmarked."""
        ours, theirs = blocks(binding.rules), blocks(known)
        changed, gone = _only_in(ours, theirs), _only_in(theirs, ours)
        free = _free(binding.rules)
        numbers, tried = f"{chain}.flows", f"{chain}.rules"
        chains: dict[str, tuple[Rule, ...]] = {}
        elements: set[tuple[str, tuple[Element, ...]]] = set()

        def add(name: str, fid: int, *actions: bytes) -> None:
            chains[f"{chain}.{name}"] = tuple(Rule(action, name) for action in actions)
            element = Element(struct.pack("=I", number(fid)), f"{chain}.{name}", goto=True)
            elements.add((numbers, (element,)))

        add("default", free, *((set_mark(0, mark.KEPT),) if defaults[1:] else ()), *defaults)
        for first, block in ours.items():
            if theirs.get(first) == block:
                continue
            found_out = []
            for rule in block:
                alternatives, action = translation(rule)
                add(f"fid{rule.fid}", rule.fid, action)
                end = set_mark(number(rule.fid), mark.KEPT) + verdict(RETURN)
                found_out += [Rule(match + end, f"fid{rule.fid}") for match in alternatives]
            chains[f"{tried}.{first}"] = tuple(found_out)
        if list(ours) != list(theirs) or free != _free(known):
            chains[tried] = tuple(_one_after_the_other(tried, ours, free))
        of_rules = self._digest(binding, known, changed, gone, translation)
        rules = [
            Rule(follow(of_rules, numbers), "connections that are known"),
            Rule(set_mark(number(free), mark.KEPT), "default"),
            Rule(verdict(JUMP, tried)),
            Rule(note(of_rules)),
            Rule(act(numbers)),
        ]
        sets = ((numbers, (TYPE_MARK,), TYPE_VERDICT, False),)
        return rules, HomeRules(chains, {}, frozenset(elements), sets), changed

    def _digest(
        self,
        binding: HomeBinding,
        known: tuple[FlowRule, ...],
        changed: list[FlowRule],
        gone: list[FlowRule],
        translation: Callable[[FlowRule], Translation],
    ) -> bytes:
        """Of all rules: the exclusive or of theirs, so that a change costs no more than what changes."""
        of, value = self._digests.get(binding.home_address, ((), 0))
        if of is not binding.rules:
            if not known or of is not known:
                value, changed, gone = 0, list(binding.rules), []
            new, old = ({rule.fid: rule for rule in part} for part in (changed, gone))
            for some, others in ((new, old), (old, new)):
                for fid, rule in some.items():
                    if others.get(fid) != rule:
                        value ^= _digest(rule, *translation(rule))
            self._digests[binding.home_address] = binding.rules, value
        return value.to_bytes(_DIGEST_OCTETS, "big")


def _one_after_the_other(chain: str, found: Blocks, unless: int) -> Iterator[Rule]:
    """Go through the blocks until one has found a number other than `unless`."""
    for first in found:
        yield Rule(verdict(JUMP, f"{chain}.{first}"))
        yield Rule(marked() + compare(NOT_EQUAL, struct.pack("=I", number(unless))) + verdict(RETURN))


def _digest(rule: FlowRule, alternatives: list[bytes], action: bytes) -> int:
    """Of one rule and its place among others."""
    found = hashlib.blake2s(struct.pack(">HH", rule.fid, rule.priority), digest_size=_DIGEST_OCTETS)
    for part in (*alternatives, action):
        found.update(part)
    return int.from_bytes(found.digest(), "big")
