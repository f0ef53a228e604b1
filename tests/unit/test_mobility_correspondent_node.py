"""What a correspondent node makes of Binding Updates: right ones, wrong ones, forged ones, old ones."""

from dataclasses import replace
from ipaddress import IPv6Address

import pytest
from peer import CELLULAR, CN, HOME, WLAN, Peer, add

from testbed.mobility.correspondent_node import ANY_OF_OURS, CorrespondentNode
from testbed.mobility.policy import Policy
from testbed.mobility.return_routability import (
    MAX_NONCE_LIFETIME,
    authorised,
    binding_management_key,
    is_authorised,
)
from testbed.mobility.unreachables import PERSISTENT_S
from testbed.wire.codec import Codec
from testbed.wire.flow import FlowIdentification, FlowStatus
from testbed.wire.message import (
    BindingAcknowledgement,
    BindingError,
    BindingRefreshRequest,
    BindingUpdate,
    CareOfTest,
    CareOfTestInit,
    HomeTest,
    HomeTestInit,
    Status,
    UnknownMessage,
)
from testbed.wire.option import (
    AlternateCareOfAddress,
    BindingAuthorizationData,
    BindingIdentifier,
    NonceIndices,
)
from testbed.wire.packet import Packet, build_packet, parse_packet

CODEC = Codec()

requirement = pytest.mark.requirement


@requirement("RFC 6275 §9.4.3: Home Test to the source of the Home Test Init, cookie returned")
@requirement("RFC 6275 §9.4.4: Care-of Test to the source of the Care-of Test Init, cookie returned")
@requirement("RFC 6275 §5.2.5: no state is made before the Binding Update")
def test_tests_are_answered():
    peer = Peer()
    answer = peer.ask(Packet(HOME, CN, HomeTestInit(b"12345678")))
    assert (answer.source, answer.destination, answer.routing_address) == (CN, HOME, None)
    assert isinstance(answer.message, HomeTest) and answer.message.home_init_cookie == b"12345678"
    answer = peer.ask(Packet(WLAN, CN, CareOfTestInit(b"abcdefgh", (BindingIdentifier(7),))))
    assert (answer.source, answer.destination) == (CN, WLAN)
    assert isinstance(answer.message, CareOfTest) and answer.message.care_of_init_cookie == b"abcdefgh"
    assert answer.message.option(BindingIdentifier).bid == 7
    assert len(peer.node.cache) == 0 and peer.node.optimisation_changes() == {}


@requirement("RFC 6275 §9.4.1: a Home Test Init with a Home Address option is ignored")
@requirement("RFC 6275 §9.4.2: a Care-of Test Init with a Home Address option is ignored")
def test_tests_with_home_address_option():
    peer = Peer()
    assert peer.ask(Packet(WLAN, CN, HomeTestInit(bytes(8)), home_address=HOME)) is None
    assert peer.ask(Packet(WLAN, CN, CareOfTestInit(bytes(8)), home_address=HOME)) is None


def test_tests_from_nowhere():
    peer = Peer()
    for source in ("fe80::1", "::1", "::"):
        assert peer.ask(Packet(IPv6Address(source), CN, HomeTestInit(bytes(8)))) is None


def test_flood_of_tests_is_limited():
    peer = Peer(max_tests_per_s=50, max_tests_per_sender_per_s=5)
    answers = [peer.ask(Packet(WLAN + step, CN, CareOfTestInit(bytes(8)))) for step in range(20)]
    assert sum(answer is not None for answer in answers) == 5
    answers = [peer.ask(Packet(WLAN + (step << 64), CN, CareOfTestInit(bytes(8)))) for step in range(100)]
    assert sum(answer is not None for answer in answers) == 45
    peer.now += 1
    assert peer.test_home()


@requirement("RFC 6275 §9.5.2: a valid Binding Update makes a Binding Cache entry")
@requirement("RFC 6275 §9.5.4: the acknowledgement has a type 2 routing header and an authenticator")
def test_registration():
    peer = Peer()
    answer = peer.register()
    assert (answer.status, answer.sequence, answer.lifetime_s) == (0, 1, 400)
    assert peer.bindings == {1: WLAN}
    ((pair, wanted),) = peer.node.optimisation_changes().items()
    assert pair == (HOME, ANY_OF_OURS) and [path.remote for path in wanted.paths] == [WLAN]


def test_registration_without_bid():
    peer = Peer()
    assert peer.register(bid=None).status == 0
    assert peer.bindings == {0: WLAN}


@requirement("RFC 6275 §5.2.6: bindings by return routability last MAX_RR_BINDING_LIFETIME at most")
def test_lifetime_is_capped():
    peer = Peer(max_lifetime_s=4000)
    assert peer.register(lifetime_s=3600).lifetime_s == 420
    peer.now += 421
    peer.node.handle_timer(peer.now)
    assert peer.bindings == {} and peer.node.optimisations() == {}


@requirement("RFC 5648 §6.2: several care-of addresses, one Binding Update each")
def test_several_care_of_addresses():
    peer = Peer()
    peer.register(WLAN, bid=1)
    peer.register(CELLULAR, bid=2)
    assert peer.bindings == {1: WLAN, 2: CELLULAR}
    assert peer.node.optimisations()[HOME, ANY_OF_OURS].default_bid == 1
    peer.register(CELLULAR, bid=1)
    assert peer.bindings == {1: CELLULAR, 2: CELLULAR}
    peer.register(WLAN, bid=1, overwrite=True)
    assert peer.bindings == {1: WLAN}


@requirement("RFC 5648 §6.2: a correspondent node rejects bulk registration with status 168")
def test_bulk_registration():
    peer = Peer()
    answer = peer.register(options=(BindingIdentifier(2, care_of_address=CELLULAR),))
    assert answer.status == Status.MCOA_BULK_REGISTRATION_PROHIBITED
    assert {option.status for option in answer.all_options(BindingIdentifier)} == {0}
    assert peer.bindings == {}


@requirement("RFC 5648 §6.2: an unknown BID without care-of address is rejected with status 167")
def test_unknown_bid_without_address():
    peer = Peer()
    assert peer.register(bid=None, options=(BindingIdentifier(9),)).status == Status.MCOA_UNKNOWN_COA
    peer.register(WLAN, bid=1)
    answer = peer.register(bid=None, options=(BindingIdentifier(1),))
    assert answer.status == 0 and peer.bindings == {1: WLAN}


@requirement("RFC 6275 §9.5.1: a home registration is refused with status 131")
@requirement("RFC 6275 §9.5.1: registration type change is refused with status 139")
def test_home_registration():
    peer = Peer()
    packet = Packet(WLAN, CN, BindingUpdate(1, 60, True, True), home_address=HOME)
    answer = peer.ask(packet)
    assert answer.message.status == Status.HOME_REGISTRATION_NOT_SUPPORTED
    assert answer.message.option(BindingAuthorizationData) is None
    peer.register()
    assert peer.ask(packet).message.status == Status.REGISTRATION_TYPE_CHANGE_DISALLOWED
    gone = Packet(HOME, CN, BindingUpdate(2, 0, True, True))
    answer = peer.ask(gone)
    assert answer.message.status == Status.REGISTRATION_TYPE_CHANGE_DISALLOWED
    assert answer.destination == HOME and answer.routing_address is None
    assert peer.bindings == {1: WLAN}


def test_registrations_that_are_for_anchor_points():
    peer = Peer()
    packet, _, _ = peer.update(map_registration=True)
    assert peer.ask(packet) is None and peer.bindings == {}


@requirement("RFC 6275 §9.5.1: the source address is unicast routable, or silence")
@pytest.mark.parametrize("address", ["fe80::1", "ff0e::1", "::1", "::"])
def test_source_addresses_that_are_not_routable(address):
    peer = Peer()
    right, _, _ = peer.update()
    received = parse_packet(build_packet(right, CODEC), CODEC)
    peer.node.receive(replace(received, source=IPv6Address(address)), "eth0", peer.now)
    assert peer.node.transmissions() == [] and len(peer.node.cache) == 0
    assert peer.ask(right).message.status == 0


@requirement("RFC 6275 §9.3.4: persistent Destination Unreachable about a care-of address ends its binding")
def test_a_care_of_address_that_cannot_be_reached():
    peer = Peer()
    peer.register(WLAN, bid=1)
    peer.register(CELLULAR, bid=2)
    peer.node.transmissions()
    for _ in range(3):
        peer.node.unreachable(HOME, WLAN, peer.now)
        peer.now += PERSISTENT_S
    (request,) = [transmission.packet for transmission in peer.node.transmissions()]  # at the first one
    assert (request.source, request.destination, request.routing_address) == (CN, WLAN, HOME)
    assert isinstance(request.message, BindingRefreshRequest)
    assert [option.bid for option in request.message.all_options(BindingIdentifier)] == [1]
    assert peer.bindings == {2: CELLULAR}


def test_refusals_are_limited():
    peer = Peer(max_refusals_per_sender_per_s=3)
    packet = Packet(WLAN, CN, BindingUpdate(1, 60, True, True), home_address=HOME)
    assert sum(peer.ask(packet) is not None for _ in range(10)) == 3


@requirement("RFC 6275 §9.5.1: without Nonce Indices or Binding Authorization Data, silently discarded")
def test_unauthenticated():
    peer = Peer()
    packet, key, proven = peer.update()
    for missing in (NonceIndices, BindingAuthorizationData):
        options = tuple(o for o in packet.message.options if not isinstance(o, missing))
        assert peer.ask(replace(packet, message=replace(packet.message, options=options))) is None
    assert peer.ask(Packet(WLAN, CN, BindingUpdate(1, 60, True), home_address=HOME)) is None
    assert len(peer.node.cache) == 0


@requirement("RFC 6275 §9.5.1: a wrong authenticator is silently discarded")
def test_forged():
    peer = Peer()
    packet, key, proven = peer.update()
    update = packet.message
    assert peer.ask(replace(packet, message=replace(update, sequence=99))) is None
    assert peer.ask(replace(packet, message=replace(update, lifetime_s=420))) is None
    assert peer.ask(replace(packet, home_address=HOME + 1)) is None
    assert peer.ask(replace(packet, message=authorised(update, bytes(20), proven, CN, CODEC))) is None
    wrong = replace(update.options[-1], authenticator=bytes(12))
    assert peer.ask(replace(packet, message=replace(update, options=(*update.options[:-1], wrong)))) is None
    assert peer.bindings == {} and len(peer.node.cache) == 0
    assert peer.ask(packet).message.status == 0


@requirement("RFC 6275 §5.2.6: the care-of test must have been for the address that is registered")
def test_care_of_address_not_owned():
    peer = Peer()
    victim = IPv6Address("2001:db8:300::99")
    packet, key, proven = peer.update()
    update = packet.message
    for options in (
        (BindingIdentifier(1, care_of_address=victim), update.option(NonceIndices)),
        (AlternateCareOfAddress(victim), update.option(NonceIndices)),
    ):
        for address in (WLAN, victim):
            forged = authorised(replace(update, options=options), key, address, CN, CODEC)
            assert peer.ask(replace(packet, message=forged)) is None
    assert peer.ask(replace(packet, source=victim)).destination == victim  # an address for the answer only
    assert peer.bindings == {1: WLAN}


@requirement("RFC 3775 §6.1.7: a correspondent node takes no care-of address that leads back home")
def test_circular_reference():
    peer = Peer()
    other = HOME + 1
    first, _, _ = peer.update(other, home=HOME)
    assert peer.ask(first).message.status == 0
    second, _, _ = peer.update(HOME, home=other)
    assert peer.ask(second) is None
    assert peer.node.cache.get(other) is None and peer.bindings == {1: other}


@requirement("RFC 6275 §9.5.1: the alternate care-of address is the one that is verified and registered")
def test_alternate_care_of_address():
    peer = Peer()
    packet, _, _ = peer.update(CELLULAR, bid=None, options=(AlternateCareOfAddress(CELLULAR),))
    answer = peer.ask(replace(packet, source=WLAN))
    assert answer.message.status == 0 and answer.destination == WLAN
    assert peer.bindings == {0: CELLULAR}


@requirement("RFC 6275 §9.5.1: a sequence number that is not greater is refused with status 135")
@requirement("RFC 6275 §9.5.1: a replayed message changes nothing")
def test_sequence_numbers():
    peer = Peer()
    old, _, _ = peer.update(CELLULAR, sequence=10)
    peer.ask(old)
    peer.register(WLAN, sequence=11)
    answer = peer.ask(old)
    assert (answer.message.status, answer.message.sequence) == (Status.SEQUENCE_NUMBER_OUT_OF_WINDOW, 11)
    assert answer.message.option(BindingAuthorizationData) is not None
    assert peer.bindings == {1: WLAN}
    assert peer.register(WLAN, sequence=32778).status == 0
    assert peer.register(WLAN, sequence=65000).status == 0
    assert peer.register(WLAN, sequence=11).status == 0  # it wrapped
    assert peer.register(WLAN, sequence=65000).status == Status.SEQUENCE_NUMBER_OUT_OF_WINDOW


@requirement("RFC 6275 §9.5.1: statuses 136, 137 and 138 for nonces that are not recognised, unauthenticated")
def test_expired_nonces():
    peer = Peer()
    home_test = peer.test_home()
    early = peer.test_care_of(WLAN)
    peer.now += 100
    late = peer.test_care_of(WLAN)
    late_home = peer.test_home()
    peer.now += MAX_NONCE_LIFETIME - 99
    for home, care_of, status in (
        (home_test, late, Status.EXPIRED_HOME_NONCE_INDEX),
        (late_home, early, Status.EXPIRED_CARE_OF_NONCE_INDEX),
        (home_test, early, Status.EXPIRED_NONCES),
    ):
        key = binding_management_key(home.home_keygen_token, care_of.care_of_keygen_token)
        indices = NonceIndices(home.home_nonce_index, care_of.care_of_nonce_index)
        flow = FlowIdentification(**add())
        update = authorised(BindingUpdate(1, 60, options=(flow, indices)), key, WLAN, CN, CODEC)
        answer = peer.ask(Packet(WLAN, CN, update, home_address=HOME))
        assert answer.message.status == status
        assert answer.message.options == (flow.answer(FlowStatus.REASON_UNSPECIFIED),)  # draft §4.8
        assert answer.message.option(BindingAuthorizationData) is None
    assert peer.bindings == {}
    assert peer.register().status == 0


@requirement("RFC 6275 §9.5.4: without the A bit, acceptance is not acknowledged")
def test_no_acknowledgement_unless_asked():
    peer = Peer()
    packet, _, _ = peer.update(acknowledge=False)
    assert peer.ask(packet) is None
    assert peer.bindings == {1: WLAN}
    answer = peer.ask(packet)
    assert answer.message.status == Status.SEQUENCE_NUMBER_OUT_OF_WINDOW


@requirement("draft §4.8, §7.1: a correspondent node acknowledges flow options, whether asked to or not")
def test_flow_options_are_acknowledged_unasked():
    peer = Peer()
    answer = peer.register(acknowledge=False, options=(FlowIdentification(**add()),))
    assert (answer.status, answer.option(FlowIdentification).status) == (0, 0)
    answer = peer.register(acknowledge=False, options=(FlowIdentification(**add(2, action=3)),))
    assert answer.option(FlowIdentification).status == FlowStatus.N_CAST_NOT_SUPPORTED


@requirement("RFC 6275 §9.5.3: deletion with the home token alone")
@requirement("RFC 6275 §5.2.8: the sequence number is remembered as long as the nonces are valid")
def test_deletion():
    peer = Peer()
    old, _, _ = peer.update()
    peer.ask(old)
    answer = peer.register(lifetime_s=0, bid=None)
    assert (answer.status, answer.lifetime_s) == (0, 0)
    assert peer.bindings == {} and peer.node.optimisation_changes() == {(HOME, ANY_OF_OURS): None}
    peer.now += 200
    peer.node.handle_timer(peer.now)
    assert peer.ask(old).message.status == Status.SEQUENCE_NUMBER_OUT_OF_WINDOW
    assert peer.bindings == {}
    peer.now += 41
    peer.node.handle_timer(peer.now)
    assert len(peer.node.cache) == 0
    assert peer.ask(old).message.status == Status.EXPIRED_NONCES


@requirement("RFC 6275 §9.5.1, §9.5.3: the home address as care-of address deletes, whatever the lifetime")
def test_deletion_by_the_home_address():
    peer = Peer()
    peer.register()
    home_test = peer.test_home()
    key = binding_management_key(home_test.home_keygen_token)
    indices = NonceIndices(home_test.home_nonce_index, 0)
    update = BindingUpdate(9, 60, acknowledge=True, options=(indices,))
    answer = peer.ask(Packet(HOME, CN, authorised(update, key, HOME, CN, CODEC)))
    assert is_authorised(answer, key, HOME, CN)
    assert (answer.message.status, answer.message.lifetime_s, peer.bindings) == (0, 0, {})


@requirement("RFC 6275 §9.5.3: a deletion makes no Binding Cache entry")
def test_deletion_of_nothing():
    peer = Peer()
    assert peer.register(lifetime_s=0, bid=None).status == 0
    assert len(peer.node.cache) == 0


@requirement("RFC 5648 §6.2: deletion of one BID; status 133 for one that is not there")
def test_deletion_of_one_bid():
    peer = Peer()
    peer.register(WLAN, bid=1)
    peer.register(CELLULAR, bid=2)
    assert peer.register(WLAN, bid=1, lifetime_s=0).status == 0
    assert peer.bindings == {2: CELLULAR}
    assert peer.register(WLAN, bid=1, lifetime_s=0).status == Status.NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE
    assert Peer().register(lifetime_s=0).status == Status.NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE


def test_expired_binding_cannot_be_played_back():
    peer = Peer()
    old, _, _ = peer.update(lifetime_s=8)
    peer.ask(old)
    peer.now += 9
    peer.node.handle_timer(peer.now)
    peer.node.transmissions()
    assert peer.node.optimisations() == {}
    assert peer.ask(old).message.status == Status.SEQUENCE_NUMBER_OUT_OF_WINDOW
    assert peer.node.optimisations() == {}


@requirement("RFC 6275 §9.5.1: without an entry for the home address, any sequence number is accepted")
@pytest.mark.parametrize("sequence", [0, 1, 32768, 65535])
def test_first_sequence_number(sequence):
    assert Peer().register(sequence=sequence).status == 0


@requirement("RFC 6275 §9.5.2, §9.6: an entry MUST be deleted after the lifetime that was asked for")
def test_expiry():
    peer = Peer()
    assert peer.register(lifetime_s=8).lifetime_s == 8
    peer.flow(**add(), bid=2, care_of=CELLULAR)
    peer.node.handle_timer(peer.now + 7.9)
    assert set(peer.bindings) == {1, 2}
    peer.node.handle_timer(peer.now + 8.1)
    assert set(peer.bindings) == {2}
    assert {path.bid for path in peer.node.optimisations()[HOME, ANY_OF_OURS].paths} == {2}


@requirement("RFC 5648 §6.2: a correspondent node's status is in the acknowledgement, zero in the option")
def test_statuses_of_bids():
    peer = Peer(policy=Policy(max_bindings=1))
    peer.register(WLAN, bid=1)
    refused = peer.register(CELLULAR, bid=2)
    unknown = peer.register(WLAN, bid=9, lifetime_s=0)
    prohibited = Peer(policy=Policy(multiple_care_of_addresses=False)).register()
    for answer, status in ((refused, 130), (unknown, 133), (prohibited, 166)):
        (option,) = answer.all_options(BindingIdentifier)
        assert (answer.status, option.status) == (status, 0)


@requirement("RFC 6275 §9.5.2: insufficient resources are told by status 130")
def test_resources():
    peer = Peer(policy=Policy(max_mobile_nodes=0))
    assert peer.register().status == Status.INSUFFICIENT_RESOURCES
    peer = Peer(policy=Policy(max_bindings=1))
    peer.register(WLAN, bid=1)
    assert peer.register(CELLULAR, bid=2).status == Status.INSUFFICIENT_RESOURCES


@requirement("RFC 6275 §9.1: a Home Address option MUST NOT change the Binding Cache")
@requirement("RFC 6275 §9.3.3: no Binding Error to what is not unicast")
@requirement("RFC 6275 §9.3.3: Binding Error, status 1, for an unverified Home Address option, limited")
def test_binding_error():
    peer = Peer(max_refusals_per_sender_per_s=4)
    for _ in range(10):
        peer.node.unverified_home_address(WLAN, CN, HOME, peer.now)
    sent = [transmission.packet for transmission in peer.node.transmissions()]
    assert sent == [Packet(CN, WLAN, BindingError(1, HOME))] * 4
    peer.node.unverified_home_address(IPv6Address("ff02::1"), CN, HOME, peer.now + 1)
    assert peer.node.transmissions() == [] and len(peer.node.cache) == 0


@requirement("RFC 6275 §9.2: an unknown Mobility Header type is answered with a Binding Error, status 2")
def test_unknown_message():
    answer = Peer().ask(Packet(WLAN, CN, UnknownMessage(99, bytes(10))))
    assert answer.message == BindingError(2, IPv6Address(0))


def test_datapath_failure_is_told_authentically():
    peer = Peer()
    packet, key, proven = peer.update()
    peer.node.receive(parse_packet(build_packet(packet, CODEC), CODEC), "eth0", peer.now)
    peer.node.datapath_failed(HOME, "no room", peer.now)
    (answer,) = [transmission.packet for transmission in peer.node.transmissions()]
    assert answer.message.status == Status.INSUFFICIENT_RESOURCES
    assert is_authorised(parse_packet(build_packet(answer, CODEC), CODEC), key, proven, CN)
    assert peer.bindings == {}


def test_bindings_survive_a_restart():
    peer = Peer()
    peer.register()
    peer.flow(**add())
    reborn = CorrespondentNode(peer.node.configuration, peer.now)
    reborn.restore(peer.node.snapshot(peer.now), peer.now, peer.now + 5)
    assert reborn.optimisations() == peer.node.optimisations()


def test_everything_that_is_sent_parses():
    assert isinstance(Peer().register(), BindingAcknowledgement)


def test_a_failure_takes_back_what_has_come_since_the_datapath_asked():
    peer = Peer()
    peer.register(WLAN)
    peer.node.optimisation_changes()
    peer.register(CELLULAR, bid=2)
    peer.node.datapath_failed(HOME, "no room", peer.now)
    assert peer.bindings == {1: WLAN}
