"""The home agent's link-layer address, for a mobile node that returns home (RFC 6275 §11.5.5).

Class: `HomeAgentLookup`.
"""

from collections.abc import Callable
from functools import partial
from ipaddress import IPv6Address

from testbed.agent.duplicate_address import DuplicateAddressDetection


class HomeAgentLookup:
    """Solicits the home address itself, without a source address, where no Router Advertisement has told the
    home agent's link-layer address: the home agent, which defends the home address, answers. A question from
    the home address would draw away what is sent to it."""

    def __init__(self, home_address: IPv6Address) -> None:
        self._home_address = home_address
        self._asking: dict[str, tuple[DuplicateAddressDetection, list[Callable[[bytes | None], None]]]] = {}

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
        for found in waiting:
            found(hardware)
