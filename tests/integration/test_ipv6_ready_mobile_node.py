"""The IPv6 Ready cases for mobile nodes: a tester in the home agent's place, over real links to a real agent.

A case is named by its number; docs/ipv6-ready.md has all of them.
"""

import struct
import time
from ipaddress import IPv6Address

import pytest
from agent_network import HOME_ADDRESS, HOME_AGENT, Agent
from datapath_network import wait_for
from ipv6_ready import case
from ipv6_ready_mobile_node import HomeAgent, answers
from signalling import BA, BE, BRR, BU, ipv6_packet, mobility_header, parameter_problems, sign, with_options
from standstill import Standstill

from testbed.wire.address import link_local_of
from testbed.wire.option import BindingIdentifier, MessageIdentifier


@pytest.fixture
def ha(network):
    ha = HomeAgent(network)
    yield ha
    ha.close()


@pytest.fixture
def mn(network, tmp_path, ha):
    with Agent(network.mn, tmp_path) as mn:
        yield mn


@case("MN-2-1-1-1-001", what="a Binding Update after moving away: A and H bits, Home Address option")
@case("MN-3-1-1-1-010", what="its home address is the one that is configured")
@case("MN-2-1-1-1-004", what="the K bit is clear with keys configured by hand")
def test_first_update(network, ha, mn):
    update = ha.next_update()
    message = update.message
    assert message.acknowledge and message.home_registration and not message.key_management
    assert str(update.home_address) == HOME_ADDRESS and str(update.destination) == HOME_AGENT
    assert str(update.source) in (network.address("mn-wlan"), network.address("mn-cellular"))
    assert message.lifetime_s == 60 and update.mobility_header[3] == 0
    assert not message.link_local_compatibility


@case("MN-2-1-1-1-002", what="the L bit where a link-local address has the home address's identifier")
def test_link_local_address_compatibility(network, ha, tmp_path):
    own = link_local_of(IPv6Address(HOME_ADDRESS))
    network.mn.shell(f"ip -6 addr add {own}/64 dev mn-wlan nodad")
    try:
        with Agent(network.mn, tmp_path):
            assert ha.next_update().message.link_local_compatibility
    finally:
        network.mn.shell(f"ip -6 addr del {own}/64 dev mn-wlan")


@case("MN-2-1-1-1-013", what="the first retransmission after 1.5 s, then twice that; new sequence numbers")
def test_retransmissions(network, ha, tmp_path):
    with Standstill(time.time) as still, Agent(network.mn, tmp_path):
        wait_for(lambda: len(ha.updates()) >= 3)
        (first, a), (second, b), (third, c) = ha.messages(BU)[:3]
        # no earlier; how much later is a matter of the machine, up to what the next step would be
        assert still.allows(1.4, 3, first, second) and still.allows(2.9, 6, second, third)
    sequences = [update.message.sequence for update in (a, b, c)]
    assert [(number - sequences[0]) % 65536 for number in sequences] == [0, 1, 2]


@case("MN-2-2-1-1-001", "MN-2-2-1-1-002", "MN-2-2-1-1-033", what="statuses below 128: accepted")
@pytest.mark.parametrize("status", [0, 1, 2, 64, 127])
def test_accepted(ha, mn, status):
    ha.until(lambda: mn.ask("status")["registered"], lambda update: ha.acknowledgement(update, status=status))


@case("MN-2-2-1-1-003", "MN-2-2-1-1-004", "MN-2-2-1-1-005", "MN-2-2-1-1-006", what="rejected: no binding")
@case("MN-2-2-1-1-007", "MN-2-2-1-1-009", "MN-2-2-1-1-035", what="rejected: no binding")
@pytest.mark.parametrize("status", [128, 129, 130, 131, 132, 134, 255])
def test_rejected(ha, mn, status):
    refused = ha.until(
        lambda: mn.events("registration-refused"), lambda update: ha.acknowledgement(update, status=status)
    )
    assert refused[0]["status"] == status
    assert not mn.ask("status")["registered"]
    assert all(binding["registered"] is None for binding in mn.ask("bindings"))


@case("MN-2-2-1-1-010", "MN-2-2-1-1-016", what="status 135: the next sequence number follows the one told")
@pytest.mark.parametrize(("told", "then"), [(300, 301), (65535, 0)])
def test_sequence_number_out_of_window(ha, mn, told, then):
    ha.next_update()
    for number in (30000, 60000, told) if told == 65535 else (told,):  # half a cycle away they count as newer
        count = len(ha.updates())
        ha.send(ha.acknowledgement(ha.updates()[-1], status=135, sequence=number))
        follows = (number + 1) % 65536
        wait_for(lambda count=count, n=follows: n in [u.message.sequence for u in ha.updates()[count:]])
    assert follows == then


@case("MN-2-2-1-1-017", what="an acknowledgement of another sequence number is ignored")
@case("MN-2-2-1-1-038", what="an acknowledgement that is not protected is ignored")
@case("MN-6-2-1-1-004", what="an acknowledgement with a wrong checksum is ignored")
def test_ignored(ha, mn):
    update = ha.next_update()
    good = ha.acknowledgement(update)
    ha.send(
        ha.acknowledgement(update, sequence=update.message.sequence + 1000),
        ha.acknowledgement(update, authentic=False),
        good[:68] + bytes((good[68] ^ 1,)) + good[69:],
    )
    wait_for(lambda: mn.ask("counters")["messages"]["received"] == 3)
    assert not mn.ask("status")["registered"] and not mn.events("registration-refused")
    ha.until(lambda: mn.ask("status")["registered"], ha.acknowledgement)


@case("MN-2-2-1-1-039", "MN-2-2-1-1-014", what="reserved fields of an acknowledgement are ignored")
def test_reserved_fields(ha, mn):
    def reply(update):
        stamp = update.message.option(MessageIdentifier).timestamp
        data = with_options(struct.pack("!BBHH", 0, 0x1F, update.message.sequence, 15), *answers(update))
        made = sign(BA, data, str(update.source), timestamp=stamp)
        return ipv6_packet(HOME_AGENT, str(update.source), made, routing_address=HOME_ADDRESS)

    ha.until(lambda: mn.ask("status")["registered"], reply)


@case("MN-2-2-1-1-020", what="a shorter lifetime than asked for counts")
@case("MN-2-1-2-1-004", what="a Binding Update before the registration expires")
def test_shorter_lifetime(network, ha, tmp_path):
    with Standstill(time.time) as still, Agent(network.mn, tmp_path) as mn:
        count = ha.accept_all(mn, lifetime=3)
        assert all(binding["remaining_s"] <= 12 for binding in mn.ask("bindings"))
        ha.next_update(count)
        accepted, again = (when for when, _ in ha.messages(BU)[count - 1 : count + 1])
        assert still.allows(6, 12, accepted, again)


@case("MN-2-2-1-1-026", what="Binding Refresh Advice brings the next Binding Update forward")
def test_refresh_advice(ha, mn):
    count = ha.accept_all(mn, before=[(2, 2, 0, struct.pack("!H", 1))])
    ha.next_update(count)
    accepted, again = (when for when, _ in ha.messages(BU)[count - 1 : count + 1])
    assert 3 < again - accepted < 20  # after 4 s, not 48 s


@case("MN-2-1-2-1-001", what="a Binding Update after moving from one foreign network to another")
def test_movement(network, ha, mn):
    count = ha.accept_all(mn)
    network.set_link("cellular", False)
    try:
        update = ha.next_update(count)
        moved = {o.bid: str(o.care_of_address) for o in update.message.all_options(BindingIdentifier)}
        assert moved[2] == network.address("mn-wlan")
    finally:
        network.set_link("cellular", True)
        wait_for(lambda: network.address("mn-cellular"))


@case("MN-2-1-1-1-008", what="a Binding Update when a registration has expired")
def test_after_expiry(ha, mn):
    ha.accept_all(mn, lifetime=1)
    wait_for(lambda: mn.events("binding-expired"))
    ha.next_update(len(ha.updates()))


@case("MN-6-2-1-1-003", what="an unknown MH Type from the home agent: Binding Error, status 2")
@case("MN-6-2-1-1-001", what="Payload Proto other than none: Parameter Problem, at Payload Proto")
@case("MN-6-2-1-1-002", what="Header Len too small: Parameter Problem, at Header Len")
def test_malformed(ha, mn):
    update = ha.next_update()
    away = str(update.source)

    def packet(header):
        return ipv6_packet(HOME_AGENT, away, header, routing_address=HOME_ADDRESS)

    ha.send(packet(mobility_header(99, bytes(2))))
    ((_, error),) = wait_for(lambda: ha.messages(BE))
    assert error.message.status == 2
    good = struct.pack("!BBHH", 0, 0, update.message.sequence, 15)
    ha.send(packet(mobility_header(BA, good, payload=6)), packet(mobility_header(BA, good, length=0)))
    wait_for(lambda: parameter_problems([data for _, data in ha.read()]) == [(0, 64), (0, 65)])
    assert not mn.ask("status")["registered"]


@case("MN-3-4-1-2-001", "MN-3-4-1-2-006", what="a Binding Refresh Request is answered by a Binding Update")
@case("MN-3-4-1-2-005", what="one of an unknown node is not")
@pytest.mark.parametrize("reserved", [b"\0\0", b"\xff\xff"])
def test_refresh_request(network, ha, mn, reserved):
    count = ha.accept_all(mn)
    away = network.address("mn-wlan")
    request = mobility_header(BRR, reserved)
    dropped = mn.ask("counters")["messages"].get("dropped", 0)
    ha.send(ipv6_packet("2001:db8:100::2", away, request, routing_address=HOME_ADDRESS))
    wait_for(lambda: mn.ask("counters")["messages"]["dropped"] > dropped)
    assert len(ha.updates()) == count
    ha.send(ipv6_packet(HOME_AGENT, away, request, routing_address=HOME_ADDRESS))
    assert ha.next_update(count).message.lifetime_s == 60
