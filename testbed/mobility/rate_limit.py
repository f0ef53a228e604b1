"""How much is done for senders that have not proven anything. Class: `RateLimit`."""

from ipaddress import IPv6Address

#: Answers a second to what proves nothing of its sender: to all senders, to one /64 (RFC 6275 §9.3.3).
MAX_REFUSALS_PER_S, MAX_REFUSALS_PER_SENDER_PER_S = 100, 10


class RateLimit:
    """Up to `total` answers a second, and of these up to `per_sender` to one /64.

    A sender commonly has a whole /64 at its disposal, so single addresses are not told apart. The memory is
    bounded by `total`.
    """

    def __init__(self, total: int, per_sender: int) -> None:
        self._total = total
        self._per_sender = per_sender
        self._counts: dict[int, int] = {}
        self._counted = 0
        self._since = float("-inf")

    def allows(self, sender: IPv6Address, now: float) -> bool:
        """Whether one more answer may go to `sender`; it is counted."""
        self._forget(now)
        prefix = int(sender) >> 64
        count = self._counts.get(prefix, 0)
        if self._counted >= self._total or count >= self._per_sender:
            return False
        self._counts[prefix] = count + 1
        self._counted += 1
        return True

    def exhausted(self, sender: IPv6Address, now: float) -> bool:
        """Whether `sender` has had all that there is for one /64."""
        self._forget(now)
        return self._counts.get(int(sender) >> 64, 0) >= self._per_sender

    def _forget(self, now: float) -> None:
        if now >= self._since + 1:
            self._counts.clear()
            self._counted = 0
            self._since = now
