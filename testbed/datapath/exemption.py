"""Which packets are the kernel's own IPsec's, hence none of our other tables'. Class: `Exemption`."""

import struct
from collections.abc import Collection
from ipaddress import IPv6Address

from testbed.datapath import mark
from testbed.datapath.classifier import MOBILITY_HEADER, HomeRules
from testbed.datapath.nftables import (
    BY_IPSEC,
    EQUAL,
    LOCAL,
    NETWORK,
    PREROUTING,
    TRANSPORT,
    TYPE_ADDRESS,
    Element,
    Rule,
    Table,
    compare,
    found_in,
    load,
    load_destination_type,
    load_meta,
    protocol_is,
    set_mark,
)
from testbed.datapath.xfrm import ESP

HOME_TEST_INIT, HOME_TEST = 1, 3
_TESTED = "tested_home_addresses"
#: Before our other tables get packets that arrive.
_BEFORE_OTHERS = -320


class Exemption:
    """What a Ruleset puts into the table of IPsec: packets with ESP, and what is for this node out of them,
    get a mark by which our other tables leave them alone. At a home agent, so do Home Tests for home
    addresses that have a tunnel under ESP, `tested`: a policy of the kernel's takes them there."""

    BASE_COUNTERS = ()

    def __init__(
        self, name: str, mobile: bool, home_agents: Collection[IPv6Address], tested: Collection[IPv6Address]
    ) -> None:
        self.table = Table(name)
        self._agent_at = 8 if mobile else 24  # it is the source of what arrives, or the destination
        self._home_agents = sorted(home_agents)
        self._tested = () if mobile else tested

    def base_chains(self) -> dict[str, tuple[tuple[str, int, int] | None, tuple[Rule, ...]]]:
        left = set_mark(mark.value(mark.LEFT_ALONE), mark.KEPT)
        ours = load_destination_type() + compare(EQUAL, struct.pack("=I", LOCAL))
        esp = protocol_is(ESP) + ours + load(NETWORK, self._agent_at, 16)
        agents = (compare(EQUAL, address.packed) for address in self._home_agents)
        home_test = protocol_is(MOBILITY_HEADER) + load(TRANSPORT, 2, 1) + compare(EQUAL, bytes([HOME_TEST]))
        home_test += load(NETWORK, 24, 16) + found_in(_TESTED)
        rules = [
            *(Rule(esp + agent + left, "for the kernel") for agent in agents),
            Rule(load_meta(BY_IPSEC) + compare(EQUAL, b"\1") + ours + left, "authentic"),
        ]
        if self._tested:
            rules.append(Rule(home_test + left, "goes under ESP"))
        return {"prerouting": (("filter", PREROUTING, _BEFORE_OTHERS), tuple(rules))}

    def base_sets(self) -> list[tuple]:
        return [(_TESTED, (TYPE_ADDRESS,), None, False)] if self._tested else []

    def elements(self) -> HomeRules:
        """What is in the sets."""
        tested = {(_TESTED, (Element(address.packed),)) for address in self._tested}
        return HomeRules({}, {}, frozenset(tested))
