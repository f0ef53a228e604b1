"""What a mobile node makes of Binding Acknowledgements, of their absence, and of errors in their place."""

import pytest
from simulation import (
    CORRESPONDENT,
    HOME_ADDRESS,
    HOME_AGENT,
    ROUTER,
    WLAN,
    as_received,
    attached_pair,
    pair,
    trio,
)

from testbed.mobility.correspondent_node import CorrespondentNode
from testbed.wire.icmp_error import IcmpError
from testbed.wire.message import BindingAcknowledgement, BindingUpdate, HomeTestInit, Status
from testbed.wire.option import BindingRefreshAdvice
from testbed.wire.packet import Packet

requirement = pytest.mark.requirement


def updates(simulation, destination=HOME_AGENT):
    sent = [p for p in simulation.packets if isinstance(p.message, BindingUpdate)]
    return [packet for packet in sent if packet.destination == destination]


def asking():
    """A mobile node, unauthenticated, whose first Binding Update is not answered by anyone; its number."""
    simulation, node, _ = pair(key=None)
    del simulation.roles["ha"]
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.run(0.1)
    (packet,) = updates(simulation)
    return simulation, node, packet.message.sequence


def answer(simulation, node, status, sequence, lifetime_s=0, *options):
    message = BindingAcknowledgement(status, sequence, lifetime_s, options=options)
    packet = Packet(HOME_AGENT, WLAN, message, routing_address=HOME_ADDRESS)
    node.receive(as_received(packet), "wlan", simulation.now)
    simulation.settle()


@requirement("RFC 6275 §11.7.3: a shorter lifetime than asked for is taken off that of the binding")
@requirement("RFC 6275 §11.1: an entry of the Binding Update List ends with its lifetime")
def test_a_shorter_lifetime():
    simulation, node, sequence = asking()
    answer(simulation, node, 0, sequence, 20)
    assert node.registered and node.bindings(simulation.now)[0]["remaining_s"] <= 20
    simulation.run(19.5)
    assert node.registered and node.forwarding()
    simulation.run(0.6)
    assert not node.registered and node.forwarding() == {}
    assert [event["bid"] for event in simulation.events("binding-expired")] == [1]


@requirement("RFC 6275 §11.7.3: status 135 takes the number on, never back")
@pytest.mark.parametrize("ahead, taken", [(-10, False), (-1, False), (0, True), (1000, True)])
def test_sequence_number_out_of_window(ahead, taken):
    simulation, node, sequence = asking()
    before = len(updates(simulation))
    said = (sequence + ahead) % 65536
    answer(simulation, node, Status.SEQUENCE_NUMBER_OUT_OF_WINDOW, said)
    told = [packet.message.sequence for packet in updates(simulation)[before:]]
    assert told == ([(said + 1) % 65536] if taken else [])


@requirement("RFC 6275 §11.7.3: an acknowledgement of another sequence number is ignored")
@pytest.mark.parametrize("status", [0, Status.REASON_UNSPECIFIED])
@pytest.mark.parametrize("apart", [-1, 1, 256, 32768])
def test_another_sequence_number(status, apart):
    simulation, node, sequence = asking()
    answer(simulation, node, status, (sequence + apart) % 65536, 60)
    assert not node.registered and node.registration.is_waiting
    assert not simulation.events("registration-refused") and len(simulation.events("message-dropped")) == 1
    answer(simulation, node, 0, sequence, 60)
    assert node.registered


@requirement("RFC 6275 §11.7.3: the answer to a Binding Update ends its retransmission")
def test_no_retransmission_after_the_answer():
    simulation, node, sequence = asking()
    answer(simulation, node, 0, sequence, 60)
    simulation.run(30)
    assert len(updates(simulation)) == 1


@requirement("RFC 6275 §11.7.3: Binding Refresh Advice of a home agent: refreshed when it says so")
def test_refresh_advice():
    simulation, node, sequence = asking()
    answer(simulation, node, 0, sequence, 60, BindingRefreshAdvice(8))
    simulation.run(7.5)
    assert len(updates(simulation)) == 1
    simulation.run(1)
    assert len(updates(simulation)) == 2
    assert node.registered


class Adviser(CorrespondentNode):
    """One that advises what is not for it to say."""

    def _acknowledge(self, packet, home_address, acknowledgement):
        options = (*acknowledgement.options, BindingRefreshAdvice(4))
        super()._acknowledge(packet, home_address, acknowledgement.with_options(options))


@requirement("RFC 6275 §11.7.3: Binding Refresh Advice of a correspondent node MUST be ignored")
def test_refresh_advice_of_a_correspondent_node():
    simulation, node, correspondent = trio()
    simulation.add("cn", Adviser(correspondent.configuration, simulation.now), CORRESPONDENT)
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.run(2)
    before = len(updates(simulation, CORRESPONDENT))
    assert before == 2 and node.optimisations()
    simulation.run(20)
    assert len(updates(simulation, CORRESPONDENT)) == before


@requirement("RFC 6275 §11.7.3: status 135 in a message that is not authentic MUST be silently ignored")
def test_a_forged_sequence_number():
    simulation, node, _ = attached_pair()
    simulation.fate = lambda packet: []
    node.registration.refresh(simulation.now)
    simulation.settle()
    before = len(simulation.packets)
    sequence = node.registration.sequence
    answer(simulation, node, Status.SEQUENCE_NUMBER_OUT_OF_WINDOW, (sequence + 1000) % 65536)
    assert (node.registration.sequence, len(simulation.packets)) == (sequence, before)


@requirement("RFC 6275 §11.3.5: ICMPv6 errors MUST NOT create entries in the Binding Update List")
@pytest.mark.parametrize("kind, code", [(1, 0), (3, 0), (4, 1), (4, 2)])
def test_errors_make_no_entries(kind, code):
    simulation, node, _ = attached_pair()
    sent = Packet(HOME_ADDRESS, CORRESPONDENT, HomeTestInit(bytes(8)))
    before = dict(node.registration.bindings)
    node.receive_error(sent, IcmpError(CORRESPONDENT, kind, code, b""), simulation.now)
    assert node.optimiser.correspondents == {} and node.registration.bindings == before
