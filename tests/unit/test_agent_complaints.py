"""Which of the packets that come back a correspondent node believes."""

import struct
from collections import Counter

import pytest
from peer import CELLULAR, CN, HOME, WLAN, Peer

from testbed.agent.complaints import Complaints
from testbed.datapath.rejected import Rejected
from testbed.mobility.unreachables import PERSISTENT_S
from testbed.wire.icmp_error import DESTINATION_UNREACHABLE, PARAMETER_PROBLEM, PORT_UNREACHABLE, IcmpError

requirement = pytest.mark.requirement


@pytest.fixture
def peer():
    """With a mobile node that is at WLAN."""
    peer = Peer()
    peer.register(WLAN)
    peer.node.transmissions()
    return peer


def complaints(peer):
    return Complaints(peer.node, lambda address: address == CN, Counter())


def sent(source=CN, care_of_address=WLAN, home_address=HOME, kind=2):
    """The beginning of a packet by an optimised route."""
    header = struct.pack("!IHBB", 6 << 28, 24, 43, 64) + source.packed + care_of_address.packed
    return header + bytes((17, 2, kind, 1)) + bytes(4) + home_address.packed


def report(peer, kind, code, quoted):
    """Let the same error come three times, over four seconds."""
    believed = complaints(peer)
    for _ in range(3):
        believed.error(IcmpError(CN, kind, code, quoted), peer.now)
        peer.now += PERSISTENT_S
    return len(peer.node.transmissions())


@requirement("RFC 6275 §9.3.4: persistent Destination Unreachable about a care-of address ends its binding")
def test_a_care_of_address_that_is_gone(peer):
    assert report(peer, DESTINATION_UNREACHABLE, 0, sent()) == 1  # a Binding Refresh Request
    assert peer.bindings == {}


@pytest.mark.parametrize(
    "kind, code, quoted",
    [
        (DESTINATION_UNREACHABLE, PORT_UNREACHABLE, sent()),
        (PARAMETER_PROBLEM, 0, sent()),
        (DESTINATION_UNREACHABLE, 0, sent(source=CELLULAR)),
        (DESTINATION_UNREACHABLE, 0, sent(care_of_address=CELLULAR)),
        (DESTINATION_UNREACHABLE, 0, sent(home_address=CELLULAR)),
        (DESTINATION_UNREACHABLE, 0, sent(kind=0)),
        (DESTINATION_UNREACHABLE, 0, sent()[:63]),
    ],
    ids=["reached", "other error", "another's", "old address", "unknown", "no type 2", "too short"],
)
@requirement("RFC 6275 §9.3.4: errors about what was not sent to the care-of address end no binding")
def test_what_says_nothing_of_the_care_of_address(peer, kind, code, quoted):
    assert report(peer, kind, code, quoted) == 0
    assert peer.bindings == {1: WLAN}


@requirement("RFC 6275 §9.3.1, §9.3.3: a Binding Error goes from the address that was sent to, if it is ours")
def test_packets_that_were_not_to_us(peer):
    class Reports:
        def read(self):
            yield Rejected(CELLULAR, HOME, HOME)
            yield Rejected(CELLULAR, CN, HOME)

    complaints(peer).read_rejected(Reports(), peer.now)
    (error,) = [transmission.packet for transmission in peer.node.transmissions()]
    assert (error.source, error.destination, error.message.home_address) == (CN, CELLULAR, HOME)
