"""Agents and what they should not be given: bad packets, bad configurations, bad surroundings."""

import socket
import struct
import subprocess
import sys
import time
from ipaddress import IPv6Address

import pytest
from agent_network import HOME_ADDRESS, HOME_AGENT, ROOT, Agent
from datapath_network import wait_for
from signalling import BU, ipv6_packet, sign

from testbed.agent.drops import REPORTS_BURST, REPORTS_PER_S
from testbed.agent.mobility_socket import MobilitySocket
from testbed.wire.codec import Codec
from testbed.wire.message import Status, UnknownMessage
from testbed.wire.packet import Packet, build_packet, parse_packet
from testbed.wire.router_advertisement import PrefixInformation, RouterAdvertisement


@pytest.fixture
def ha(network, tmp_path):
    with Agent(network.ha, tmp_path) as ha:
        yield ha


@pytest.fixture
def sender(network):
    """Sends whole IPv6 packets from the mobile node's namespace; its agent does not run."""
    sock = network.mn.run(MobilitySocket)

    def send(data):
        source, destination = IPv6Address(data[8:24]), IPv6Address(data[24:40])
        network.mn.run(lambda: sock.send(data, source, destination, "mn-wlan"))

    yield send
    sock.close()


def messages(agent):
    return agent.ask("counters")["messages"]


def binding_update(network):
    """An authentic one, as a packet and as octets."""
    source = network.address("mn-wlan", "2001:db8:201:")
    header = sign(BU, struct.pack("!HHH", 1, 0xC000, 15), source)
    data = ipv6_packet(source, HOME_AGENT, header, HOME_ADDRESS)
    return parse_packet(data, Codec()), data


def crafted_by_scapy(network):
    """Bad packets, each with the beginning of the reason for which it is dropped."""
    from scapy.layers import inet6 as v6

    header = v6.IPv6(src=network.address("mn-wlan", "2001:db8:201:"), dst=HOME_AGENT)
    options = v6.IPv6ExtHdrDestOpt(options=[v6.PadN(optdata=b"\0\0"), v6.HAO(hoa=HOME_ADDRESS)])
    good = bytes(header / options / v6.MIP6MH_BU(seq=1, flags="AH", mhtime=15))
    wrong_checksum = bytearray(good)
    wrong_checksum[40 + 24 + 4] ^= 0xFF
    beyond_the_end = bytearray(good)
    beyond_the_end[40 + 24 + 1] = 9
    endless_extension = bytearray(good)
    endless_extension[41] = 200
    lying_length = bytearray(good)
    lying_length[4:6] = (20).to_bytes(2, "big")
    routing = v6.IPv6ExtHdrRouting(type=2, addresses=[HOME_ADDRESS] * 2, nh=135)
    return [
        (bytes(wrong_checksum), "Mobility Header has a wrong checksum"),
        (bytes(beyond_the_end), "Mobility Header of 80 octets is truncated"),
        (bytes(endless_extension), "extension header 60 is truncated"),
        (bytes(lying_length), "extension header 60 is truncated"),
        (bytes(header / routing / good[64:]), "type 2 routing header has"),
    ]


@pytest.mark.requirement("RFC 6275 §9.2: malformed Mobility Headers are discarded")
def test_malformed_packets_are_counted_and_change_nothing(network, ha, sender):
    bad = crafted_by_scapy(network)
    for data, _ in bad:
        sender(data)
    wait_for(lambda: messages(ha)["malformed"] == len(bad))
    dropped = ha.events("message-dropped")
    assert [event["kind"] for event in dropped] == ["malformed"] * len(bad)
    for event, (_, reason) in zip(dropped, bad, strict=True):
        assert event["reason"].startswith(reason)
    assert (ha.ask("bindings"), messages(ha)["sent"]) == ([], 0)
    _, good = binding_update(network)
    sender(good)
    wait_for(lambda: [binding["bid"] for binding in ha.ask("bindings")] == [0])


def test_every_truncation_of_a_binding_update_is_dropped(network, ha, sender):
    _, good = binding_update(network)
    lengths = range(48, len(good))
    for length in lengths:
        sender(good[:4] + (length - 40).to_bytes(2, "big") + good[6:length])
    _, last = binding_update(network)
    sender(last)
    wait_for(lambda: len(ha.ask("bindings")) == 1)
    counted = messages(ha)
    assert (counted["malformed"], counted["received"]) == (len(lengths), len(lengths) + 1)


def test_a_flood_of_bad_packets_is_counted_and_reported_sparingly(network, ha, sender):
    _, good = binding_update(network)
    bad = good[:-1] + bytes([good[-1] ^ 1])
    begun = time.monotonic()
    for _ in range(300):
        sender(bad)
    sender(good)
    wait_for(lambda: len(ha.ask("bindings")) == 1)
    seconds = int(time.monotonic() - begun) + 1
    assert messages(ha)["malformed"] > 20
    assert len(ha.events("message-dropped")) <= min(REPORTS_BURST + REPORTS_PER_S * seconds, 100)


@pytest.mark.requirement("RFC 4861 §6.1.2: Router Advertisements with a Hop Limit but 255 do not count")
@pytest.mark.requirement("RFC 6275 §10.5.1: home agents are those that advertise themselves on the home link")
def test_home_agents_that_are_not_on_the_home_link(network, ha):
    def advertise(node, interface, address, hop_limit):
        prefix = PrefixInformation(IPv6Address(address), 64, 600, 300, router_address=True)
        with node.socket(socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hop_limit)
            message = bytes(RouterAdvertisement(600, (prefix,), home_agent=True))
            index = int(node.shell(f"ip -o link show dev {interface}").partition(":")[0])
            sock.sendto(message, ("ff02::1", 0, 0, index))

    advertise(network.hn, "eth0", "2001:db8:100::bad1", 64)  # forwarded, or made up elsewhere
    advertise(network.ar, "core", "2001:db8:100::bad2", 255)
    advertise(network.hn, "eth0", "2001:db8:100::2", 255)
    wait_for(lambda: "2001:db8:100::2" in ha.ask("status")["home_agents"])
    assert set(ha.ask("status")["home_agents"]) == {HOME_AGENT, "2001:db8:100::2"}


def test_each_message_is_taken_once_with_or_without_extension_headers(network, ha, sender):
    packet, with_home_address = binding_update(network)
    sender(with_home_address)
    wait_for(lambda: messages(ha)["received"] == 1)
    plain = Packet(packet.source, packet.destination, UnknownMessage(200, bytes(2)))
    sender(build_packet(plain, Codec()))
    wait_for(lambda: messages(ha)["received"] == 2)
    assert messages(ha)["sent"] == 2  # a Binding Acknowledgement and a Binding Error
    assert "message-dropped" in [event["event"] for event in ha.ask("events")]


def test_what_only_passes_through_is_not_taken(network, ha, sender):
    packet, _ = binding_update(network)
    for address in ("2001:db8:100::2", "2001:db8:100::77"):
        elsewhere = Packet(packet.source, IPv6Address(address), packet.message, packet.home_address)
        sender(build_packet(elsewhere, Codec()))
    _, good = binding_update(network)
    sender(good)
    wait_for(lambda: len(ha.ask("bindings")) == 1)
    assert messages(ha)["received"] == 1


@pytest.mark.requirement("RFC 4285 §6: a Binding Update that is not newer is answered with status 144")
def test_a_replayed_binding_update_is_refused(network, ha, sender):
    _, good = binding_update(network)
    sender(good)
    wait_for(lambda: len(ha.ask("bindings")) == 1)
    sender(good)
    wait_for(lambda: messages(ha)["sent"] == 2)
    statuses = [event["status"] for event in ha.events("binding-acknowledgement-sent")]
    assert statuses == [0, Status.MIPV6_ID_MISMATCH]


def rename_home_link(network, before, after):
    network.ha.shell(
        f"ip link set {before} down; ip link set {before} name {after}; ip link set {after} up; "
        f"ip -6 addr add {HOME_AGENT}/64 dev {after} nodad"
    )
    # even without duplicate address detection, the kernel takes a moment to bring an address into use
    wait_for(lambda: "tentative" not in network.ha.shell(f"ip -6 addr show dev {after} to {HOME_AGENT}"))


def test_what_the_kernel_does_not_take_is_refused_to_the_mobile_node(network, ha, sender):
    _, good = binding_update(network)
    listening = network.mn.run(MobilitySocket)
    rename_home_link(network, "home0", "other0")
    try:
        sender(good)
        (answer,) = wait_for(lambda: list(listening.receive()))
        assert parse_packet(answer.data, Codec()).message.status == Status.INSUFFICIENT_RESOURCES
        assert ha.ask("bindings") == []
        assert "home0" in ha.events("datapath-failed")[0]["reason"]
    finally:
        rename_home_link(network, "other0", "home0")
        listening.close()


def run_agent(network, file):
    """The exit status, standard output and error of an agent that is not to start."""
    done = network.ha.run(
        lambda: subprocess.run(
            [sys.executable, "-m", "testbed.agent", str(file)],
            cwd=ROOT, text=True, capture_output=True, timeout=30,
        )  # fmt: skip
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("home_interface", "home_interfaces"), "home_interfaces: is not a known key; did you mean home_int"),
        (('"home0"', '"moon0"'), "home_interface: there is no interface moon0 on this host"),
        (("[log]", '[datapath]\ntunnel_backend = "gre"\n[log]'), "tunnel_backend: 'gre' is not known"),
        (("events.jsonl", "missing/events.jsonl"), "missing/events.jsonl cannot be written: No such file"),
    ],
)
def test_an_agent_that_cannot_run_says_why_in_one_sentence(network, tmp_path, ha, change, sentence):
    ha.stop()
    file = tmp_path / "changed.toml"
    file.touch(0o600)
    file.write_text(ha.file.read_text().replace(*change))
    code, output, error = run_agent(network, file)
    assert (code, output) == (2, "")
    assert sentence in error
    assert error.startswith("flowbind: ")
    assert error.count("\n") == 1


def test_a_second_agent_of_the_same_name_does_not_start(network, ha):
    code, output, error = run_agent(network, ha.file)
    assert (code, output) == (2, "")
    assert error == f"flowbind: another agent answers at {ha.socket}: stop it, or use another name\n"
    assert ha.ask("status")["name"] == "ha"


def test_a_killed_agents_leftovers_are_no_obstacle(network, ha):
    ha.process.kill()
    ha.process.wait()
    ha.start()
    assert ha.stop() == 0
    assert "flowbind" not in network.ha.shell("nft list ruleset")
