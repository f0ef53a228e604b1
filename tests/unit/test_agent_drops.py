"""What an agent does of messages that it cannot use: whom it tells, and when it stops to look."""

import struct
from collections import Counter
from ipaddress import IPv6Address

import pytest

from testbed.agent.drops import (
    MAX_BAD_MESSAGES_PER_SENDER_PER_S,
    MAX_PROBLEMS_PER_S,
    MAX_PROBLEMS_PER_SENDER_PER_S,
    Drops,
)
from testbed.agent.events import EventLog
from testbed.wire.error import ParseError

requirement = pytest.mark.requirement
OURS = "2001:db8:100::1"
SENDER, NEIGHBOUR, OTHER = "2001:db8:1::1", "2001:db8:1::2", "2001:db8:2::1"


def packet(source=SENDER, destination=OURS):
    addresses = IPv6Address(source).packed + IPv6Address(destination).packed
    return struct.pack("!IHBB", 6 << 28, 8, 135, 64) + addresses + bytes(8)


class Bench:
    """Messages that are dropped, and the answers to them."""

    def __init__(self):
        self.counters = Counter()
        self.sent = []
        self.drops = Drops(self.counters, EventLog("ha"), lambda *answer: self.sent.append(answer), 0.0)

    def malformed(self, data, now=0.0, pointer=None):
        self.drops.malformed(data, ParseError("it is bad", pointer), now)


@requirement("RFC 6275 §15.4.5: a sender of too many bad messages is not looked at, while others are")
def test_a_sender_of_too_many_bad_messages():
    bench = Bench()
    for _ in range(MAX_BAD_MESSAGES_PER_SENDER_PER_S):
        assert not bench.drops.floods(packet(), 0.5)
        bench.malformed(packet(), 0.5)
    assert bench.drops.floods(packet(), 0.9) and bench.drops.floods(packet(NEIGHBOUR), 0.9)
    assert not bench.drops.floods(packet(OTHER), 0.9)
    assert bench.counters == {"malformed": MAX_BAD_MESSAGES_PER_SENDER_PER_S, "flooded": 2}
    assert not bench.drops.floods(packet(), 1.6)


@requirement("RFC 4443 §2.4: Parameter Problems are limited, to one sender and in all")
def test_parameter_problems_are_limited():
    bench = Bench()
    for _ in range(2 * MAX_PROBLEMS_PER_SENDER_PER_S):
        bench.malformed(packet(), pointer=40)
    assert len(bench.sent) == MAX_PROBLEMS_PER_SENDER_PER_S
    for number in range(2 * MAX_PROBLEMS_PER_S):
        bench.malformed(packet(f"2001:db8:{number + 16:x}::1"), pointer=40)
    assert len(bench.sent) == MAX_PROBLEMS_PER_S == bench.counters["problems_sent"]
    bench.malformed(packet(), 1.0, pointer=40)
    assert len(bench.sent) == MAX_PROBLEMS_PER_S + 1


@requirement("RFC 4443 §2.4: no error to what is not a unicast address, nor about what was sent to none")
@pytest.mark.parametrize(
    "addresses", [("::", OURS), ("::1", OURS), ("fe80::1", OURS), ("ff0e::1", OURS), (SENDER, "ff0e::1")]
)
def test_whom_no_error_goes_to(addresses):
    bench = Bench()
    bench.malformed(packet(*addresses), pointer=40)
    assert bench.sent == [] and bench.counters == {"malformed": 1}
    bench.malformed(packet(), pointer=40)
    ((data, source, destination),) = bench.sent
    assert (data[40:42], str(source), str(destination)) == (bytes((4, 0)), OURS, SENDER)


def test_silence_where_there_is_no_field_to_point_at():
    bench = Bench()
    bench.malformed(packet())
    bench.malformed(b"", pointer=None)
    assert bench.sent == [] and bench.counters == {"malformed": 2}
