"""What plays the tester of the IPv6 Ready cases for mobile nodes: the nodes that these talk to.

Classes: `HomeAgent`, `Correspondent`. Functions: `answers`, `registered`, `icmp_error`. What they send is
made octet by octet.
"""

import hashlib
import hmac
import itertools
import struct
from ipaddress import IPv6Address

from agent_network import CORRESPONDENT, HOME_ADDRESS, HOME_AGENT
from datapath_network import Capture, ipv6, send_raw, wait_for
from observations import registered
from signalling import (
    BA,
    BE,
    BU,
    COT,
    COTI,
    HOT,
    HOTI,
    Signaller,
    ipv6_packet,
    mobility_header,
    sign,
    with_options,
)

from testbed.wire.checksum import checksum
from testbed.wire.codec import Codec
from testbed.wire.error import ParseError
from testbed.wire.flow import FlowIdentification
from testbed.wire.option import BindingIdentifier, MessageIdentifier
from testbed.wire.packet import Packet, parse_packet

HA = IPv6Address(HOME_AGENT).packed
_identifiers = itertools.count(1)


class HomeAgent:
    """Hears what the mobile node sends to its home agent, and answers as it is told."""

    def __init__(self, network, interface: str = "core") -> None:
        self.node = network.ha
        self._capture = Capture(network.ha, interface)
        self.heard = []
        self._table = f"tester_{interface}"
        self.node.shell(
            f"nft add table ip6 {self._table}; nft add chain ip6 {self._table} in "
            "{ type filter hook input priority -300 \\; }; "
            # or this kernel says that it does not know this header
            f"nft add rule ip6 {self._table} in meta l4proto 135 drop"
        )

    def read(self):
        self.heard += [(when, data) for when, data in self._capture.stamped() if data[24:32] == HA[:8]]
        return self.heard

    def messages(self, kind: int) -> list[tuple[float, Packet]]:
        """The messages of this MH type, and when they came."""
        return [(when, p) for when, p in self._packets() if getattr(p.message, "mh_type", None) == kind]

    def icmp(self, kind: int) -> list[tuple[float, Packet]]:
        """The ICMPv6 messages of Mobile IPv6 of this type, and when they came."""
        return [(when, p) for when, p in self._packets() if getattr(p.message, "icmp_type", None) == kind]

    def _packets(self) -> list[tuple[float, Packet]]:
        found = []
        for when, data in self.read():
            try:
                found.append((when, parse_packet(data, Codec())))
            except ParseError:
                continue
        return found

    def next_icmp(self, kind: int, after: int = 0) -> Packet:
        return wait_for(lambda: self.icmp(kind)[after:])[0][1]

    def discovery_reply(self, request: Packet, reserved: int = 0) -> bytes:
        """A Home Agent Address Discovery Reply with this home agent alone."""
        data = struct.pack("!HH", request.message.identifier, reserved) + HA
        return _icmp(145, data, str(request.source))

    def prefix_advertisement(
        self, solicitation: Packet, valid_s: int = 3600, reserved: int = 0, options: bytes = b""
    ) -> bytes:
        """A Mobile Prefix Advertisement of the home prefix; `options` come before that."""
        prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, valid_s, valid_s, 0) + HA[:8] + bytes(8)
        data = struct.pack("!HH", solicitation.message.identifier, reserved) + options + prefix
        return _icmp(147, data, str(solicitation.source), HOME_ADDRESS)

    def octets(self, packet: Packet) -> bytes:
        """A message that has come in, as it came."""
        return next(data for _, data in self.read() if data.endswith(packet.mobility_header))

    def updates(self):
        return [packet for _, packet in self.messages(BU)]

    def next_update(self, after=0):
        """The Binding Update that comes after the first `after` ones."""
        return wait_for(lambda: self.updates()[after:])[0]

    def acknowledgement(
        self, update, status=0, sequence=None, lifetime=15, options=None, authentic=True, before=()
    ):  # fmt: skip
        """The acknowledgement of an update, a whole packet; its options come back unless others are given,
        after those of `before`."""
        number = update.message.sequence if sequence is None else sequence
        data = struct.pack("!BBHH", status, 0, number, lifetime)
        if options is None:
            options = (*before, *answers(update))
        stamp = update.message.option(MessageIdentifier).timestamp
        care_of_address = str(update.source)
        if authentic:
            made = sign(BA, with_options(data, *options), care_of_address, timestamp=stamp)
        else:
            made = mobility_header(BA, with_options(data, *options))
        routing_address = None if care_of_address == HOME_ADDRESS else HOME_ADDRESS
        return ipv6_packet(HOME_AGENT, care_of_address, made, routing_address=routing_address)

    def send(self, *packets):
        for data in packets:
            send_raw(self.node, data)

    def accept_all(self, mn, **changes):
        """Answer until the mobile node is content; how many Binding Updates that took."""
        answered = []

        def reply(update):
            answered.append(update)
            return self.acknowledgement(update, **changes)

        self.until(lambda: registered(mn), reply)
        return len(answered)

    def until(self, condition, reply, after=0):
        """Answer each Binding Update after the first `after` ones until the condition is true; its value. The
        first one alone will not do: on a slow machine there is another before it is answered, and only an
        answer to the last one counts."""
        answered = after

        def met():
            nonlocal answered
            for update in self.updates()[answered:]:
                answered += 1
                self.send(reply(update))
            return condition()

        return wait_for(met)

    def close(self):
        self.node.shell(f"nft delete table ip6 {self._table}")
        self._capture.close()


def answers(update):
    """Binding Identifier and flow options of an acknowledgement: all is well."""
    found = []
    for option in update.message.options:
        if isinstance(option, BindingIdentifier):
            found.append((35, 2, 0, struct.pack("!HBB", option.bid, 0, option.priority)))
        elif isinstance(option, FlowIdentification):
            fixed = struct.pack("!BHBBB", option.priority, option.fid, option.action, 0, int(option.pro) << 4)
            found.append((18, 2, 0, fixed))
    return found


def _icmp(kind: int, data: bytes, destination: str, routing_address: str | None = None) -> bytes:
    """A packet of the home agent's; the checksum is over the home address where there is a routing header."""
    final = IPv6Address(routing_address or destination)
    message = struct.pack("!BBH", kind, 0, 0) + data
    message = message[:2] + checksum(message, IPv6Address(HOME_AGENT), final, 58).to_bytes(2, "big") + data
    if routing_address is None:
        return ipv6(HOME_AGENT, destination, 58, message)
    routing = bytes((58, 2, 2, 1, 0, 0, 0, 0)) + final.packed
    return ipv6(HOME_AGENT, destination, 43, routing + message)


def icmp_error(kind: int, code: int, packet: bytes, pointer: int = 0, source: str = CORRESPONDENT) -> bytes:
    """An ICMPv6 error about a packet, to its source."""
    message = struct.pack("!BBHI", kind, code, 0, pointer) + packet[:1232]
    destination = IPv6Address(packet[8:24])
    total = checksum(message, IPv6Address(source), destination, 58)
    return ipv6(source, destination, 58, message[:2] + total.to_bytes(2, "big") + message[4:])


class Correspondent:
    """A node in whose namespace no agent runs. `replies`: what is sent for a message of each kind, a function
    of the message that returns a packet, or None for silence; at first what a correspondent node answers."""

    HOME_TOKEN, CARE_OF_TOKEN = b"home tok", b"care tok"

    def __init__(self, network) -> None:
        self.node = network.cn
        self._signaller = Signaller(network.cn, "eth0", CORRESPONDENT)
        self.replies = {HOTI: self.home_test, COTI: self.care_of_test, BU: self.acknowledgement}
        self._taken = 0
        self.node.shell(
            "nft add table ip6 tester; nft add chain ip6 tester in "
            "{ type filter hook prerouting priority -300 \\; }; "
            # or this kernel says that it does not know these headers
            "nft add rule ip6 tester in meta l4proto 135 drop; "
            "nft add rule ip6 tester in exthdr dst exists drop"
        )

    def close(self) -> None:
        self.node.shell("nft delete table ip6 tester")
        self._signaller.close()

    def messages(self, kind: int) -> list:
        return [packet for packet in self._signaller.messages() if packet.message.mh_type == kind]

    def serve(self) -> None:
        """Answer what has come in since the last call."""
        messages = self._signaller.messages()
        for packet in messages[self._taken :]:
            reply = self.replies.get(packet.message.mh_type)
            if reply is not None:
                self.send(reply(packet))
        self._taken = len(messages)

    def until(self, condition, seconds: float = 30.0):
        """Serve until the condition is true; its value."""

        def met():
            self.serve()
            return condition()

        return wait_for(met, seconds)

    def next(self, kind: int, after: int = 0, seconds: float = 30.0):
        """The message of this kind that comes after the first `after` ones."""
        return self.until(lambda: self.messages(kind)[after:], seconds)[0]

    def send(self, *packets: bytes) -> None:
        self._signaller.send(*packets)

    def home_test(self, init, reserved: int = 0, cookie: bytes | None = None) -> bytes:
        cookie = cookie or init.mobility_header[8:16]
        header = mobility_header(HOT, struct.pack("!H", 1) + cookie + self.HOME_TOKEN)
        return ipv6_packet(CORRESPONDENT, str(init.source), _with_reserved(header, reserved))

    def care_of_test(self, init, reserved: int = 0, source: str = CORRESPONDENT) -> bytes:
        data = struct.pack("!H", 1) + init.mobility_header[8:16] + self.CARE_OF_TOKEN
        header = mobility_header(COT, data)
        return ipv6_packet(source, str(init.source), _with_reserved(header, reserved))

    def acknowledgement(
        self, update, status: int = 0, sequence: int | None = None, lifetime: int | None = None,
        reserved: int = 0, before: tuple = (), after: tuple = (),
    ) -> bytes:  # fmt: skip
        """The acknowledgement of a Binding Update. `lifetime` is in units of four seconds, that of the update
        by default; `before` and `after`: options around the Binding Authorization Data."""
        message = update.message
        number = message.sequence if sequence is None else sequence
        granted = message.lifetime_s // 4 if lifetime is None else lifetime
        options = (*answers(update), *before)
        data = with_options(struct.pack("!BBHH", status, 0, number, granted), *options, (5, 8, 2, bytes(12)))
        end = len(data) + 6
        header = _with_reserved(mobility_header(BA, with_options(data, *after)), reserved)
        tokens = self.HOME_TOKEN + (self.CARE_OF_TOKEN if message.lifetime_s else b"")
        covered = update.source if message.lifetime_s else IPv6Address(HOME_ADDRESS)
        addresses = covered.packed + IPv6Address(CORRESPONDENT).packed
        signed = addresses + header[:4] + b"\0\0" + header[6 : end - 12] + header[end:]
        proof = hmac.new(hashlib.sha1(tokens).digest(), signed, hashlib.sha1).digest()[:12]
        header = header[: end - 12] + proof + header[end:]
        return ipv6_packet(CORRESPONDENT, str(update.source), header, routing_address=HOME_ADDRESS)

    def binding_error(self, status: int, destination) -> bytes:
        data = bytes((status, 0)) + IPv6Address(HOME_ADDRESS).packed
        return ipv6_packet(CORRESPONDENT, str(destination), mobility_header(BE, data))

    def octets(self, packet: Packet) -> bytes:
        """A message that has come in, as it came."""
        came = (data for data in self._signaller.heard() if data[8:24] == packet.source.packed)
        return next(data for data in came if data.endswith(packet.mobility_header))

    def echo(self, destination: str = HOME_ADDRESS, routing: bytes | None = None) -> int:
        """Send an Echo Request; its number. `routing`: a routing header without its first octet."""
        number, packet = self.echo_request(destination, routing)
        self.send(packet)
        return number

    @staticmethod
    def echo_request(destination: str = HOME_ADDRESS, routing: bytes | None = None) -> tuple[int, bytes]:
        """The same, to be sent otherwise: number and packet."""
        number = next(_identifiers)
        message = struct.pack("!BBHHH", 128, 0, 0, 1, number) + b"what for"
        final = destination if routing is None else HOME_ADDRESS
        total = checksum(message, IPv6Address(CORRESPONDENT), IPv6Address(final), 58)
        message = message[:2] + total.to_bytes(2, "big") + message[4:]
        payload, kind = (message, 58) if routing is None else (bytes((58,)) + routing + message, 43)
        return number, ipv6(CORRESPONDENT, destination, kind, payload)

    def echo_replies(self) -> dict[int, tuple[str, str | None, bytes]]:
        """Number -> source, the home address of a Home Address option, the packet."""
        found = {}
        for data in self._signaller.heard():
            kind, message, home = data[6], data[40:], None
            if kind == 60 and data[46] == 0xC9:
                kind, message, home = data[40], data[64:], str(IPv6Address(data[48:64]))
            if kind == 58 and message[0] == 129:
                found[int.from_bytes(message[6:8], "big")] = str(IPv6Address(data[8:24])), home, data
        return found

    def way(self) -> str:
        """Which way the mobile node's packets take: "straight" or "tunnel"."""
        number = self.echo()
        source, home, _ = self.until(lambda: self.echo_replies().get(number))
        assert (home or source) == HOME_ADDRESS
        return "tunnel" if home is None else "straight"


def _with_reserved(header: bytes, reserved: int) -> bytes:
    return header[:3] + bytes((reserved,)) + header[4:]
