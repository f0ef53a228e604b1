"""Which slot (hence mark and routing table) each BID of each home address has. Class: `Slots`."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address

from testbed.datapath.error import DatapathError
from testbed.datapath.mark import SLOTS
from testbed.mobility.forwarding import HomeBinding

#: Mobile nodes number their bindings alike: one dictionary, which nobody changes, serves many.
_alike = lru_cache(maxsize=1024)(dict)


class Slots:
    """`shared`: home addresses may use the same slots, as at an anchor; else every BID has one of its own."""

    def __init__(self, shared: bool) -> None:
        self._shared = shared
        self.of: dict[IPv6Address, dict[int, int]] = {}

    def assign(self, bindings: Iterable[HomeBinding]) -> dict[IPv6Address, dict[int, int]]:
        """Slots of these bindings: the ones they have, the lowest free ones for new BIDs.

        Nothing is remembered before `self.of` is updated. A slot that a BID gives up here is not given to
        another at once: packets under way may still carry its mark. Raises DatapathError if none is free.
        """
        assigned: dict[IPv6Address, dict[int, int]] = {}
        taken = {slot for slots in self.of.values() for slot in slots.values()} if not self._shared else set()
        for binding in bindings:
            known = self.of.get(binding.home_address, {})
            if self._shared:
                taken = set(known.values())
            slots: dict[int, int] = {}
            for path in binding.paths:
                slot = known.get(path.bid)
                if slot is None:
                    slot = next((slot for slot in range(SLOTS) if slot not in taken), None)
                    if slot is None:
                        raise DatapathError(
                            f"{binding.home_address} has more than {SLOTS} binding identifiers."
                        )
                    taken.add(slot)
                slots[path.bid] = slot
            assigned[binding.home_address] = _alike(tuple(slots.items()))
        return assigned
