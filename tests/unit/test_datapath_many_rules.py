"""How the rules of many flow bindings are cut into blocks, and what a change of one of them rewrites."""

from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from testbed.datapath.classifier import Classifier
from testbed.datapath.many_rules import blocks
from testbed.mobility.forwarding import Action, FlowRule, HomeBinding, Path, Side
from testbed.wire.selector import IPv6TrafficSelector

HOME, HOME_AGENT = IPv6Address("2001:db8:100::10"), IPv6Address("2001:db8:100::1")
PATHS = tuple(Path(bid, HOME_AGENT, IPv6Address("2001:db8:200::") + bid) for bid in (1, 2))
SLOTS = {1: 0, 2: 1}
COUNT = 2000


def rules(count: int = COUNT) -> tuple[FlowRule, ...]:
    return tuple(
        FlowRule(fid, 1, IPv6TrafficSelector(source_port=(fid, fid)), Action.FORWARD, (1,))
        for fid in range(1, count + 1)
    )


def binding(wanted: tuple[FlowRule, ...], paths: tuple[Path, ...] = PATHS) -> HomeBinding:
    return HomeBinding(HOME, paths, 1, wanted)


@pytest.fixture
def classifier() -> Classifier:
    return Classifier(Side.ANCHOR, "flowbind", (1, 2), True, 0, 1460)


def changed(wanted: tuple[FlowRule, ...], fid: int, kind: str) -> tuple[FlowRule, ...]:
    if kind == "gone":
        return tuple(rule for rule in wanted if rule.fid != fid)
    if kind == "new":
        new = FlowRule(COUNT + fid, 1, None, Action.FORWARD, (2,))
        return (*wanted[:fid], new, *wanted[fid:])
    return tuple(replace(rule, bids=(2,)) if rule.fid == fid else rule for rule in wanted)


def test_blocks_are_small_and_all_rules_are_in_them_in_order():
    found = blocks(rules())
    assert tuple(rule for block in found.values() for rule in block) == rules()
    assert all(block[0].fid == first for first, block in found.items())
    assert 60 < len(found) < 250 and max(map(len, found.values())) < 128
    assert blocks(()) == {}


@pytest.mark.parametrize("kind", ["moved", "gone", "new"])
@pytest.mark.parametrize("fid", [1, 777, COUNT - 1])
def test_a_change_rewrites_what_is_beside_it(classifier: Classifier, fid: int, kind: str):
    """What is there in the end is what there would be if it had been so from the beginning."""
    old, new = binding(rules()), binding(changed(rules(), fid, kind))
    kernel = dict(classifier.home(old, SLOTS).chains)
    before = classifier.home(old, SLOTS, new, SLOTS)
    after = classifier.home(new, SLOTS, old, SLOTS)
    assert all(kernel[name] == chain for name, chain in before.chains.items())
    for name in before.chains:
        del kernel[name]
    kernel |= after.chains
    assert kernel == classifier.home(new, SLOTS).chains
    whole = Classifier(Side.ANCHOR, "flowbind", (1, 2), True, 0, 1460).home(new, SLOTS)
    assert kernel == whole.chains, "the digest of all rules, too"
    rewritten = [rule for name, chain in after.chains.items() if ".rules." in name for rule in chain]
    assert len(rewritten) < 256
    assert len(after.counters) < 256 and whole.counters.keys() - after.counters.keys()


def test_a_move_rewrites_no_rules(classifier: Classifier):
    old = binding(rules())
    new = binding(old.rules, tuple(replace(path, remote=path.remote + 16) for path in PATHS))
    assert not classifier.home(new, SLOTS, old, SLOTS).chains
    assert not classifier.home(old, SLOTS, new, SLOTS).chains


def test_copies_are_rewritten_with_the_tunnels(classifier: Classifier):
    copied = tuple(replace(rule, action=Action.N_CAST, bids=(1, 2)) for rule in rules(20))
    old = binding(copied)
    new = binding(copied, (PATHS[0], replace(PATHS[1], remote=PATHS[0].remote)))
    one, both = classifier.home(new, SLOTS, old, SLOTS), classifier.home(old, SLOTS, new, SLOTS)
    assert one.chains and one.chains != both.chains
