"""The home agent's link-layer address, for a mobile node that returns home (RFC 6275 §11.5.5).

Class: `HomeAgentLookup`.
"""

from collections.abc import Callable
from functools import partial
from ipaddress import IPv6Address

from testbed.agent.duplicate_address import DuplicateAddressDetection
from testbed.wire.router_advertisement import PrefixInformation, RouterAdvertisement, SourceLinkLayerAddress


class HomeAgentLookup:
    """Hears it in Router Advertisements; where none has told it, solicits the home address itself, without a
    source address: the home agent, which defends the home address, answers. A question from the home address
    would draw away what is sent to it."""

    def __init__(self, home_address: IPv6Address) -> None:
        self._home_address = home_address
        #: By interface; `_outdated`: the link may be another one by now.
        self._known: dict[str, bytes] = {}
        self._outdated: set[str] = set()
        self._asking: dict[str, tuple[DuplicateAddressDetection, list[Callable[[bytes | None], None]]]] = {}

    def heard(self, interface: str, message: RouterAdvertisement, home_agent: IPv6Address) -> None:
        """RFC 6275 §11.5.5: of several home agents on the link, take the link-layer address of `home_agent`
        if it says that it is that one (R bit, §7.2), else that of the first."""
        option = message.option(SourceLinkLayerAddress)
        if option is None or not message.home_agent:
            return
        prefixes = message.all_options(PrefixInformation)
        named = [prefix.address for prefix in prefixes if prefix.router_address]
        if home_agent in named or interface not in self._known or interface in self._outdated:
            self._known[interface] = option.address[:6]
            self._outdated.discard(interface)

    def link_changed(self, interface: str) -> None:
        """The next home agent that is heard is believed."""
        self._outdated.add(interface)

    def known(self, interface: str) -> bytes | None:
        """The link-layer address on an interface, None where it has to be asked for."""
        return self._known.get(interface)

    def ask(self, interface: str, found: Callable[[bytes | None], None]) -> None:
        """Call `found` with the link-layer address, None if nobody has answered within a second. Raises
        OSError."""
        if interface in self._asking:
            self._asking[interface][1].append(found)
            return
        detection = DuplicateAddressDetection(interface)
        detection.probe(self._home_address, partial(self._answered, interface))
        self._asking[interface] = detection, [found]

    def close(self) -> None:
        """Stop waiting; nobody is told."""
        for detection, _ in self._asking.values():
            detection.close()
        self._asking.clear()

    def _answered(self, interface: str, unique: bool) -> None:
        detection, waiting = self._asking.pop(interface)
        hardware = None if unique else detection.claimants.get(self._home_address)
        if hardware is not None:
            self._known[interface] = hardware
        for found in waiting:
            found(hardware)
