"""Which packets are the kernel's own IPsec's, hence none of our other tables'.

Class: `Exemption`. Function: `tunnelled`.
"""

import struct
from collections.abc import Collection
from ipaddress import IPv6Address

from testbed.datapath import mark
from testbed.datapath.classifier import MOBILITY_HEADER, HomeRules
from testbed.datapath.nftables import (
    BY_IPSEC,
    DROP,
    EQUAL,
    FORWARD,
    INPUT,
    LOCAL,
    NETWORK,
    PREROUTING,
    TRANSPORT,
    TYPE_ADDRESS,
    Element,
    Rule,
    Table,
    compare,
    count,
    found_in,
    load,
    load_destination_type,
    load_meta,
    protocol_is,
    set_mark,
    verdict,
)
from testbed.datapath.xfrm import ESP

HOME_TEST_INIT, HOME_TEST = 1, 3
#: Home addresses whose Home Tests are in a tunnel under ESP.
_TUNNELLED = "tunnelled_home_addresses"
_UNPROTECTED = "unprotected_home_tests"
#: Before our other tables get packets that arrive.
_BEFORE_OTHERS = -320
_BY_IPSEC, _NOT_BY_IPSEC = (load_meta(BY_IPSEC) + compare(EQUAL, bytes([value])) for value in (1, 0))


class Exemption:
    """What a Ruleset puts into the table of IPsec.

    Packets with ESP, and what is for this node out of them, get a mark by which our other tables leave them
    alone. For home addresses with `tunnels`, more is done: the kernel finds the type of a message that it
    sends, but not of others (it looks behind the Mobility Header). So a home agent marks Home Tests, which
    a policy with that mark takes into the tunnel; and a home agent drops Home Test Inits, a mobile node Home
    Tests, that IPsec has not protected.
    """

    def __init__(
        self, name: str, mobile: bool, home_agents: Collection[IPv6Address], tunnels: bool
    ) -> None:
        self.table = Table(name)
        self._mobile = mobile
        self._home_agents = sorted(home_agents)
        self._tunnels = tunnels
        self.BASE_COUNTERS = (_UNPROTECTED,) if tunnels else ()

    def base_chains(self) -> dict[str, tuple[tuple[str, int, int] | None, tuple[Rule, ...]]]:
        left = set_mark(mark.value(mark.LEFT_ALONE), mark.KEPT)
        ours = load_destination_type() + compare(EQUAL, struct.pack("=I", LOCAL))
        # the home agent is the source of what arrives, or the destination
        esp = protocol_is(ESP) + ours + load(NETWORK, 8 if self._mobile else 24, 16)
        agents = (compare(EQUAL, address.packed) for address in self._home_agents)
        rules = [
            *(Rule(esp + agent + left, "for the kernel") for agent in agents),
            Rule(_BY_IPSEC + ours + left, "authentic"),
        ]
        chains = {}
        if self._tunnels:
            kind, address_at = (HOME_TEST, 24) if self._mobile else (HOME_TEST_INIT, 8)
            drop = self._is(kind, address_at) + _NOT_BY_IPSEC + count(_UNPROTECTED) + verdict(DROP)
            hook = ("input", INPUT) if self._mobile else ("forward", FORWARD)
            chains[hook[0]] = (("filter", hook[1], 0), (Rule(drop, "not protected"),))
            if not self._mobile:
                rules.append(Rule(self._is(HOME_TEST, 24) + left, "goes under ESP"))
        chains["prerouting"] = (("filter", PREROUTING, _BEFORE_OTHERS), tuple(rules))
        return chains

    @staticmethod
    def _is(kind: int, address_at: int) -> bytes:
        """A message of this type, with such a home address for source (8) or destination (24)."""
        message = protocol_is(MOBILITY_HEADER) + load(TRANSPORT, 2, 1) + compare(EQUAL, bytes([kind]))
        return message + load(NETWORK, address_at, 16) + found_in(_TUNNELLED)

    def base_sets(self) -> list[tuple]:
        return [(_TUNNELLED, (TYPE_ADDRESS,), None, False)] if self._tunnels else []


def tunnelled(home_address: IPv6Address) -> HomeRules:
    """What a home address adds while it has a tunnel."""
    return HomeRules({}, {}, frozenset({(_TUNNELLED, (Element(home_address.packed),))}))
