"""The messages between a mobile node and one that binds its home address, on their way.

Class: `Signalling`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv6Address

from testbed.mobility.attachments import Attachments
from testbed.mobility.authentication import IpsecSigner, Signer
from testbed.mobility.registration import Registration
from testbed.wire.message import BindingUpdate
from testbed.wire.option import BindingIdentifier, LinkLayerAddress
from testbed.wire.packet import Packet


class Signalling:
    """How Binding Updates of a home address leave, and which acknowledgements are believed (RFC 6275 §11.7).

    `home_address`: where the receiver is a mobility anchor point, a regional care-of address.
    `signer` None: messages are not authenticated by an option. `send(packet, interface)` sends.
    `link_layer_address`: of one of our interfaces; empty if it has none.
    """

    def __init__(
        self,
        home_address: IPv6Address,
        signer: Signer | IpsecSigner | None,
        attachments: Attachments,
        send: Callable[..., None],
        link_layer_address: Callable[[str], bytes] = lambda interface: b"",
    ) -> None:
        self.home_address = home_address
        self._link_layer_address = link_layer_address
        self._signer = signer
        self._attachments = attachments
        self._send = send

    def from_abroad(
        self, update: BindingUpdate, peer: IPv6Address, care_of_addresses: Sequence[IPv6Address], now: float
    ) -> IPv6Address | None:
        """Send from the first of these addresses that is attached (the home address among them, where the
        home link is one way of several); from the most preferred one where none is named. Returns the
        address, None if there is none."""
        named = care_of_addresses or [at.care_of_address for at in self._attachments.usable()]
        at = self._attachments.first_of(named)
        if at is None:
            return None
        self.send(update, peer, at.care_of_address, now, interface=at.interface.name)
        return at.care_of_address

    def from_home(self, update: BindingUpdate, peer: IPv6Address, now: float) -> IPv6Address:
        """Send on the home link (RFC 6275 §11.5.5)."""
        self.send(update, peer, self.home_address, now, interface=self._attachments.home_interface)
        return self.home_address

    def send(
        self,
        update: BindingUpdate,
        peer: IPv6Address,
        source: IPv6Address,
        now: float,
        interface: str | None = None,
        after_datapath: bool = False,
    ) -> None:
        """Send from this address, with the Home Address option where it is another one."""
        update = self._with_link_layer_address(update, source)
        if self._signer is not None:
            update = self._signer.sign(update, source, self.home_address, now)
        option = self.home_address if source != self.home_address else None
        self._send(Packet(source, peer, update, home_address=option), interface, after_datapath)

    def _with_link_layer_address(self, update: BindingUpdate, source: IPv6Address) -> BindingUpdate:
        """RFC 5648 §5.6.3: at home, the home agent is told where to send the answer, and all that follows."""
        at_home = source == self.home_address or any(o.home for o in update.all_options(BindingIdentifier))
        interface = self._attachments.home_interface
        address = self._link_layer_address(interface) if at_home and interface is not None else b""
        if not address:
            return update
        option = LinkLayerAddress(LinkLayerAddress.OF_MOBILE_NODE, address)
        return replace(update, options=(*update.options, option))

    def objection(self, packet: Packet, registration: Registration, now: float) -> str | None:
        """Why a Binding Acknowledgement is not to be believed, None if it is: it must come to the home
        address (RFC 6275 §9.5.4), and be authentic (RFC 4285 §5.1.1)."""
        if not self._is_at_home_address(packet):
            return f"no type 2 routing header with {self.home_address} (RFC 6275 §9.5.4)"
        if self._signer is None:
            return None
        reason = self._signer.check(packet, self.home_address)
        if reason is None and registration.awaits(packet.message):
            self._signer.learn_time(packet.message, now)
        return reason

    def _is_at_home_address(self, packet: Packet) -> bool:
        """By a type 2 routing header; without one where the node is at home."""
        at_home = self._attachments.home_interface is not None
        if at_home and packet.destination == self.home_address:
            return packet.routing_address is None
        return packet.routing_address == self.home_address
