"""What plays the tester of the IPv6 Ready cases: a mobile node that is away, and its home address at home.

Class: `Tester`. Function: `case`. The home agent is a mere router here, and what the tester sends is made
octet by octet.
"""

import hashlib
import hmac
import itertools
import struct
from ipaddress import IPv6Address

import pytest
from agent_network import CORRESPONDENT, HOME_ADDRESS
from datapath_network import ipv6, wait_for
from signalling import BA, BE, BU, COT, COTI, HOT, HOTI, Signaller, ipv6_packet, mobility_header, with_options

from testbed.wire.packet import Packet

_cookies = itertools.count(1)
_homes = itertools.count(0x1000)


def case(*names, what):
    """Mark a test with the cases that it is."""

    def mark(function):
        for name in names:
            function = pytest.mark.requirement(f"IPv6-Ready {name}: {what}")(function)
        return function

    return mark


class Tester:
    """A mobile node with a home address of its own; `away` and `home` send and hear at the two places."""

    __test__ = False  # whatever its name

    def __init__(self, network, correspondent: str = CORRESPONDENT) -> None:
        self.correspondent = correspondent
        self.home_address = str(IPv6Address(HOME_ADDRESS) + next(_homes))
        network.hn.shell(f"ip -6 addr add {self.home_address}/64 dev eth0 nodad")
        self.care_of_address = network.address("mn-wlan", "2001:db8:201:")
        self.other_address = network.address("mn-cellular", "2001:db8:202:")
        self.away = Signaller(network.mn, "mn-wlan", self.care_of_address)
        self.elsewhere = Signaller(network.mn, "mn-cellular", self.other_address)
        self.home = Signaller(network.hn, "eth0", self.home_address)
        self.sequence = 0
        self.home_index = self.care_of_index = 0
        self.home_token = self.care_of_token = b""

    def close(self) -> None:
        for signaller in (self.away, self.elsewhere, self.home):
            signaller.close()

    def test_init(self, kind: int, *options, cookie: bytes | None = None, **changes) -> tuple[bytes, bytes]:
        """A Home or Care-of Test Init (Mobility Header), and its cookie."""
        cookie = cookie or struct.pack("!Q", next(_cookies))
        return mobility_header(kind, with_options(bytes(2) + cookie, *options), **changes), cookie

    def home_test(self, header: bytes | None = None) -> Packet | None:
        """Send a Home Test Init; the Home Test with its cookie."""
        made, cookie = self.test_init(HOTI)
        self.home.send(ipv6_packet(self.home_address, self.correspondent, header or made))
        return self.test_answer(self.home, HOT, cookie if header is None else header[8:16])

    def care_of_test(self, signaller: Signaller | None = None) -> Packet:
        made, cookie = self.test_init(COTI)
        signaller = signaller or self.away
        signaller.send(ipv6_packet(signaller.address, self.correspondent, made))
        return self.test_answer(signaller, COT, cookie)

    def test_answer(self, signaller: Signaller, kind: int, cookie: bytes) -> Packet:
        def found():
            return [
                packet
                for packet in self.of_type(signaller, kind)
                if packet.mobility_header[8:16] == cookie
            ]

        return wait_for(found)[0]

    def authorise(self, signaller: Signaller | None = None) -> None:
        """The whole procedure (RFC 6275 §5.2.5)."""
        home, care_of = self.home_test().message, self.care_of_test(signaller).message
        self.home_index, self.home_token = home.home_nonce_index, home.home_keygen_token
        self.care_of_index, self.care_of_token = care_of.care_of_nonce_index, care_of.care_of_keygen_token

    def update(
        self, *options, lifetime: int = 30, flags: int = 0x8000, sequence: int | None = None,
        care_of_address: str | None = None, source: str | None = None, home_address: str | None = "",
        deletes: bool = False, indices: tuple[int, int] | None = (-1, -1), tokens: tuple = (None, None),
        proof: bool = True, change=None, **header_changes,
    ) -> bytes:  # fmt: skip
        """A Binding Update with authenticator as a whole packet. `care_of_address` is what it is computed
        over (the home address where bindings are deleted), `lifetime` is in units of four seconds."""
        if sequence is None:
            sequence = self.sequence = (self.sequence + 1) % 65536
        source = source or self.care_of_address
        data = struct.pack("!HHH", sequence, flags, lifetime)
        if indices is not None:
            home = self.home_index if indices[0] == -1 else indices[0]
            care_of = self.care_of_index if indices[1] == -1 else indices[1]
            options = (*options, (4, 2, 0, struct.pack("!HH", home, care_of)))
        if proof:
            options = (*options, (5, 8, 2, bytes(12)))
        header = mobility_header(BU, with_options(data, *options), **header_changes)
        if change is not None:
            header = change(header)
        if proof:
            covered = self.home_address if deletes else care_of_address or source
            header = header[:-12] + self.authenticator(header[:-12], covered, deletes, tokens)
        home = self.home_address if home_address == "" else home_address
        return ipv6_packet(source, self.correspondent, header, home)

    def authenticator(self, header: bytes, covered: str, deletes: bool = False, tokens=(None, None)) -> bytes:
        """RFC 6275 §6.2.7; `header` is what is before the authenticator."""
        home, care_of = tokens[0] or self.home_token, tokens[1] or self.care_of_token
        key = hashlib.sha1(home if deletes else home + care_of).digest()
        addresses = IPv6Address(covered).packed + IPv6Address(self.correspondent).packed
        data = addresses + header[:4] + b"\0\0" + header[6:]
        return hmac.new(key, data, hashlib.sha1).digest()[:12]

    def register(self, **keywords) -> Packet:
        """Tests and a first Binding Update; its acknowledgement."""
        self.authorise()
        self.away.send(self.update(**keywords))
        (answer,) = self.acknowledgements()
        assert answer.message.status == 0
        return answer

    @staticmethod
    def of_type(signaller: Signaller, kind: int) -> list[Packet]:
        return [packet for packet in signaller.messages() if packet.message.mh_type == kind]

    def acknowledgements(self, signaller: Signaller | None = None) -> list[Packet]:
        """The Binding Acknowledgements that have come in since the last call, once there is one."""
        signaller = signaller or self.away

        def found():
            to_us = ((p.routing_address or p.destination, p) for p in self.of_type(signaller, BA))
            return [packet for address, packet in to_us if str(address) == self.home_address]

        answers = wait_for(found)
        signaller.forget()
        return answers

    def is_authentic(self, answer: Packet, covered: str, deletes: bool = False) -> bool:
        header = answer.mobility_header
        return header[-14:-12] == b"\5\x0c" and header[-12:] == self.authenticator(
            header[:-12], covered, deletes
        )

    def bound(self, source: str | None = None) -> str | None:
        """Where an Echo Request with a Home Address option from `source` is answered to, by a type 2 routing
        header; None if the answer is a Binding Error, status 1, for want of a binding."""
        source = source or self.care_of_address
        signaller = self.elsewhere if source == self.other_address else self.away
        signaller.forget()
        signaller.send(self.echo(source, self.home_address))

        def answered():
            errors = [p for p in self.of_type(signaller, BE) if p.message.status == 1]
            replies = [data for data in signaller.heard() if data[6] == 43 and data[40] == 58]
            return errors or replies

        answer = wait_for(answered)[0]
        signaller.forget()
        if isinstance(answer, Packet):
            assert str(answer.message.home_address) == self.home_address
            assert answer.destination == IPv6Address(source) and answer.routing_address is None
            return None
        assert answer[64] == 129 and str(IPv6Address(answer[48:64])) == self.home_address
        return str(IPv6Address(answer[24:40]))

    def echo(self, source: str, home_address: str | None, destination: str | None = None) -> bytes:
        """An Echo Request, with a Home Address option where there is a home address."""
        destination = destination or self.correspondent
        message = struct.pack("!BBHHH", 128, 0, 0, 1, next(_cookies) & 0xFFFF) + b"what for"
        pseudo = IPv6Address(home_address or source).packed + IPv6Address(destination).packed
        data = pseudo + struct.pack("!II", len(message), 58) + message
        total = sum(struct.unpack(f"!{len(data) // 2}H", data))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        message = message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]
        if home_address is None:
            return ipv6(source, destination, 58, message)
        option = bytes((58, 2, 1, 2, 0, 0, 0xC9, 16)) + IPv6Address(home_address).packed
        return ipv6(source, destination, 60, option + message)
