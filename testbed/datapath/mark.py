"""What the packet mark, table numbers, rule priorities and addresses of the datapath mean.

A mark holds a *number* in bits 16 to 30; the low 16 bits and bits of others are left as they are. Numbers
below `FIRST_SLOT` are situations; from there on, each is a *slot*. At an anchor, a slot is shared by one BID
of each home address, so that the number of tables and rules does not grow with the number of mobile nodes.
"""

from ipaddress import IPv6Address, IPv6Network

#: Bits of the mark that hold the number, and the one that says "a copy made for n-casting".
NUMBER_MASK = 0x7FFF0000
COPY = 0x80000000
#: Bits of the mark that are none of ours.
KEPT = 0x0000FFFF

#: Accepted tunnel packet: decapsulate, then look the inner packet up by all policy rules.
DECAPSULATE = 1
#: The same where policy rules could not tell outer from inner, as both are for this node.
DECAPSULATE_OTHER = 2
#: Goes through the detour device, where the kernel answers with Packet Too Big if it must.
DETOUR = 4
#: Goes through the detour device and is dropped behind it: the sender must not notice.
DISCARD = 5
#: From a care-of address, whatever route it was given first: look it up again with that source.
CARE_OF = 6
#: What the kernel's own IPsec and Mobile IPv6 do is none of our rules' business.
LEFT_ALONE = 8
#: Tunnel packet of an anchor point; the home address of the type 2 routing header inside is the destination.
TAKEN = 9
#: Accepted tunnel packet whose inner packet is for this node.
DECAPSULATE_HERE = 10
FIRST_SLOT = 16
SLOTS = 4000

#: Routing table of number N is BASE + N; outer packets of a slot have a table of their own.
TABLE_BASE = 20000
OUTER_TABLE_BASE = 24096
TABLE_END = 29000
#: Routes for packets without a mark.
HOME_TABLE = TABLE_BASE + 3
DETOUR_TABLE = TABLE_BASE + DETOUR
#: Where such inner packets are looked up.
INNER_TABLE = TABLE_BASE + 7
#: A mobile node's own addresses inside of tunnels: the kernel's table has them some time later only.
HERE_TABLE = TABLE_BASE + 11
MAIN_TABLE, LOCAL_TABLE = 254, 255

#: Priorities of policy rules, in the order in which they are tried.
DECAPSULATION_PRIORITY, LOCAL_PRIORITY, OUTER_PRIORITY, CARE_OF_PRIORITY = 100, 102, 110, 111
DETOUR_PRIORITY, SLOT_PRIORITY, SPECIFIC_PRIORITY, HOME_PRIORITY = 120, 130, 139, 140
#: At an anchor, no packet with a slot is for the node itself: one table less to look into.
ANCHOR_SLOT_PRIORITY = 101

#: Marks routes and rules as ours (`proto 177` in what `ip` prints).
PROTOCOL = 177

#: Never on the wire (a ULA whose octets spell "flowbin"): source of outer packets before they get theirs,
#: and next hop of copies until they are routed by their mark.
PLACEHOLDER = IPv6Address("fd66:6c6f:7762:696e::1")
COPY_GATEWAY = IPv6Address("fd66:6c6f:7762:696e::2")
#: Next hop on the detour device.
DETOUR_GATEWAY = IPv6Address("fe80::1")
ANY = IPv6Network("::/0")
_LINK_LOCAL = IPv6Address("fe80::")
_INTERFACE_BITS = (1 << 118) - 1


def value(number: int) -> int:
    """The mark of a number."""
    return number << 16


def entrance(home_address: IPv6Address) -> IPv6Address:
    """Next hop of the route into the tunnel for packets without a mark. By it rules recognise what has been
    routed already as the default path of this home address wants it."""
    return IPv6Address(int(_LINK_LOCAL) | int(home_address) & _INTERFACE_BITS)


def slot_number(slot: int) -> int:
    """The number, in a mark, of a slot."""
    return FIRST_SLOT + slot


def slot_table(slot: int) -> int:
    """The routing table by which packets of a slot go into its tunnel."""
    return TABLE_BASE + FIRST_SLOT + slot


def outer_table(slot: int) -> int:
    """The routing table by which the tunnel packets of a slot leave."""
    return OUTER_TABLE_BASE + FIRST_SLOT + slot
