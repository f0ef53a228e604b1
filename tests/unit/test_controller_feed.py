"""The feed of bindings: what is written is read back, and what is lost or broken is noticed."""

import asyncio
import json
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.agent.feed import Feed
from testbed.mobility.feed import (
    FeedError,
    FeedReader,
    binding_from_json,
    binding_to_json,
    change_line,
    snapshot_line,
)
from testbed.mobility.forwarding import Action, FlowRule, HomeBinding, Path
from testbed.wire.selector import IPv6TrafficSelector

HOME = IPv6Address("2001:db8:100::100")
OTHER = IPv6Address("2001:db8:100::101")
AGENT = IPv6Address("2001:db8:100::1")
BINDING = HomeBinding(
    HOME,
    (Path(1, AGENT, IPv6Address("2001:db8:201::5")), Path(2, AGENT, IPv6Address("2001:db8:202::5"))),
    2,
    (
        FlowRule(1, 10, IPv6TrafficSelector(source_port=(22, 80), next_header=(6, 6)), Action.FORWARD, (1,)),
        FlowRule(2, 20, None, Action.N_CAST, (1, 2)),
    ),
    (IPv6Network("2001:db8:1ff::/64"),),
)


def test_a_binding_survives_the_journey():
    assert binding_from_json(json.loads(json.dumps(binding_to_json(BINDING)))) == BINDING


def test_priorities_of_16_bits():
    """The FID-PRI of RFC 6089 §4.2."""
    rules = tuple(replace(rule, priority=rule.priority << 8 | 1) for rule in BINDING.rules)
    (read,) = FeedReader().read(snapshot_line(0, [replace(BINDING, rules=rules)])).changes.values()
    assert [rule.priority for rule in read.rules] == [2561, 5121]


def test_changes_follow_a_snapshot():
    reader = FeedReader()
    snapshot = reader.read(snapshot_line(7, [BINDING]))
    assert snapshot.complete and snapshot.changes == {HOME: BINDING}
    change = reader.read(change_line(8, {HOME: None, OTHER: replace(BINDING, home_address=OTHER)}))
    assert not change.complete
    assert change.changes == {OTHER: replace(BINDING, home_address=OTHER), HOME: None}


def test_a_lost_change_is_noticed():
    reader = FeedReader()
    with pytest.raises(FeedError, match="without a snapshot"):
        reader.read(change_line(1, {HOME: None}))
    reader.read(snapshot_line(0, []))
    with pytest.raises(FeedError, match="change 2 came after 0"):
        reader.read(change_line(2, {HOME: None}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: value.pop("paths"),
        lambda value: value.update(home_address="nowhere"),
        lambda value: value.update(default_bid="1"),
        lambda value: value["rules"][0].update(action=9),
        lambda value: value["rules"][0].update(fid=70000),
        lambda value: value["rules"][0].update(selector=[7, "00"]),
        lambda value: value["rules"][0].update(selector=[2, "0000"]),
        lambda value: value["rules"][0].update(bids=3),
        lambda value: value.update(prefixes=["2001:db8::1/64"]),
        lambda value: value.update(rules=None),
    ],
)
def test_a_malformed_binding_is_refused_in_a_sentence(damage):
    value = binding_to_json(BINDING)
    damage(value)
    line = json.dumps({"feed": "snapshot", "serial": 1, "bindings": [value]}).encode()
    with pytest.raises(FeedError, match="a binding"):
        FeedReader().read(line)


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["feed", "serial", "bindings", "removed", "x"]), inner | st.just("snapshot")
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_line_is_read_or_refused(line):
    try:
        FeedReader().read(line)
    except FeedError:
        pass


def test_a_subscriber_gets_the_state_and_then_each_change(tmp_path):
    async def session():
        feed = Feed()
        feed.publish({HOME: BINDING})
        path = str(tmp_path / "feed.sock")

        async def serve(reader, writer):
            await feed.serve(reader, writer)
            writer.close()  # from Python 3.12 on, a server is not closed before its connections are

        server = await asyncio.start_unix_server(serve, path)
        async with server:
            lines, writer = await asyncio.open_unix_connection(path)
            reader = FeedReader()
            assert reader.read(await lines.readline()).changes == {HOME: BINDING}
            feed.publish({HOME: BINDING})  # no change: nothing is told
            feed.publish({HOME: None})
            feed.publish({HOME: BINDING})
            assert reader.read(await lines.readline()).changes == {HOME: None}
            assert reader.read(await lines.readline()).changes == {HOME: BINDING}
            assert reader.serial == feed.serial == 3
            writer.close()

    asyncio.run(session())
