"""A mobile node's hand, for tests of a correspondent node. Class: `Peer`. Function: `add`."""

from ipaddress import IPv6Address

from testbed.mobility.correspondent_node import (
    ANY_OF_OURS,
    CorrespondentNode,
    CorrespondentNodeConfiguration,
)
from testbed.mobility.return_routability import authorised, binding_management_key, is_authorised
from testbed.wire.codec import Codec
from testbed.wire.flow import FlowIdentification
from testbed.wire.message import BindingUpdate, CareOfTestInit, HomeTestInit
from testbed.wire.option import BindingIdentifier, NonceIndices
from testbed.wire.packet import Packet, build_packet, parse_packet
from testbed.wire.selector import IPv6TrafficSelector

HOME = IPv6Address("2001:db8:100::100")
WLAN, CELLULAR = IPv6Address("2001:db8:201::a"), IPv6Address("2001:db8:202::a")
CN = IPv6Address("2001:db8:300::2")
SSH = IPv6TrafficSelector(source_port=(22, 22), next_header=(6, 6))


def add(fid=1, bids=(1,), **fields):
    """The fields of a flow option that adds a binding."""
    return {"fid": fid, "priority": 10, "binding_reference": bids, "selector": SSH} | fields


class Peer:
    """A mobile node's hand: makes right messages, and through `options` wrong ones."""

    def __init__(self, **configuration):
        self.now = 1000.0
        self.sequence = 0
        self.node = CorrespondentNode(CorrespondentNodeConfiguration(**configuration), self.now)
        self.codec = Codec(self.node.configuration.dialect)

    def ask(self, packet):
        """Let the node have a packet as octets; its answer, None for silence."""
        self.node.receive(parse_packet(build_packet(packet, self.codec), self.codec), "eth0", self.now)
        sent = [transmission.packet for transmission in self.node.transmissions()]
        assert len(sent) <= 1
        return parse_packet(build_packet(sent[0], self.codec), self.codec) if sent else None

    def test_home(self, home=HOME):
        return self.ask(Packet(home, CN, HomeTestInit(b"12345678"))).message

    def test_care_of(self, address):
        return self.ask(Packet(address, CN, CareOfTestInit(b"abcdefgh"))).message

    def update(self, care_of=WLAN, lifetime_s=400, options=(), bid=1, home=HOME, **fields):
        """A right Binding Update as a packet, and its key."""
        home_test = self.test_home(home)
        self.sequence += 1
        identifiers = (BindingIdentifier(bid, priority=10 * bid, care_of_address=care_of),) if bid else ()
        index, token, proven = 0, b"", home
        if lifetime_s:
            care_of_test = self.test_care_of(care_of)
            index, token = care_of_test.care_of_nonce_index, care_of_test.care_of_keygen_token
            proven = care_of
        key = binding_management_key(home_test.home_keygen_token, token)
        indices = NonceIndices(home_test.home_nonce_index, index)
        fields = {"sequence": self.sequence, "acknowledge": True} | fields
        update = BindingUpdate(lifetime_s=lifetime_s, options=(*identifiers, *options, indices), **fields)
        update = authorised(update, key, proven, CN, self.codec)
        return Packet(care_of, CN, update, home_address=home), key, proven

    def register(self, *arguments, **keywords):
        """Send one; the acknowledgement, which must be authentic."""
        packet, key, proven = self.update(*arguments, **keywords)
        answer = self.ask(packet)
        assert is_authorised(answer, key, proven, CN)
        assert (answer.source, answer.destination, answer.routing_address) == (CN, packet.source, HOME)
        return answer.message

    def flow(self, *arguments, care_of=WLAN, bid=1, **keywords):
        """Ask for one flow operation; its status in the acknowledgement."""
        option = FlowIdentification(*arguments, **keywords)
        answer = self.register(care_of, bid=bid, options=(option,))
        (found,) = answer.all_options(FlowIdentification)
        assert (found.fid, found.priority, found.action, found.pro) == (
            option.fid,
            option.priority,
            option.action,
            option.pro,
        )
        return found.status

    @property
    def bindings(self):
        entry = self.node.cache.get(HOME)
        return {b.bid: b.care_of_address for b in entry.bindings.values()} if entry else {}

    @property
    def rules(self):
        wanted = self.node.optimisations().get((HOME, ANY_OF_OURS))
        return {rule.fid: rule for rule in wanted.rules} if wanted else {}
