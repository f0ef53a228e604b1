"""Binding Updates and Acknowledgements authenticated by shared keys (RFC 4285)."""

import hmac
from dataclasses import replace

import pytest
from simulation import (
    CELLULAR,
    HOME_ADDRESS,
    HOME_AGENT,
    HOME_PREFIX,
    INTERFACES,
    KEY,
    ROUTER,
    WLAN,
    Simulation,
    agree,
    as_received,
)

from testbed.mobility.authentication import SecurityAssociation, Signer, hmac_sha1, ntp_timestamp, signed
from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration
from testbed.mobility.mobile_node import MobileNode
from testbed.mobility.mobile_node_configuration import MobileNodeConfiguration
from testbed.wire.codec import Codec
from testbed.wire.message import BindingAcknowledgement, BindingUpdate, Status
from testbed.wire.option import BindingIdentifier, MessageIdentifier, MobilityMessageAuthentication
from testbed.wire.packet import Packet, build_packet, parse_packet

requirement = pytest.mark.requirement
OTHER = SecurityAssociation(1000, bytes(16))
CODEC = Codec()


@pytest.mark.parametrize("octets", [0, 1, 55, 64, 200])
@pytest.mark.parametrize("key", [KEY.key, b"", bytes(range(64))])
def test_the_keyed_hash_is_hmac(key, octets):
    assert hmac_sha1(key, bytes(range(octets))) == hmac.digest(key, bytes(range(octets)), "sha1")


def secure_pair(mobile=KEY, home=KEY, *, accept_unauthenticated=False, clock_error_s=0.0):
    """Both sides with their keys; `clock_error_s`: how far the mobile node's clock is ahead."""
    simulation = Simulation()
    associations = {HOME_ADDRESS: home} if home else {}
    agent = HomeAgent(
        HomeAgentConfiguration(
            HOME_AGENT,
            (HOME_PREFIX,),
            associations=associations,
            accept_unauthenticated=accept_unauthenticated,
        ),
        simulation.now,
        time_of_day=lambda now: now + 1.7e9,
    )
    node = MobileNode(
        MobileNodeConfiguration(HOME_ADDRESS, HOME_AGENT, INTERFACES, association=mobile),
        simulation.now,
        time_of_day=lambda now: now + 1.7e9 + clock_error_s,
    )
    simulation.add("ha", agent, HOME_AGENT)
    simulation.add("mn", node, WLAN, CELLULAR)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    node.attach("cellular", CELLULAR, ROUTER, simulation.now)
    simulation.run(3)
    return simulation, node, agent


def statuses(simulation):
    return [
        packet.message.status
        for packet in simulation.packets
        if isinstance(packet.message, BindingAcknowledgement)
    ]


@requirement("draft §10, RFC 4285 §5.1: Binding Updates and Acknowledgements carry the MN-HA option, last")
@requirement("RFC 4285 §6: the time stamp comes back in the acknowledgement")
def test_authenticated_registration():
    simulation, node, agent = secure_pair()
    agree(node, agent)
    assert set(agent.cache.get(HOME_ADDRESS).bindings) == {1, 2}
    for packet in simulation.packets:
        assert isinstance(packet.message.options[-1], MobilityMessageAuthentication)
        assert packet.message.option(MessageIdentifier) is not None
    stamps = [packet.message.option(MessageIdentifier).timestamp for packet in simulation.packets]
    assert len(set(stamps)) == len(stamps) // 2


@requirement("RFC 4285 §5.1: First (96, HMAC_SHA1 (key, care-of | home | MH up to the SPI, checksum 0))")
def test_authenticator_by_hand():
    update = BindingUpdate(
        7, 60, acknowledge=True, home_registration=True, options=(MessageIdentifier(1 << 40),)
    )
    proof = signed(update, KEY, WLAN, HOME_ADDRESS, CODEC).options[-1].authenticator
    built = CODEC.encode(signed(update, KEY, WLAN, HOME_ADDRESS, CODEC))
    # sequence 7, A and H, lifetime 15; PadN(6); option 10 at 8n+2; Pad1; option 9 at 4n+1 with its SPI
    header = bytes.fromhex("3b05050000000007c000000f 010400000000 0a080000010000000000 00 0911 01 000003e8")
    end = len(header)
    assert built[:end] == header
    expected = hmac.digest(KEY.key, WLAN.packed + HOME_ADDRESS.packed + built[:end], "sha1")[:12]
    assert proof == expected and built[end : end + 12] == expected


@requirement("RFC 4285 §5: without the option it is dropped in silence")
@requirement("draft §10: nothing is accepted unauthenticated unless the configuration says so")
def test_no_key_no_binding():
    simulation, node, agent = secure_pair(mobile=None)
    assert statuses(simulation) == [] and agent.forwarding() == {}
    simulation, node, agent = secure_pair(mobile=None, home=None)
    assert statuses(simulation) == [] and agent.forwarding() == {}
    simulation, node, agent = secure_pair(mobile=None, home=None, accept_unauthenticated=True)
    assert agent.forwarding() != {}
    # a key binds, whatever is allowed to others
    simulation, node, agent = secure_pair(mobile=None, accept_unauthenticated=True)
    assert agent.forwarding() == {}


@requirement("RFC 4285 §5.3: a wrong key: status MIPV6-AUTH-FAIL, and the mobile node stops")
def test_wrong_key():
    simulation, node, agent = secure_pair(mobile=OTHER)
    assert set(statuses(simulation)) == {Status.MIPV6_AUTH_FAIL}
    assert agent.forwarding() == {} and not node.registered


@requirement("RFC 4285 §5.1.1: a forged acknowledgement is ignored")
@requirement("RFC 4285 §6: an acknowledgement without the time stamp of a message under way is ignored")
@requirement("RFC 4285 §5.3: an acknowledgement of a forged copy (MIPV6-AUTH-FAIL) is ignored")
def test_forged_acknowledgement():
    simulation, node, agent = secure_pair()
    node.detach("wlan", simulation.now)
    simulation.settle()
    update = next(p for p in reversed(simulation.packets) if isinstance(p.message, BindingUpdate))
    forged = BindingAcknowledgement(Status.BINDING_UPDATE_ACCEPTED, update.message.sequence, 60)
    stamp = update.message.option(MessageIdentifier)
    stamped = replace(forged, options=(stamp,))
    another = replace(forged, options=(MessageIdentifier(stamp.timestamp + 1),))
    of_a_copy = replace(stamped, status=Status.MIPV6_AUTH_FAIL)
    authentic = (signed(m, KEY, CELLULAR, HOME_ADDRESS, CODEC) for m in (forged, another, of_a_copy))
    for message in (forged, stamped, signed(stamped, OTHER, CELLULAR, HOME_ADDRESS, CODEC), *authentic):
        packet = replace(update, source=HOME_AGENT, destination=CELLULAR, message=message, home_address=None)
        packet = as_received(replace(packet, routing_address=HOME_ADDRESS))
        node.receive(packet, "cellular", simulation.now)
        assert node.registration.bindings[1].registered == WLAN and node.registration.is_waiting
    simulation.run(1)
    assert not simulation.events("registration-refused")
    agree(node, agent)
    assert node.registration.bindings[1].registered == CELLULAR


@requirement("RFC 4285 §6: a replayed Binding Update is refused, MIPV6-ID-MISMATCH, and changes nothing")
def test_replay():
    simulation, node, agent = secure_pair()
    recorded = [as_received(p) for p in simulation.packets if isinstance(p.message, BindingUpdate)]
    node.deregister(simulation.now)
    simulation.run(60)
    assert agent.cache.get(HOME_ADDRESS) is None  # the sequence number is forgotten, the time stamp is not
    for packet in recorded:
        agent.receive(packet, "eth0", simulation.now)
    answers = [t.packet.message.status for t in agent.transmissions()]
    assert answers == [Status.MIPV6_ID_MISMATCH] * len(recorded)
    assert agent.forwarding() == {}


def test_time_stamps_are_kept_as_long_as_they_matter():
    simulation, node, agent = secure_pair()
    codec, verifier = Codec(), agent.verifier
    for number in range(50):
        home = HOME_ADDRESS + number
        verifier.associations[home] = KEY
        now = simulation.now + number
        update = Signer(KEY, agent.verifier._time_of_day, codec).sign(BindingUpdate(1, 60), WLAN, home, now)
        packet = as_received(Packet(WLAN, HOME_AGENT, update, home_address=home))
        assert verifier.judge(packet, home, now) == 0
        assert verifier.judge(packet, home, now) == Status.MIPV6_ID_MISMATCH
    assert len(verifier.timestamps) <= 2 * KEY.window_s + 1  # they are looked through once a window


@requirement("RFC 4285 §6: time stamps accepted outlive a restart of the home agent")
def test_replay_after_restart():
    simulation, node, agent = secure_pair()
    recorded = [as_received(p) for p in simulation.packets if isinstance(p.message, BindingUpdate)]
    saved = agent.snapshot(simulation.now)
    reborn = HomeAgent(agent.configuration, simulation.now, time_of_day=lambda now: now + 1.7e9)
    reborn.restore(saved, simulation.now, simulation.now)
    reborn.receive(recorded[-1], "eth0", simulation.now)
    assert reborn.transmissions()[0].packet.message.status == Status.MIPV6_ID_MISMATCH


@requirement("RFC 4285 §6: a clock that is wrong is corrected by the home agent's answer")
@pytest.mark.parametrize("error_s", [-3600.0, 3600.0, 5.0])
def test_clock_correction(error_s):
    simulation, node, agent = secure_pair(clock_error_s=error_s)
    simulation.run(5)
    agree(node, agent)
    assert set(agent.cache.get(HOME_ADDRESS).bindings) == {1, 2}
    assert (Status.MIPV6_ID_MISMATCH in statuses(simulation)) == (abs(error_s) > 7)


def test_a_clock_is_not_corrected_twice_by_one_answer():
    simulation, node, agent = secure_pair(clock_error_s=3600.0)
    old = [
        as_received(packet)
        for packet in simulation.packets
        if isinstance(packet.message, BindingAcknowledgement)
        and packet.message.status == Status.MIPV6_ID_MISMATCH
    ]
    simulation.run(60)
    for packet in old:
        node.receive(packet, "wlan", simulation.now)
    before = len(statuses(simulation))
    node.registration.refresh(simulation.now)
    simulation.run(1)
    assert old and statuses(simulation)[before:] == [0]


@requirement("RFC 4285 §6: without time stamp: status MIPV6-MESG-ID-REQD")
def test_time_stamp_required():
    simulation, node, agent = secure_pair()
    good = next(p for p in simulation.packets if isinstance(p.message, BindingUpdate))
    bare = BindingUpdate(
        999, 60, acknowledge=True, home_registration=True, options=good.message.all_options(BindingIdentifier)
    )
    packet = as_received(replace(good, message=signed(bare, KEY, good.source, HOME_ADDRESS, CODEC)))
    agent.receive(packet, "eth0", simulation.now)
    assert agent.transmissions()[0].packet.message.status == Status.MIPV6_MESG_ID_REQD


@requirement("RFC 4285 §5: any change to a message or its addresses breaks the authenticator")
def test_any_change_is_noticed():
    simulation, node, agent = secure_pair()
    good = next(p for p in simulation.packets if isinstance(p.message, BindingUpdate))
    octets = build_packet(good, CODEC)
    moved = as_received(replace(good, source=CELLULAR + 5))
    agent.receive(moved, "eth0", simulation.now)
    assert agent.transmissions()[0].packet.message.status == Status.MIPV6_AUTH_FAIL
    assert parse_packet(octets, CODEC).source == good.source
    update = good.message
    for changed in (
        replace(update, sequence=update.sequence + 1),
        replace(update, lifetime_s=8),
        replace(update, overwrite=False),
        replace(update, options=update.options[1:]),
    ):
        agent.receive(as_received(replace(good, message=changed)), "eth0", simulation.now)
        assert agent.transmissions()[0].packet.message.status == Status.MIPV6_AUTH_FAIL


def test_association_is_checked_and_its_key_not_shown():
    with pytest.raises(ValueError, match="spi"):
        SecurityAssociation(255, bytes(16))
    with pytest.raises(ValueError, match="key"):
        SecurityAssociation(256, bytes(15))
    with pytest.raises(ValueError, match="window_s"):
        SecurityAssociation(256, bytes(16), 3)
    assert KEY.key.hex() not in repr(KEY) and repr(KEY.key) not in repr(KEY)


def test_ntp_timestamp():
    assert ntp_timestamp(0.5) == (2_208_988_800 << 32) + (1 << 31)
