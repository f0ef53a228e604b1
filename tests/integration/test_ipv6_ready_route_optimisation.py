"""The IPv6 Ready cases for mobile nodes with correspondent nodes: a tester in the place of one of these.

A case is named by its number; docs/ipv6-ready.md has all of them.
"""

import json
import struct
from ipaddress import IPv6Address

import pytest
from agent_network import CORRESPONDENT, HOME_ADDRESS, OPTIMISED, Agent
from datapath_network import Capture, wait_for
from ipv6_ready import case
from signalling import BU, COTI, HOTI, ipv6_packet, mobility_header

REFRESH_ADVICE = (2, 2, 0, struct.pack("!H", 1))


def optimised(mn, bids=2):
    """Whether the correspondent node has acknowledged so many BIDs."""
    routes = [route for route in mn.ask("routes") if route["correspondent"] == CORRESPONDENT]
    return routes and sum(b["registered"] is not None for b in routes[0]["bindings"]) == bids


@case("MN-2-1-3-2-015", what="the reserved field of a Home Test is ignored")
@case("MN-2-1-4-2-014", what="the reserved field of a Care-of Test is ignored")
@case("MN-3-2-1-2-029", what="the reserved field of a Binding Acknowledgement is ignored")
def test_reserved_fields(cn, mn):
    cn.replies[HOTI] = lambda init: cn.home_test(init, reserved=0xFF)
    cn.replies[COTI] = lambda init: cn.care_of_test(init, reserved=0xFF)
    cn.replies[BU] = lambda update: cn.acknowledgement(update, reserved=0xFF)
    cn.until(lambda: optimised(mn))
    assert cn.way() == "straight"


@case("MN-2-1-4-2-010", what="a Care-of Test of an unknown node: nothing is sent to it")
def test_care_of_test_of_an_unknown_node(network, home, cn, tmp_path):
    with Agent(network.mn, tmp_path) as mn:
        wait_for(lambda: mn.ask("status")["registered"])
        header = mobility_header(4, struct.pack("!H", 1) + bytes(16))
        dropped = mn.ask("counters")["messages"].get("dropped", 0)
        cn.send(ipv6_packet(CORRESPONDENT, network.address("mn-wlan"), header))
        wait_for(lambda: mn.ask("counters")["messages"].get("dropped", 0) > dropped)
        assert cn.way() == "tunnel"
        assert cn.messages(HOTI) == cn.messages(COTI) == cn.messages(BU) == []


@case("MN-3-2-1-2-017", what="a shorter lifetime than asked for counts: then the tunnel, and new tests")
def test_shorter_lifetime(cn, mn):
    cn.replies[BU] = lambda update: cn.acknowledgement(update, lifetime=1)
    cn.until(lambda: optimised(mn))
    assert cn.messages(BU)[0].message.lifetime_s > 4
    expires(cn, mn)


@case("MN-3-2-1-2-018", what="the lifetime that was asked for counts: then the tunnel, and new tests")
def test_lifetime_as_asked_for(network, home, cn, tmp_path):
    with Agent(network.mn, tmp_path, OPTIMISED, first="lifetime_s = 8\n") as mn:
        cn.until(lambda: optimised(mn))
        assert cn.messages(BU)[0].message.lifetime_s <= 8
        expires(cn, mn)


def expires(cn, mn):
    """Nothing is answered any more: what the correspondent node has is over in time, and tested anew."""
    cn.replies.clear()
    tests = len(cn.messages(HOTI)), len(cn.messages(COTI))
    cn.until(lambda: optimised(mn, 0))
    assert cn.way() == "tunnel"
    cn.until(lambda: len(cn.messages(HOTI)) > tests[0] and len(cn.messages(COTI)) > tests[1])


@case("MN-3-2-1-2-003", what="status 128: the tunnel")
def test_rejected(cn, mn):
    cn.replies[BU] = lambda update: cn.acknowledgement(update, status=128)
    cn.until(lambda: mn.events("registration-refused"))
    refused = mn.events("registration-refused")[0]
    assert (refused["peer"], refused["status"]) == (CORRESPONDENT, 128)
    assert optimised(mn, 0) and cn.way() == "tunnel"


@case("MN-3-2-1-2-010", what="status 135: again, with the sequence number that follows the one told")
def test_sequence_number_out_of_window(cn, mn):
    told = []

    def refuse_once(update):
        if told:
            return cn.acknowledgement(update)
        told.append((update.message.sequence + 1000) % 65536)
        return cn.acknowledgement(update, status=135, sequence=told[0])

    cn.replies[BU] = refuse_once
    cn.until(lambda: told and (told[0] + 1) % 65536 in [u.message.sequence for u in cn.messages(BU)])
    cn.until(lambda: optimised(mn))


@case("MN-3-2-1-2-014", what="an acknowledgement of another sequence number is ignored")
@case("MN-3-2-1-2-025", what="Binding Authorization Data that is not the last option: ignored")
@pytest.mark.parametrize("fault", [{"sequence": 0}, {"after": (REFRESH_ADVICE,)}])
def test_ignored(cn, mn, fault):
    def faulty(update):
        other = {"sequence": (update.message.sequence + 1000) % 65536}
        return cn.acknowledgement(update, **(other if "sequence" in fault else fault))

    cn.replies[BU] = faulty
    cn.next(BU, after=2)
    assert optimised(mn, 0) and cn.way() == "tunnel"
    cn.replies[BU] = cn.acknowledgement
    cn.until(lambda: optimised(mn))


@case("MN-3-2-1-2-023", what="Binding Refresh Advice of a correspondent node is ignored")
def test_refresh_advice(cn, mn):
    """With a lifetime of 8 s the binding is renewed after 6.4 s; the advice is 4 s, and the time counts from
    the Binding Update that was accepted."""
    cn.replies[BU] = lambda update: cn.acknowledgement(update, lifetime=2, before=(REFRESH_ADVICE,))
    cn.until(lambda: optimised(mn))
    assert cn.way() == "straight"
    numbers = {event["sequence"] for event in events(mn, "binding-acknowledgement-received")}
    updates = events(mn, "binding-update-sent")
    accepted = {e["care_of_address"]: e["t"] for e in updates if e["sequence"] in numbers}
    assert len(accepted) == 2
    for address, when in accepted.items():
        sent = cn.until(lambda a=address, t=when: updates_after(mn, a, t))
        assert sent[0]["t"] - when > 6


def events(mn, name):
    return [event for event in mn.events(name) if event["peer"] == CORRESPONDENT]


def updates_after(mn, address, when):
    sent = events(mn, "binding-update-sent")
    return [event for event in sent if event["care_of_address"] == address and event["t"] > when]


@case("MN-4-1-1-2-006", what="Neighbour Discovery carries no Home Address option")
@case("MN-4-1-2-2-006", what="what comes to the link-local address is answered from there")
def test_link_local(network, cn, mn):
    cn.until(lambda: optimised(mn))
    assert cn.way() == "straight"
    links = json.loads(network.mn.shell("ip -j -6 addr show dev mn-wlan scope link"))
    (address,) = (entry["local"] for link in links for entry in link.get("addr_info", ()) if entry)
    capture = Capture(network.ar, "wlan")
    try:
        network.ar.shell(f"ip -6 neigh flush dev wlan; ping -c 1 -W 2 {address}%wlan")
        network.ar.shell(f"ping -c 1 -W 2 {network.address('mn-wlan')}")
        heard = [data for data in capture.packets() if data[6] in (58, 60) and data[24:26] != b"\xff\x02"]
    finally:
        capture.close()
    assert {data[6] for data in heard} == {58}
    answers = {(data[40], str(IPv6Address(data[8:24]))) for data in heard}
    assert (129, address) in answers and (136, address) in answers
    assert all(source != HOME_ADDRESS for _, source in answers)


ROUTING = bytes((2, 2, 1, 0, 0, 0, 0)) + IPv6Address(HOME_ADDRESS).packed


@case("MN-4-1-2-2-010", what="a type 2 routing header by an address that is no care-of address: no answer")
@case("MN-4-1-2-2-004", what="a type 2 routing header of another length: no answer")
@case("MN-4-1-2-2-005", what="a type 2 routing header with segments left other than 1: no answer")
def test_routing_headers(network, cn, mn):
    cn.until(lambda: optimised(mn))
    wlan, spare = network.address("mn-wlan"), "2001:db8:201::abcd"
    network.mn.shell(f"ip -6 addr add {spare}/64 dev mn-wlan nodad")
    try:
        bad = [
            cn.echo(spare, ROUTING),
            cn.echo(HOME_ADDRESS, ROUTING),
            cn.echo(wlan, bytes((4,)) + ROUTING[1:] + bytes(16)),
            cn.echo(wlan, bytes((0, 2, 1, 0, 0, 0, 0))),
            cn.echo(wlan, ROUTING[:2] + bytes((2,)) + ROUTING[3:]),
            cn.echo(wlan, ROUTING[:2] + bytes((0,)) + ROUTING[3:]),
        ]
        good = cn.echo(wlan, ROUTING)
        cn.until(lambda: good in cn.echo_replies())
        assert cn.way() == "straight"
        assert not set(bad) & set(cn.echo_replies())
    finally:
        network.mn.shell(f"ip -6 addr del {spare}/64 dev mn-wlan")


@case("MN-3-3-1-2-001", what="Binding Error, status 2, for a Binding Update: the tunnel, no more tests")
def test_binding_error_for_an_update(cn, mn):
    cn.replies[BU] = lambda update: cn.binding_error(2, update.source)
    cn.until(lambda: mn.events("binding-error-received"))
    tests = len(cn.messages(HOTI))
    assert cn.way() == "tunnel" and optimised(mn, 0)
    assert len(cn.messages(HOTI)) == tests


@case("MN-3-3-1-2-002", what="Binding Error, status 2, while no answer is waited for: ignored")
def test_unexpected_binding_error(network, cn, mn):
    cn.until(lambda: optimised(mn))
    cn.send(cn.binding_error(2, network.address("mn-wlan")))
    cn.until(lambda: mn.events("binding-error-received"))
    assert cn.way() == "straight" and optimised(mn)
