"""Which rule the packets of a connection have met: so that the next ones need not go through all rules.

A mobile node may have thousands of flow bindings, tried in order of priority. Where there are many, the first
packet of a connection leaves a note in the map `recent_flows`, and the others find their rule by it: the same
time for ten rules as for ten thousand. Packets without ports, with extension headers, and those for which
the map has no room any more go through the rules.

A note is right because its key has all that a selector can look at in such a packet (addresses, traffic
class, flow label, next header, ports) and a digest of the rules that it was made by: once these change,
nobody finds it any more, and it goes away by itself.

Functions: `number`, `marked`, `follow`, `note`, `act`. The map: `RECENT_FLOWS`.
"""

import struct

from testbed.datapath.mark import KEPT
from testbed.datapath.match import PORT_PROTOCOLS
from testbed.datapath.nftables import (
    MARK,
    NETWORK,
    TRANSPORT,
    TYPE_ADDRESS,
    TYPE_LINK_ADDRESS,
    TYPE_MARK,
    add_element,
    dispatch,
    found_in,
    immediate,
    load,
    load_meta,
    masked,
    translate,
)

RECENT_FLOWS = "recent_flows"
#: Source, destination; first 8 octets of the header (for nft, something of that size); ports; digest.
KEY = (TYPE_ADDRESS, TYPE_ADDRESS, TYPE_LINK_ADDRESS, TYPE_MARK, TYPE_MARK)
#: Notes at most, and how long each is kept, in seconds.
SIZE, TIMEOUT_S = 65536, 60
#: From this number of rules on it pays.
MANY_RULES = 16

#: Traffic class without ECN bits, flow label, next header.
_HEADER = bytes((0x0F, 0xCF, 0xFF, 0xFF, 0, 0, 0xFF, 0))
_HEADER_REGISTER, _PORTS_REGISTER, _DIGEST_REGISTER, _DATA_REGISTER = 16, 18, 19, 20


def _key(of_rules: bytes) -> bytes:
    return (
        load(NETWORK, 6, 1)
        + found_in(PORT_PROTOCOLS)
        + load(NETWORK, 8, 32)
        + load(NETWORK, 0, 8, register=_HEADER_REGISTER)
        + masked(_HEADER, register=_HEADER_REGISTER)
        + load(TRANSPORT, 0, 4, register=_PORTS_REGISTER)
        + immediate(of_rules, register=_DIGEST_REGISTER)
    )


def number(fid: int) -> int:
    """The mark of a packet between the rule that it has met and that rule's action."""
    return fid << 16


def marked(register: int = 1) -> bytes:
    """Load the number that is in the mark."""
    mask = struct.pack("=I", 0xFFFFFFFF & ~KEPT)
    return load_meta(MARK, register) + masked(mask, register=register)


def note(of_rules: bytes) -> bytes:
    """Remember which rule, as the mark says, packets like this one have met. No match without room."""
    return _key(of_rules) + marked(_DATA_REGISTER) + add_element(RECENT_FLOWS, _DATA_REGISTER)


def act(chains: str) -> bytes:
    """Go to the chain that the verdict map `chains` has for the mark."""
    return marked() + dispatch(chains)


def follow(of_rules: bytes, chains: str) -> bytes:
    """Go to the chain that the verdict map `chains` has for the number noted, on if there is none."""
    return _key(of_rules) + translate(RECENT_FLOWS) + dispatch(chains)
