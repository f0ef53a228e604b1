"""The IPv6 Ready cases for correspondent nodes: packets of a tester over real links to a real agent.

A case is named by its number; docs/ipv6-ready.md has all of them.
"""

import struct
from ipaddress import IPv6Address

import pytest
from agent_network import CORRESPONDENT, Agent, AgentNetwork
from datapath_network import wait_for
from ipv6_ready import Tester, case
from signalling import BE, COTI, HOTI, ipv6_packet, mobility_header

LIMITS = "\n".join(
    f"max_{kind}_per_s = 100000\nmax_{kind}_per_sender_per_s = 100000" for kind in ("tests", "refusals")
)
SECOND = "2001:db8:300::3"
NONCE_INDICES, REFRESH_ADVICE = (4, 2, 0, bytes(4)), (2, 2, 0, b"\0\4")


def alternate(address):
    return 3, 8, 6, IPv6Address(address).packed


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    network = AgentNetwork(tmp_path_factory.mktemp("network"))
    network.add_correspondent()
    network.cn.shell(f"ip -6 addr add {SECOND}/64 dev eth0 nodad")
    yield network
    network.close()


@pytest.fixture(scope="module")
def cn(network, tmp_path_factory):
    with Agent(network.cn, tmp_path_factory.mktemp("cn"), first=LIMITS + "\n") as cn:
        yield cn


@pytest.fixture
def tester(network, cn):
    tester = Tester(network)
    yield tester
    tester.close()


def silent(tester, *packets, signaller=None):
    """Nothing comes back for these, up to an answer to something that is always answered."""
    signaller = signaller or tester.away
    signaller.forget()
    signaller.send(*packets)
    tester.care_of_test(signaller)
    answers = [p for p in signaller.messages() if p.message.mh_type in (6, 7)]
    assert answers == [] and signaller.problems() == []
    signaller.forget()


@case("CN-1-1", what="Home Test and Care-of Test to the sources of their inits, with their cookies")
def test_return_routability(tester):
    home, care_of = tester.home_test(), tester.care_of_test()
    assert str(home.destination) == tester.home_address and str(care_of.destination) == tester.care_of_address
    assert (home.routing_address, care_of.routing_address) == (None, None)
    assert {str(home.source), str(care_of.source)} == {CORRESPONDENT}


@case("CN-2-1-1", "CN-2-2-1-1", "CN-2-2-1-2", what="options that do not belong there are ignored")
@pytest.mark.parametrize("option", [NONCE_INDICES, alternate("2001:db8::1")])
def test_other_options_in_inits(tester, option):
    header, cookie = tester.test_init(HOTI, option)
    assert tester.home_test(header).message.home_init_cookie == cookie
    header, cookie = tester.test_init(COTI, option)
    tester.away.send(ipv6_packet(tester.care_of_address, CORRESPONDENT, header))
    assert tester.test_answer(tester.away, 4, cookie)


@case("CN-2-1-2", "CN-2-2-2", what="inits with a Home Address option are not answered")
def test_inits_with_home_address_option(tester):
    for kind in (HOTI, COTI):
        header, cookie = tester.test_init(kind)
        silent(tester, ipv6_packet(tester.care_of_address, CORRESPONDENT, header, tester.home_address))
        assert cookie not in b"".join(tester.away.heard() + tester.home.heard())


@case("CN-2-1-3", "CN-2-2-3", what="Header Len too small: Parameter Problem at 41")
@case("CN-2-1-5", "CN-2-2-5", what="Payload Proto other than none: Parameter Problem at 40")
@case("CN-2-1-6", "CN-2-2-6", what="wrong checksum: no answer")
def test_malformed_inits(tester):
    for kind in (HOTI, COTI):
        for changes, pointer in (({"length": 0}, 41), ({"payload": 6}, 40)):
            header, cookie = tester.test_init(kind, **changes)
            tester.away.forget()
            tester.away.send(ipv6_packet(tester.care_of_address, CORRESPONDENT, header))
            wait_for(lambda pointer=pointer: tester.away.problems() == [(0, pointer)])
        header, cookie = tester.test_init(kind)
        good = bytearray(ipv6_packet(tester.care_of_address, CORRESPONDENT, header))
        good[44] ^= 1
        silent(tester, bytes(good))


@case("CN-2-1-4", "CN-2-2-4", what="reserved fields are ignored")
def test_reserved_fields_of_inits(tester):
    header, cookie = tester.test_init(HOTI)
    answer = tester.home_test(header[:3] + b"\xff" + header[4:6] + b"\xff\xff" + header[8:])
    assert answer.message.home_init_cookie == cookie and answer.mobility_header[3] == 0
    header, cookie = tester.test_init(COTI)
    header = header[:3] + b"\xff" + header[4:6] + b"\xff\xff" + header[8:]
    tester.away.send(ipv6_packet(tester.care_of_address, CORRESPONDENT, header))
    assert tester.test_answer(tester.away, 4, cookie).mobility_header[3] == 0


@case("CN-1-2", "CN-1-3", what="an authorised Binding Update is accepted, packets are optimised both ways")
def test_registration(tester):
    answer = tester.register()
    assert str(answer.destination) == tester.care_of_address
    assert str(answer.routing_address) == tester.home_address
    assert tester.is_authentic(answer, tester.care_of_address)
    assert tester.bound() == tester.care_of_address


@case("CN-3-1-1", what="an Alternate Care-of Address other than the source is what is registered")
@case("CN-3-1-2", what="an Alternate Care-of Address that is the source changes nothing")
@pytest.mark.parametrize("same", [True, False])
def test_alternate_care_of_address(tester, same):
    tester.authorise(None if same else tester.elsewhere)
    address = tester.care_of_address if same else tester.other_address
    tester.away.send(tester.update(alternate(address), care_of_address=address))
    (answer,) = tester.acknowledgements()
    assert answer.message.status == 0 and str(answer.destination) == tester.care_of_address
    assert tester.bound(address) == address


@case("CN-2-3-1-1", what="a Binding Refresh Advice option in a Binding Update is ignored")
@case("CN-2-3-7", "CN-2-3-8", "CN-2-3-9", what="L and K bits and reserved bits are ignored")
@case("CN-2-3-4", what="the reserved field is ignored")
@pytest.mark.parametrize(
    "changes",
    [
        {"options": (REFRESH_ADVICE,)},
        {"flags": 0xA000},
        {"flags": 0x9000},
        {"flags": 0x800F},
        {"change": lambda header: header[:3] + b"\xff" + header[4:]},
    ],
    ids=["advice", "L", "K", "reserved flags", "reserved"],
)
def test_what_is_ignored_in_an_update(tester, changes):
    tester.authorise()
    changes = dict(changes)
    tester.away.send(tester.update(*changes.pop("options", ()), **changes))
    (answer,) = tester.acknowledgements()
    assert answer.message.status == 0 and not answer.message.key_management
    assert tester.bound() == tester.care_of_address


@case("CN-2-3-1-2", what="misaligned options: no answer, no binding")
@case("CN-2-3-6", what="wrong checksum: no answer, no binding")
@case("CN-2-3-10-1", what="no Nonce Indices: no answer, no binding")
@case("CN-2-3-11", what="no, a wrong or a misplaced authenticator: no answer, no binding")
def test_updates_that_are_not_answered(tester):
    tester.authorise()
    good = tester.update()
    wrong_checksum = good[:68] + bytes((good[68] ^ 1,)) + good[69:]
    no_authenticator = tester.update(proof=False)
    wrong_authenticator = bytearray(tester.update()[64:])
    wrong_authenticator[-1] ^= 1
    not_last = tester.update()[64:] + b"\1\6" + bytes(6)
    not_last = not_last[:1] + bytes((not_last[1] + 1,)) + not_last[2:]
    away, home = tester.care_of_address, tester.home_address
    silent(
        tester,
        tester.update((3, 8, 4, IPv6Address(away).packed)),
        tester.update((2, 2, 1, bytes(2))),
        wrong_checksum,
        tester.update(indices=None),
        no_authenticator,
        ipv6_packet(away, CORRESPONDENT, bytes(wrong_authenticator), home),
        ipv6_packet(away, CORRESPONDENT, not_last, home),
    )
    assert tester.bound() is None


@case("CN-2-3-3", what="Header Len too small: Parameter Problem at 65, no binding")
@case("CN-2-3-5", what="Payload Proto other than none: Parameter Problem at 64, no binding")
@pytest.mark.parametrize(("changes", "pointer"), [({"length": 0}, 65), ({"payload": 6}, 64)])
def test_malformed_updates(tester, changes, pointer):
    tester.authorise()
    tester.away.send(tester.update(**changes))
    wait_for(lambda: tester.away.problems() == [(0, pointer)])
    assert tester.bound() is None


@case("CN-2-3-10-2", what="a deletion without Nonce Indices: no answer, the binding stays")
def test_deletion_without_indices(tester):
    tester.register()
    silent(tester, tester.update(lifetime=0, deletes=True, indices=None))
    assert tester.bound() == tester.care_of_address


@case("CN-2-4-1", what="unknown MH Type: Binding Error, status 2")
def test_unknown_type(tester):
    for signaller in (tester.home, tester.away):
        signaller.forget()
        signaller.send(ipv6_packet(signaller.address, CORRESPONDENT, mobility_header(99, bytes(2))))
        (error,) = wait_for(lambda s=signaller: tester.of_type(s, BE))
        assert error.message.status == 2 and str(error.destination) == signaller.address


@case("CN-2-4-2", what="tests are answered from the address that they were sent to")
def test_two_addresses(network, tester):
    other = Tester(network, SECOND)
    assert str(tester.home_test().source) == CORRESPONDENT and str(other.home_test().source) == SECOND
    assert str(other.care_of_test().source) == SECOND
    other.close()


@case("CN-2-5-1", what="A bit clear: accepted in silence")
@case("CN-2-5-2", what="A bit clear: status 135 all the same")
@case("CN-2-5-3", what="A bit clear: status 136 all the same")
@case("CN-2-5-4", what="A bit clear: status 137 all the same")
@case("CN-2-5-5", what="A bit clear: status 138 all the same")
def test_without_the_a_bit(tester):
    tester.authorise()
    silent(tester, tester.update(flags=0))
    assert tester.bound() == tester.care_of_address
    tester.away.send(tester.update(flags=0, sequence=tester.sequence))
    (answer,) = tester.acknowledgements()
    assert answer.message.status == 135 and tester.is_authentic(answer, tester.care_of_address)
    bad = (tester.home_index + 1000) % 65536
    for indices, status in (((bad, -1), 136), ((-1, bad), 137), ((bad, bad), 138)):
        tester.away.send(tester.update(flags=0, indices=indices))
        (answer,) = tester.acknowledgements()
        assert answer.message.status == status
        assert answer.message.options == ()  # no authenticator (RFC 6275 §9.5.4)


@case("CN-2-6-1", what="a source address that is not unicast routable: nothing, no binding")
@case("CN-2-6-2", what="a home address that is not unicast routable: nothing, no binding")
@case("CN-2-6-3", what="an alternate care-of address that is not unicast routable: nothing, no binding")
def test_invalid_addresses(tester):
    tester.authorise()
    silent(
        tester,
        tester.update(source="ff0e::1", care_of_address="ff0e::1"),
        tester.update(home_address="ff0e::1"),
        tester.update(home_address="fe80::1"),
        tester.update(home_address="::"),
        tester.update(alternate("ff0e::1"), care_of_address="ff0e::1"),
        tester.update(alternate("fe80::1"), care_of_address="fe80::1"),
        tester.update(alternate("::"), care_of_address="::"),
    )
    assert tester.bound() is None


@case("CN-2-6-4", what="a deletion from a source address that cannot be: the binding stays")
@case("CN-2-6-5", what="a deletion with an alternate care-of address that cannot be: the binding stays")
def test_deletion_with_invalid_alternate(tester):
    tester.register()
    silent(
        tester,
        *(tester.update(alternate(a), lifetime=0, deletes=True) for a in ("ff0e::1", "fe80::1", "::")),
        *(tester.update(source=a, lifetime=0, deletes=True) for a in ("ff0e::1", "::1")),
    )
    assert tester.bound() == tester.care_of_address


@case("CN-3-2-1", "CN-3-2-2", what="registration again, after new tests or with the tokens of before")
@pytest.mark.parametrize("again", [True, False])
def test_registration_again(tester, again):
    tester.register()
    if again:
        tester.authorise()
    tester.away.send(tester.update(lifetime=20))
    (answer,) = tester.acknowledgements()
    assert (answer.message.status, answer.message.lifetime_s) == (0, 80)
    assert tester.is_authentic(answer, tester.care_of_address)
    assert tester.bound() == tester.care_of_address


@case("CN-3-2-3", what="a binding that is about to expire is asked for by a Binding Refresh Request")
@case("CN-3-2-4", what="a Binding Update in response renews it")
def test_refresh_request(tester):
    tester.register(lifetime=1)
    (request,) = wait_for(lambda: tester.of_type(tester.away, 0) or tester.of_type(tester.home, 0))
    assert tester.home_address in (str(request.destination), str(request.routing_address))
    assert request.mobility_header[3] == 0 and request.mobility_header[6:8] == b"\0\0"
    tester.away.send(tester.update())
    (answer,) = tester.acknowledgements()
    assert (answer.message.status, answer.message.lifetime_s) == (0, 120)


FOREIGN = {
    "CN-3-3-1-1": (True, False, 0),
    "CN-3-3-1-2": (False, False, 0),
    "CN-3-3-1-3": (True, True, 0),
    "CN-3-3-1-4": (False, True, 0),
    "CN-3-3-1-5": (True, True, 30),
    "CN-3-3-1-6": (False, True, 30),
}


@case(*FOREIGN, what="de-registration from a foreign link")
@pytest.mark.parametrize(("again", "with_alternate", "lifetime"), FOREIGN.values(), ids=FOREIGN)
def test_deregistration_from_a_foreign_link(tester, again, with_alternate, lifetime):
    tester.register()
    if again:
        tester.authorise()
    option = (alternate(tester.home_address if lifetime else tester.care_of_address),) * with_alternate
    tester.away.send(tester.update(*option, lifetime=lifetime, deletes=True))
    (answer,) = tester.acknowledgements()
    assert (answer.message.status, answer.message.lifetime_s) == (0, 0)
    assert str(answer.routing_address) == tester.home_address
    assert tester.is_authentic(answer, tester.home_address, deletes=True)
    assert tester.bound() is None


HOME = {
    f"CN-3-3-2-{number + 1}": (not number & 1, bool(number & 2), bool(number & 4), 30 if number & 8 else 0)
    for number in range(16)
}


@case(*HOME, what="de-registration from the home link")
@pytest.mark.parametrize(("again", "with_option", "with_alternate", "lifetime"), HOME.values(), ids=HOME)
def test_deregistration_from_the_home_link(tester, again, with_option, with_alternate, lifetime):
    tester.register()
    if again:
        tester.authorise()
    home = tester.home_address
    option = (alternate(home),) * with_alternate
    tester.home.forget()
    tester.home.send(
        tester.update(
            *option, lifetime=lifetime, deletes=True, source=home, home_address=home if with_option else None
        )
    )
    (answer,) = tester.acknowledgements(tester.home)
    assert (answer.message.status, answer.message.lifetime_s) == (0, 0)
    assert str(answer.destination) == home
    assert tester.is_authentic(answer, home, deletes=True)
    assert tester.bound() is None


@case("CN-3-3-3", what="a deletion that is not authorised: the binding stays")
@case("CN-4-6-2", "CN-4-6-3", what="a deletion with a wrong home keygen token: the binding stays")
def test_unauthorised_deletion(tester):
    tester.register()
    silent(tester, tester.update(lifetime=0, deletes=True, tokens=(bytes(8), None)))
    wrong = tester.update(
        lifetime=0, deletes=True, tokens=(bytes(8), None), source=tester.home_address, home_address=None
    )
    tester.home.forget()
    tester.home.send(wrong)
    tester.home_test()
    assert tester.of_type(tester.home, 6) == []
    assert tester.bound() == tester.care_of_address


@case("CN-3-4-1", "CN-3-4-2", what="handover, after both tests or after the care-of test alone")
@pytest.mark.parametrize("both", [True, False])
def test_handover(tester, both):
    tester.register()
    if both:
        tester.authorise(tester.elsewhere)
    else:
        care_of = tester.care_of_test(tester.elsewhere).message
        tester.care_of_index = care_of.care_of_nonce_index
        tester.care_of_token = care_of.care_of_keygen_token
    tester.elsewhere.send(tester.update(source=tester.other_address))
    (answer,) = tester.acknowledgements(tester.elsewhere)
    assert answer.message.status == 0
    assert tester.bound(tester.other_address) == tester.other_address
    assert tester.bound() is None


@case("CN-3-4-3", what="a handover that is not authorised changes nothing")
@case("CN-4-6-1", what="wrong home keygen token: no answer, no change")
@case("CN-4-7-1", what="wrong care-of keygen token: no answer, no change")
def test_unauthorised_handover(tester):
    tester.register()
    silent(
        tester,
        tester.update(source=tester.other_address),  # its token is that of another address
        tester.update(source=tester.other_address, tokens=(bytes(8), None)),
        tester.update(source=tester.other_address, tokens=(None, bytes(8))),
        signaller=tester.elsewhere,
    )
    assert tester.bound() == tester.care_of_address


@case("CN-4-4-1", "CN-4-4-2", "CN-4-4-3", what="wrong home nonce index: status 136")
@case("CN-4-5-1", what="wrong care-of nonce index: status 137")
@case("CN-4-9-1", what="both wrong: status 138")
@case("CN-4-5-2", "CN-4-5-3", what="a wrong care-of nonce index does not matter in a deletion")
@case("CN-4-9-2", "CN-4-9-3", what="both wrong in a deletion: status 136")
def test_wrong_indices(tester):
    tester.register()
    bad = (tester.home_index + 1000) % 65536
    home = tester.home_address
    for indices, status in (((bad, -1), 136), ((-1, bad), 137), ((bad, bad), 138)):
        tester.away.send(tester.update(indices=indices))
        (answer,) = tester.acknowledgements()
        assert answer.message.status == status and answer.message.options == ()
        assert tester.bound() == tester.care_of_address
    for indices in ((bad, -1), (bad, bad)):
        tester.away.send(tester.update(indices=indices, lifetime=0, deletes=True))
        (answer,) = tester.acknowledgements()
        assert answer.message.status == 136
        tester.home.forget()
        tester.home.send(
            tester.update(indices=indices, lifetime=0, deletes=True, source=home, home_address=None)
        )
        (answer,) = tester.acknowledgements(tester.home)
        assert answer.message.status == 136
        assert tester.bound() == tester.care_of_address
    tester.away.send(tester.update(indices=(-1, bad), lifetime=0, deletes=True))
    (answer,) = tester.acknowledgements()
    assert answer.message.status == 0
    assert tester.bound() is None


@case("CN-5-1-1-1", "CN-5-1-1-2", "CN-5-1-1-3", "CN-5-1-1-4", what="a greater sequence number is accepted")
@pytest.mark.parametrize(("first", "second"), [(10000, 10001), (10000, 42767), (42768, 0), (42768, 9999)])
def test_greater_sequence_numbers(tester, first, second):
    tester.register(sequence=first)
    tester.away.send(tester.update(sequence=second, lifetime=20))
    (answer,) = tester.acknowledgements()
    assert (answer.message.status, answer.message.sequence) == (0, second)


@case("CN-5-1-2-1", "CN-5-1-2-2", "CN-5-1-2-3", "CN-5-1-2-4", what="another: status 135 with the last one")
@pytest.mark.parametrize("second", [9999, 10000, 42768, 0])
def test_other_sequence_numbers(tester, second):
    tester.register(sequence=10000)
    tester.away.send(tester.update(sequence=second, lifetime=20))
    (answer,) = tester.acknowledgements()
    assert (answer.message.status, answer.message.sequence) == (135, 10000)
    assert tester.bound() == tester.care_of_address


@case("CN-5-1-3-1", "CN-5-1-3-2", "CN-5-1-3-3", what="without a binding any sequence number is accepted")
@pytest.mark.parametrize("sequence", [0, 32768, 65535])
def test_first_sequence_numbers(tester, sequence):
    assert tester.register(sequence=sequence).message.sequence == sequence


@case("CN-5-2-1", "CN-5-2-2", "CN-5-2-3", what="lifetimes up to 420 s are granted, longer ones cut to that")
@case("CN-5-2-4", "CN-5-2-5", "CN-5-2-6", "CN-5-2-7", what="the same where there is a binding already")
@pytest.mark.parametrize("known", [False, True])
def test_lifetimes(tester, known):
    tester.authorise()
    if known:
        tester.away.send(tester.update(lifetime=50))
        tester.acknowledgements()
    for lifetime, granted in ((0xFFFF, 105), (1, 1), (50, 50), (105, 105), (106, 105), (200, 105)):
        tester.away.send(tester.update(lifetime=lifetime))
        (answer,) = tester.acknowledgements()
        assert (answer.message.status, answer.message.lifetime_s) == (0, 4 * granted)


@case("CN-5-2-8", what="an update that is refused changes no lifetime")
def test_refused_updates_change_no_lifetime(tester, cn):
    tester.register(lifetime=100)
    silent(tester, tester.update(lifetime=1, tokens=(bytes(8), None)))
    tester.away.send(tester.update(lifetime=1, sequence=tester.sequence - 1))
    tester.acknowledgements()
    (binding,) = [b for b in cn.ask("bindings") if b["home_address"] == tester.home_address]
    assert binding["lifetime_s"] == 400 and binding["remaining_s"] > 300


@case("CN-5-3-1", "CN-5-3-4", what="H bit, no binding: status 131")
@case("CN-5-3-2", "CN-5-3-3", "CN-5-3-5", "CN-5-3-6", what="H bit, with a binding: status 139, it stays")
@pytest.mark.parametrize("indices", [None, (-1, -1)])
def test_home_registrations(tester, indices):
    tester.authorise()
    tester.away.send(tester.update(flags=0xC000, indices=indices, proof=indices is not None))
    (answer,) = tester.acknowledgements()
    assert answer.message.status == 131
    assert tester.bound() is None
    tester.register()
    for lifetime in (30, 0):
        changes = {"flags": 0xC000, "lifetime": lifetime, "deletes": not lifetime}
        tester.away.send(tester.update(indices=indices, proof=indices is not None, **changes))
        (answer,) = tester.acknowledgements()
        assert answer.message.status == 139
        assert tester.bound() == tester.care_of_address


@case("CN-5-4-1", what="a Binding Update that is played back changes nothing")
def test_replay(tester):
    tester.authorise()
    first = tester.update()
    tester.away.send(first)
    tester.acknowledgements()
    tester.away.send(tester.update(lifetime=0, deletes=True))
    tester.acknowledgements()
    tester.away.send(first)
    (answer,) = tester.acknowledgements()
    assert answer.message.status == 135
    assert tester.bound() is None


@case("CN-5-4-2", what="a care-of address that leads back to the home address: no answer, no binding")
def test_circular_reference(network, tester):
    """Three mobile nodes, each at the home address of the next."""
    others = [Tester(network), Tester(network)]
    for node, place in ((tester, others[0]), (others[0], others[1])):
        node.authorise(place.home)
        place.home.send(node.update(source=place.home_address))
        (answer,) = node.acknowledgements(place.home)
        assert answer.message.status == 0
    last = others[1]
    last.authorise(tester.home)
    tester.home.forget()
    tester.home.send(last.update(source=tester.home_address))
    last.care_of_test(tester.home)
    assert Tester.of_type(tester.home, 6) == []
    assert last.bound() is None
    last.register()
    assert last.bound() == last.care_of_address
    for node in others:
        node.close()


@case("CN-5-4-3", what="several mobile nodes have bindings of their own")
def test_several_mobile_nodes(network, tester):
    other = Tester(network)
    tester.register()
    other.register()
    assert tester.bound() == other.bound() == tester.care_of_address
    other.away.send(other.update(lifetime=0, deletes=True))
    other.acknowledgements()
    assert (other.bound(), tester.bound()) == (None, tester.care_of_address)
    other.close()


@case("CN-6-2-1", what="a Home Address option without a binding: Binding Error, status 1")
@case("CN-6-2-2", what="with a binding to another address: Binding Error, status 1")
@case("CN-6-2-3", what="which changes no binding")
def test_home_address_options_are_checked(tester):
    assert tester.bound() is None
    tester.register()
    assert tester.bound(tester.other_address) is None
    assert tester.bound() == tester.care_of_address


@case("CN-6-3-1", "CN-6-3-2", "CN-6-3-3", what="multicast addresses: no answer")
def test_multicast_addresses(tester):
    tester.register()
    silent(tester, tester.echo(tester.care_of_address, "ff0e::1"))
    for source, home in (("ff0e::1", tester.home_address), ("ff0e::1", "ff0e::2")):
        silent(tester, tester.echo(source, home))


@case("CN-6-4-1", what="the checksum of what is above counts for the home address")
def test_checksums_above(tester):
    tester.register()
    tester.away.forget()
    for_the_care_of_address = tester.echo(tester.care_of_address, None)
    good = tester.echo(tester.care_of_address, tester.home_address)
    bad = good[:64] + for_the_care_of_address[40:]
    silent(tester, bad)
    assert not [data for data in tester.away.heard() if data[6] == 43]
    assert tester.bound() == tester.care_of_address


@case("CN-6-5", what="a type 2 routing header for a node that is no mobile node is not followed")
def test_routing_header(tester):
    address = IPv6Address(CORRESPONDENT).packed
    echo = tester.echo(tester.care_of_address, None)
    routing = struct.pack("!BBBBI", 58, 2, 2, 1, 0) + address
    packet = echo[:4] + struct.pack("!H", len(routing) + len(echo) - 40) + b"\x2b" + echo[7:40]
    tester.away.forget()
    tester.away.send(packet + routing + echo[40:])
    tester.care_of_test()
    assert not [data for data in tester.away.heard() if data[6] == 58 and data[40] == 129]
