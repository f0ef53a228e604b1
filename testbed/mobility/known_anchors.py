"""The mobility anchor points that routers advertise, and which of them to use (RFC 5380 §7.1, §9, §10).

Class: `KnownAnchors`.
"""

from collections.abc import Collection, Iterable
from ipaddress import IPv6Address

from testbed.wire.router_advertisement import INFINITE_S, MobilityAnchorPoint

#: How long an anchor point is left alone that does not answer, or does not serve us, in seconds.
LEFT_ALONE_S = 60.0


class KnownAnchors:
    """MAP options by interface, as last heard there, and the anchor points that have not served us."""

    def __init__(self) -> None:
        #: Options with the times when they were heard; an interface without an entry has heard nothing yet.
        self._heard: dict[str, dict[IPv6Address, tuple[MobilityAnchorPoint, float]]] = {}
        self._left_alone: dict[IPv6Address, float] = {}

    def heard(self, interface: str, options: Iterable[MobilityAnchorPoint], now: float) -> bool:
        """A Router Advertisement has these options, or none; returns whether that is news."""
        known = {option.address: (option, now) for option in options}
        before = self._heard.get(interface)
        self._heard[interface] = known
        if before is None or before.keys() != known.keys():
            return True
        return any(before[address][0] != option for address, (option, _) in known.items())

    def forget(self, interface: str) -> None:
        """The interface has lost its link: the next network may have other anchor points."""
        self._heard.pop(interface, None)

    def leave_alone(self, anchor: IPv6Address, now: float) -> None:
        """It does not answer, or does not serve us."""
        self._left_alone[anchor] = now + LEFT_ALONE_S

    def are_unknown(self, interfaces: Collection[str]) -> bool:
        """Whether it is too early to say that there is no anchor point: no router has been heard."""
        return bool(interfaces) and self._heard.keys().isdisjoint(interfaces)

    def choose(
        self, current: IPv6Address | None, interfaces: Collection[str], now: float
    ) -> IPv6Address | None:
        """The anchor point to use at these interfaces, None for none: the current one while it is advertised,
        else the furthest (RFC 5380 §9: lazy in releasing, §9.1)."""
        valid = {option.address: option for option in self._valid(interfaces, now)}
        self._left_alone = {anchor: until for anchor, until in self._left_alone.items() if until > now}
        undecided = not self._heard.keys() >= set(interfaces) and not self.has_failed(current, interfaces)
        if current is not None and current not in self._left_alone and (current in valid or undecided):
            return current
        candidates = [
            option
            for address, option in valid.items()
            if option.preference > 0 and address not in self._left_alone
        ]
        best = max(candidates, key=lambda o: (o.distance, o.preference, o.address), default=None)
        return best.address if best is not None else None

    def has_failed(self, anchor: IPv6Address | None, interfaces: Iterable[str]) -> bool:
        """Whether any router says so, by a valid lifetime of zero (RFC 5380 §7.1)."""
        told = (self._heard.get(name, {}).get(anchor) for name in interfaces)
        return any(known is not None and not known[0].valid_lifetime_s for known in told)

    def valid_until(self, anchor: IPv6Address) -> float:
        """When the valid lifetime of this anchor point's address, and of what is formed from its prefix,
        ends."""
        ends = [_end(*known[anchor]) for known in self._heard.values() if anchor in known]
        return max(ends, default=float("inf"))

    def next_change(self, interfaces: Iterable[str], now: float) -> float | None:
        """When `choose` may have another answer though nothing is heard."""
        ends = [_end(*known) for name in interfaces for known in self._heard.get(name, {}).values()]
        coming = [end for end in (*ends, *self._left_alone.values()) if now < end < float("inf")]
        return min(coming, default=None)

    def _valid(self, interfaces: Collection[str], now: float) -> Iterable[MobilityAnchorPoint]:
        for name in interfaces:
            for address, (option, at) in self._heard.get(name, {}).items():
                if _end(option, at) > now and not self.has_failed(address, interfaces):
                    yield option


def _end(option: MobilityAnchorPoint, heard_at: float) -> float:
    lifetime_s = option.valid_lifetime_s
    return float("inf") if lifetime_s == INFINITE_S else heard_at + lifetime_s
