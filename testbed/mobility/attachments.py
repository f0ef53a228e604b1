"""Where a mobile node is attached: the care-of address of each interface, and which is on the home link.

Classes: `Attachment`, `Attachments`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv6Address

from testbed.mobility.binding import NO_BID
from testbed.mobility.forwarding import OnLink, Path
from testbed.mobility.mobile_node_configuration import InterfaceConfiguration, MobileNodeConfiguration
from testbed.mobility.registration import Registration
from testbed.wire.message import Status


@dataclass(frozen=True, slots=True)
class Attachment:
    """An interface, its care-of address, and the link-local address of its access router."""

    interface: InterfaceConfiguration
    care_of_address: IPv6Address
    gateway: IPv6Address | None


class Attachments:
    """The interfaces that can be used, and what follows from that for BIDs and tunnels.

    `home_interface`: the name of the interface that is on the home link, None if there is none. The node is
    at home where its home prefix is on-link (RFC 6275 §11.5.5). `simultaneous`: whether the home link is one
    way of several (RFC 5648 §5.6), with the home address as its care-of address. `note` takes events.
    """

    def __init__(self, configuration: MobileNodeConfiguration, note: Callable[..., None]) -> None:
        self.home_interface: str | None = None
        self.simultaneous = False
        self._home_address = configuration.home_address
        self._interfaces = configuration.interfaces
        self._home_prefix = configuration.home_link_prefix
        self._each = configuration.flow_updates == "each"
        self._single = not configuration.multiple_care_of_addresses
        self._chosen: str | None = None
        self._note = note
        self._attached: dict[str, Attachment] = {}
        self._seen: set[int] = set()

    def attach(
        self, interface: InterfaceConfiguration, point: tuple[IPv6Address, IPv6Address | None] | None
    ) -> bool:
        """What is new of an interface: care-of address and access router, None if there are none. Returns
        whether that is a change."""
        before = self._attached.get(interface.name)
        after = None if point is None else Attachment(interface, *point)
        if after == before:
            return False
        if after is None:
            del self._attached[interface.name]
            lost = str(before.care_of_address)
            self._note("care-of-address-lost", interface=interface.name, care_of_address=lost)
        else:
            self._attached[interface.name] = after
            self._seen.add(interface.bid)
            gained = str(after.care_of_address)
            self._note("care-of-address-gained", interface=interface.name, care_of_address=gained)
        return True

    def prefer(self, interface: str | None) -> None:
        """Prefer this interface to what its priority says; None: none."""
        self._chosen = interface

    def look_for_home(self) -> bool:
        """After changes: bring `home_interface` up to date. Returns whether the home link was gained or lost,
        rather than found at another interface."""
        before = self.home_interface
        at_home = [a for a in self._attached.values() if a.care_of_address in self._home_prefix]
        if any(attachment.interface.name == before for attachment in at_home):
            return False
        at_home.sort(key=lambda attachment: attachment.interface.priority)
        self.home_interface = at_home[0].interface.name if at_home else None
        if before is None and self.home_interface is not None:
            self._note("home-link-gained", interface=self.home_interface)
        elif before is not None and self.home_interface is None:
            self._note("home-link-lost", interface=before)
        return (before is None) != (self.home_interface is None)

    def away(self) -> list[Attachment]:
        """Where the node is attached away from home, the most preferred first."""
        away = [a for a in self._attached.values() if a.care_of_address not in self._home_prefix]
        return sorted(away, key=self._preference)

    def home(self) -> Attachment | None:
        """The home link as one way of several, None where it is not."""
        if not self.simultaneous or self.home_interface is None:
            return None
        return replace(self._attached[self.home_interface], care_of_address=self._home_address)

    def usable(self) -> list[Attachment]:
        """All the ways there are, the most preferred first."""
        home = self.home()
        return self.away() if home is None else sorted([*self.away(), home], key=self._preference)

    def _preference(self, attachment: Attachment) -> tuple[bool, int, int]:
        interface = attachment.interface
        return interface.name != self._chosen, interface.priority, interface.bid

    def preferred_address(self) -> IPv6Address | None:
        """The most preferred care-of address, None while there is none."""
        return next((attachment.care_of_address for attachment in self.away()), None)

    def first_of(self, care_of_addresses: Iterable[IPv6Address]) -> Attachment | None:
        """The attachment that has the first of these addresses that any has."""
        usable = self.usable()
        found = (at for address in care_of_addresses for at in usable if at.care_of_address == address)
        return next(found, None)

    def bind(self, registration: Registration) -> None:
        """Want every BID at the care-of address of its own interface, else at the most preferred one; nowhere
        where each flow moves by itself. Where there is only one binding, that at the most preferred one."""
        away = self.away()  # there is only one home binding, which nothing else can be bound to
        if self._single or not registration.takes_bids:
            return registration.bind(NO_BID, 0, away[0].care_of_address if away else None)
        substitute = away[0] if away and not self._each else None
        for interface in self._interfaces:
            own = next((a for a in self.usable() if a.interface == interface), None)
            at = own or (substitute if interface.bid in self._seen else None)
            registration.bind(interface.bid, interface.priority, at.care_of_address if at else None)
        registration.removes_bids = self._each or self.home() is not None

    def paths(self, registration: Registration) -> tuple[tuple[Path, ...], int | None]:
        """The path of each BID that `registration` has had acknowledged, and the default BID."""
        acknowledged = {b.registered for b in registration.bindings.values() if b.registered}
        usable = [a for a in self.usable() if a.care_of_address in acknowledged]
        paths = {}
        for bid, binding in registration.bindings.items():
            own = [a for a in usable if a.care_of_address == binding.registered]
            if binding.registered and usable:
                at = (own or usable)[0]
                paths[bid] = Path(
                    bid,
                    at.care_of_address,
                    registration.peer,
                    at.interface.name,
                    at.gateway,
                    on_link=self._on_link(registration) if at == self.home() else None,
                )
        default = min(paths, key=lambda bid: (registration.bindings[bid].priority or 128, bid), default=None)
        return tuple(path for _, path in sorted(paths.items())), default

    def _on_link(self, registration: Registration) -> OnLink:
        permitted = self.may_defend(registration)
        return OnLink(permitted, prefix=self._home_prefix if permitted else None)

    def may_defend(self, registration: Registration) -> bool:
        """Whether the home agent lets the node answer for its home address at home (RFC 5648 §5.6.4)."""
        return any(
            binding.registered == self._home_address and binding.status != Status.MCOA_RETURNHOME_WO_NDP
            for binding in registration.bindings.values()
        )
