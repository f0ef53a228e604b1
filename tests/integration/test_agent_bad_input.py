"""Malformed messages of every type, over real links to real agents: the answer that RFC 6275 wants, or none,
and nothing changed."""

import itertools
import struct
import time
from ipaddress import IPv6Address, IPv6Network

import pytest
from agent_network import CORRESPONDENT, HOME_ADDRESS, HOME_AGENT, KEY, Agent
from datapath_network import ipv6, wait_for
from signalling import (
    BA,
    BE,
    BRR,
    BU,
    COT,
    COTI,
    FIXED,
    HOT,
    HOTI,
    Signaller,
    checksummed,
    ipv6_packet,
    mobility_header,
    sign,
    with_options,
)

from testbed.agent.drops import MAX_PROBLEMS_PER_SENDER_PER_S
from testbed.agent.mobility_socket import MobilitySocket
from testbed.wire.icmpv6 import HomeAgentAddressDiscoveryReply
from testbed.wire.message import (
    BindingAcknowledgement,
    BindingError,
    CareOfTest,
    HomeTest,
)

requirement = pytest.mark.requirement
TYPES = {BRR: "BRR", HOTI: "HoTI", COTI: "CoTI", HOT: "HoT", COT: "CoT", BU: "BU", BA: "BA", BE: "BE"}
UNKNOWN_OPTION = (200, 1, 0, b"abc")
UNKNOWN_TYPE = 200
MOBILE_NETWORK = 'prefixes = ["2001:db8:1000::/64"]\n'
MOBILE_ROUTER = f'[[mobile_router]]\nhome_address = "{HOME_ADDRESS}"\n' + MOBILE_NETWORK
ANCHOR_POINT = f"""
role = "anchor-point"
name = "map"
address = "{HOME_AGENT}"
regional_interface = "home0"
regional_prefixes = ["2001:db8:100::/64"]
security_association = [{{ spi = 1000, key = "{KEY}" }}]
duplicate_address_detection = false
"""
#: The last link to each role's node: the access router's interface, and its own.
LAST_HOP = {role: ("core", "core") for role in ("ha", "map")}
LAST_HOP |= {role: ("wlan", "mn-wlan") for role in ("mn", "mr")} | {"cn": ("cn", "eth0")}
#: The flags of the Binding Updates that each role takes: A and H, A and M.
FLAGS = {"ha": 0xC000, "map": 0x8800}
_numbers = itertools.count()


class Bench:
    """An agent under test, a sender of bad packets at the other end of a link, and what the agent has: a home
    agent, an anchor point in its place, a correspondent node, a mobile node, a mobile router.

    The sender has many prefixes: each test begins with one that no limit has been reached for.
    """

    def __init__(self, network, folder, role):
        self.role = role
        self.router = network.ar
        self.agents = []
        if role == "map":
            self.agents.append(Agent(network.ha, folder, text=ANCHOR_POINT))
        elif role != "cn":
            self.agents.append(Agent(network.ha, folder, more=MOBILE_ROUTER if role == "mr" else ""))
        wlan = network.address("mn-wlan", "2001:db8:201:")
        if role in ("mn", "mr"):
            more = "[mobile_network]\n" + MOBILE_NETWORK if role == "mr" else ""
            self.agents.append(Agent(network.mn, folder, more=more))
            wait_for(self._registered)
            self.sender = Signaller(network.cn, "eth0", CORRESPONDENT)
            self.destination = wlan
        else:
            if role == "cn":
                self.agents.append(Agent(network.cn, folder))
            self.sender = Signaller(network.mn, "mn-wlan", wlan)
            self.destination = CORRESPONDENT if role == "cn" else HOME_AGENT
        self.agent = self.agents[-1]
        first = 0x2000 if role in ("mn", "mr") else 0x1000
        self._prefix = f"2001:db8:{first:x}::/36"
        network.ar.shell(f"ip -6 route replace {self._prefix} via {self.sender.address}")
        network.ha.shell(f"ip -6 route replace {self._prefix} via 2001:db8:ff01::2")
        if role in FLAGS:
            self.sender.send(self.sender.update(flags=FLAGS[role]))
            wait_for(lambda: self.agent.ask("bindings"))

    def begin(self):
        self.source = str(IPv6Network(self._prefix)[(next(_numbers) << 80) + 1])
        self.sender.node.shell(f"ip -6 addr add {self.source}/128 dev lo")
        self.before, self.counted = self.state(), self.messages()

    def _registered(self):
        mn = self.agents[-1]
        return all(b["registered"] for b in mn.ask("bindings")) and [
            f["state"] for f in mn.ask("flows")
        ] == ["registered"]

    def close(self):
        self.sender.close()
        for agent in reversed(self.agents):
            agent.__exit__()

    def state(self):
        bindings = self.agent.ask("bindings")
        for binding in bindings:
            binding.pop("remaining_s")
        return bindings, self.agent.ask("flows")

    def messages(self):
        return self.agent.ask("counters")["messages"]

    def header(self, kind, *options, **changes):
        """A good message, a Binding Update for the home agent authenticated."""
        data = with_options(FIXED[kind], *options)
        return mobility_header(kind, data, **changes)

    def packet(self, header, **addresses):
        return ipv6_packet(self.source, self.destination, header, **addresses)

    def send(self, *packets):
        """Send, then something that is always answered: the messages before that have been dealt with."""
        self.sender.forget()
        self.sender.send(*packets)
        self.sender.send(self.packet(mobility_header(UNKNOWN_TYPE, bytes(2))))

        def answered():
            return [p for p in self.sender.messages() if isinstance(p.message, BindingError)]

        wait_for(answered)
        return [p for p in self.sender.messages() if not isinstance(p.message, BindingError)]

    def send_on_link(self, *packets):
        """What no router forwards: from the last one, to the agent's node."""
        outgoing, incoming = LAST_HOP[self.role]
        hardware = self.agent.node.shell(f"ip -br link show dev {incoming}").split()[2]
        link = self.router.run(MobilitySocket)
        for data in packets:
            link.send_on_link(data, outgoing, bytes.fromhex(hardware.replace(":", "")))
        link.close()

    def malformed(self):
        return self.messages()["malformed"] - self.counted["malformed"]

    def unchanged(self):
        assert self.state() == self.before


@pytest.fixture(params=["ha", "map", "cn", "mn", "mr"], scope="module")
def running(network, tmp_path_factory, request):
    bench = Bench(network, tmp_path_factory.mktemp(request.param), request.param)
    yield bench
    bench.close()


@pytest.fixture
def bench(running):
    running.begin()
    return running


@pytest.fixture(params=TYPES, ids=TYPES.values())
def kind(request):
    return request.param


@requirement("RFC 6275 §9.2: a message that is cut off anywhere is discarded")
def test_truncated_at_every_length(bench, kind):
    good = bench.packet(bench.header(kind))
    cut = [good[:4] + struct.pack("!H", length - 40) + good[6:length] for length in range(41, len(good))]
    assert bench.send(*cut) == []
    assert bench.malformed() == len(cut)
    assert bench.sender.problems() == []
    bench.unchanged()


@requirement("RFC 6275 §9.2: Header Len less than the type needs: Parameter Problem, code 0, at Header Len")
def test_shorter_than_its_type(bench, kind):
    least = (6 + len(FIXED[kind]) + 7) // 8
    short = bench.header(kind)[: 8 * (least - 1)]
    packets = []
    if short:  # what is said to be shorter, and what is
        packets = [
            bench.packet(bench.header(kind, length=least - 2)),
            bench.packet(short[:1] + bytes((least - 2,)) + short[2:]),
        ]
    assert bench.send(*packets) == []
    expected = [(0, 41)] * len(packets)
    wait_for(lambda: bench.sender.problems() == expected)
    assert bench.malformed() == len(packets)
    bench.unchanged()


@requirement("RFC 6275 §9.2: Payload Proto other than 59: Parameter Problem, code 0, at Payload Proto")
def test_payload_after_the_header(bench, kind):
    packets = [bench.packet(bench.header(kind, payload=payload)) for payload in (0, 6, 58, 135)]
    assert bench.send(*packets) == []
    wait_for(lambda: bench.sender.problems() == [(0, 40)] * len(packets))
    assert bench.malformed() == len(packets)
    bench.unchanged()


@requirement("RFC 6275 §9.2: the pointer counts from the IPv6 header, whatever is before the Mobility Header")
def test_pointer_behind_a_home_address_option(bench, kind):
    home = str(IPv6Address(HOME_ADDRESS) + 7)
    bench.send(bench.packet(bench.header(kind, payload=6), home_address=home))
    wait_for(lambda: bench.sender.problems() == [(0, 64)])
    bench.unchanged()


@requirement("RFC 6275 §9.2: a wrong checksum: silence")
def test_wrong_checksum(bench, kind):
    good = bytearray(bench.packet(bench.header(kind)))
    (right,) = struct.unpack("!H", good[44:46])
    wrong = ((right + n) % 0xFFFF for n in range(9001, 0xFFFF, 9001))  # as one's complement numbers, too
    bad = [bytes(good[:44]) + struct.pack("!H", n) + bytes(good[46:]) for n in wrong]
    # right for the care-of address, where the home address counts
    header = checksummed(bench.header(kind), bench.source, bench.destination)
    bad.append(bench.packet(header, home_address=HOME_ADDRESS, checksum=False))
    assert bench.send(*bad) == []
    assert (bench.malformed(), bench.sender.problems()) == (len(bad), [])
    bench.unchanged()


@requirement("RFC 6275 §6.2: options whose lengths lie: the message is discarded")
def test_lengths_of_options_that_lie(bench, kind):
    bad = []
    for option in (1, 3, 9, 18, 35, 200):
        for length in (0, 1, 17, 100, 255):
            header = bytearray(bench.header(kind, (option, 8, 6, bytes(16))))
            start = header.rindex(bytes((option, 16)) + bytes(16))
            header[start + 1] = length
            if start + 2 + length > len(header):
                bad.append(bench.packet(bytes(header)))
    room = 8 - (7 + len(FIXED[kind])) % 8  # a type in the last octet, without a length
    bad.append(bench.packet(mobility_header(kind, FIXED[kind] + bytes(room % 8) + b"\xc8")))
    assert len(bad) > 10
    assert bench.send(*bad) == []
    assert (bench.malformed(), bench.sender.problems()) == (len(bad), [])
    bench.unchanged()


@requirement("RFC 6275 §6.2: options that are not aligned as they have to be: the message is discarded")
def test_misaligned_options(bench, kind):
    address = IPv6Address("2001:db8:bad::1").packed
    options = [(3, 8, offset, address) for offset in (0, 1, 2, 3, 4, 5, 7)]
    options += [(2, 2, 1, bytes(2)), (4, 2, 1, bytes(4))]
    bad = [bench.packet(bench.header(kind, option)) for option in options]
    assert bench.send(*bad) == []
    assert (bench.malformed(), bench.sender.problems()) == (len(bad), [])
    bench.unchanged()


@requirement("RFC 6275 §9.2: an unknown type: Binding Error, status 2, with the home address if there is one")
def test_unknown_types(bench):
    kinds = (8, 16, 22, 127, 255)
    home = str(IPv6Address(HOME_ADDRESS) + 7)
    packets = [bench.packet(mobility_header(kind, bytes(2))) for kind in kinds]
    packets.append(bench.packet(mobility_header(UNKNOWN_TYPE, bytes(10)), home_address=home))
    bench.sender.forget()
    bench.sender.send(*packets)

    def errors():
        return [p for p in bench.sender.messages() if isinstance(p.message, BindingError)]

    wait_for(lambda: len(errors()) == len(packets))
    assert {packet.message.status for packet in errors()} == {2}
    assert [str(packet.message.home_address) for packet in errors()] == ["::"] * len(kinds) + [home]
    assert {str(packet.source) for packet in errors()} == {bench.destination}
    assert all(packet.routing_address is None for packet in errors())
    bench.unchanged()


@requirement("RFC 4443 §2.4: errors are limited, and none goes where it must not")
def test_floods_of_malformed_messages(bench):
    bad = bench.packet(bench.header(HOTI, payload=6))
    elsewhere = [
        ipv6_packet(source, bench.destination, bench.header(HOTI, payload=6))
        for source in ("::1", "fe80::7", "ff0e::1", "::")
    ]
    begun = time.monotonic()
    bench.sender.send(*[bad] * 100)
    wait_for(lambda: bench.malformed() == 100)
    seconds = int(time.monotonic() - begun) + 2
    assert 0 < len(bench.sender.problems()) <= min(MAX_PROBLEMS_PER_SENDER_PER_S * seconds, 99)
    sent = bench.messages()["problems_sent"]
    bench.send_on_link(*elsewhere)
    wait_for(lambda: bench.malformed() == 100 + len(elsewhere))
    assert bench.messages()["problems_sent"] == sent
    bench.unchanged()


@requirement("RFC 6275 §6.2.1: an option that is not known is skipped, the message counts")
@requirement("RFC 6275 §6.1: reserved fields are ignored")
@pytest.mark.parametrize("change", ["unknown option", "reserved"])
def test_what_is_ignored(bench, change):
    """The messages that each role serves, with what a receiver has to overlook."""
    options = [UNKNOWN_OPTION] if change == "unknown option" else []

    def header(kind):
        made = bytearray(bench.header(kind, *options))
        if change == "reserved":
            made[3] = 0xFF  # of the Mobility Header itself
            made[6:8] = b"\xff\xff"
        return bytes(made)

    if bench.role == "cn":
        answers = bench.send(*(bench.packet(header(kind)) for kind in (HOTI, COTI)))
        assert [type(answer.message) for answer in answers] == [HomeTest, CareOfTest]
    elif bench.role in FLAGS:
        flags = FLAGS[bench.role] | (0x000F if change == "reserved" else 0)  # bits without a meaning
        data = with_options(struct.pack("!HHH", 30000 + next(_numbers), flags, 25), *options)
        signed = sign(BU, data, bench.sender.address)
        (answer,) = bench.send(ipv6_packet(bench.sender.address, HOME_AGENT, signed, HOME_ADDRESS))
        assert isinstance(answer.message, BindingAcknowledgement) and answer.message.status == 0
        assert bench.agent.ask("bindings")[0]["lifetime_s"] == 100
    else:
        sent = bench.messages()["sent"]  # and how many more depends on how soon there is an answer
        request = ipv6_packet(HOME_AGENT, bench.destination, header(BRR), routing_address=HOME_ADDRESS)
        bench.sender.send(request)
        wait_for(lambda: bench.messages()["sent"] > sent)
        wait_for(bench._registered)
        bench.unchanged()
    assert bench.malformed() == 0


#: The ICMPv6 messages of Mobile IPv6 (RFC 6275 §6.5 to §6.8): what is behind the eight octets that all have.
_PREFIX = bytes((3, 4, 64, 0xE0)) + struct.pack("!III", 60, 30, 0) + IPv6Address("2001:db8:bad::").packed
ICMPV6 = {144: b"", 145: IPv6Address("2001:db8:bad::1").packed, 146: b"", 147: _PREFIX}


@pytest.fixture(params=ICMPV6)
def icmpv6(request):
    return request.param


def icmpv6_packet(bench, kind, data, code=0, length=None, wrong=0):
    """The first `length` octets of a message, all by default, with the right checksum and `wrong` more."""
    message = (bytes((kind, code, 0, 0, 0x12, 0x34, 0, 0)) + data)[:length]
    addresses = IPv6Address(bench.source).packed + IPv6Address(bench.destination).packed
    covered = addresses + struct.pack("!II", len(message), 58) + message
    words = struct.unpack(f"!{(len(covered) + 1) // 2}H", covered + bytes(len(covered) % 2))
    total = sum(words) % 0xFFFF
    checksum = struct.pack("!H", ((0xFFFF - total) + wrong) % 0xFFFF)
    return ipv6(bench.source, bench.destination, 58, (message[:2] + checksum + message[4:])[: len(message)])


@requirement("RFC 6275 §6.5 to §6.8: ICMPv6 messages of Mobile IPv6 that are malformed are discarded")
def test_malformed_icmpv6_messages(bench, icmpv6):
    data = ICMPV6[icmpv6]
    bad = [icmpv6_packet(bench, icmpv6, data, length=length) for length in range(1, 8)]
    bad += [icmpv6_packet(bench, icmpv6, data, wrong=n) for n in (1, 255, 256, 32768)]
    bad += [icmpv6_packet(bench, icmpv6, data, code=code) for code in (1, 255)]
    if icmpv6 == 145:  # not a whole number of addresses
        bad += [icmpv6_packet(bench, icmpv6, data + bytes(n)) for n in (1, 8, 15, 17)]
    if icmpv6 in (146, 147):  # options that are cut off, without length, or of a wrong one
        bad += [icmpv6_packet(bench, icmpv6, _PREFIX, length=8 + n) for n in (1, 2, 8, 31)]
        bad += [icmpv6_packet(bench, icmpv6, bytes((3, n)) + _PREFIX[2:]) for n in (0, 3, 5, 255)]
    assert bench.send(*bad) == []
    assert bench.sender.problems() == []
    assert bench.malformed() == len(bad)
    bench.unchanged()


@requirement("RFC 6275 §11.4.1, §11.4.3, §9.3.1: good ICMPv6 messages of strangers change nothing")
def test_icmpv6_messages_of_strangers(bench, icmpv6):
    answers = bench.send(icmpv6_packet(bench, icmpv6, ICMPV6[icmpv6]))
    replies = [HomeAgentAddressDiscoveryReply] if bench.role == "ha" and icmpv6 == 144 else []
    assert [type(answer.message) for answer in answers] == replies
    assert bench.malformed() == 0 and bench.sender.problems() == []
    bench.unchanged()


@requirement("RFC 6275 §6.3, §6.4, §9.5.4: extension headers that are not as they should be")
def test_extension_headers(bench):
    header = bench.header(BU)
    source, destination = bench.source, bench.destination
    options = bytes((1, 2, 0, 0, 0xC9, 16)) + IPv6Address(HOME_ADDRESS).packed
    routing = bytes((135, 2, 2, 1)) + bytes(4) + IPv6Address(HOME_ADDRESS).packed

    def behind(number, extension):
        return ipv6(source, destination, number, extension + checksummed(header, source, destination))

    silent = [
        behind(60, bytes((135, 4)) + options + options[4:] + bytes((1, 0, 0, 0)) + bytes(0)),
        behind(60, bytes((60, 2)) + options + bytes((135, 2)) + options),
        behind(60, bytes((135, 2)) + options[:6] + IPv6Address("ff0e::1").packed),
        behind(60, bytes((135, 2)) + options[:6] + IPv6Address("fe80::1").packed),
        behind(60, bytes((135, 2)) + options[:6] + bytes(16)),
        behind(43, routing[:8] + IPv6Address("ff0e::1").packed),
        behind(60, bytes((135, 40)) + options),
        behind(44, bytes((135, 0, 0, 1, 0, 0, 0, 1))),
    ]
    pointed = {
        behind(60, bytes((135, 2, 1, 2, 0, 0, 0xC9, 15)) + bytes(16)): (0, 40 + 7),
        behind(60, bytes((135, 0, 0x80, 4, 0, 0, 0, 0))): (2, 42),
        behind(43, bytes((135, 4, 2, 1)) + routing[4:] + bytes(16)): (0, 41),
        behind(43, routing[:3] + b"\2" + routing[4:]): (0, 43),
        behind(43, bytes((135, 0, 9, 1)) + bytes(4)): (0, 42),
    }
    assert bench.send(*silent) == []
    assert bench.sender.problems() == []
    assert bench.send(*pointed) == []
    wait_for(lambda: len(bench.sender.problems()) >= len(pointed))
    assert sorted(bench.sender.problems()) == sorted(pointed.values())
    bench.unchanged()


def test_types_that_a_role_does_not_serve_change_nothing(bench, kind):
    """Good messages of every type from a stranger: those that are served get their answer."""
    answers = bench.send(bench.packet(bench.header(kind)))
    is_correspondent = bench.role in ("cn", "mn", "mr")
    served = {HOTI: HomeTest, COTI: CareOfTest} if is_correspondent else {}
    expected = [served[kind]] if kind in served else []
    if is_correspondent and kind == BU:
        expected = [BindingAcknowledgement]  # status 131, home registration not supported
    assert [type(answer.message) for answer in answers] == expected
    assert all(answer.message.status == 131 for answer in answers if kind == BU)
    assert bench.malformed() == 0
    bench.unchanged()
