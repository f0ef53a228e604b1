"""OpenFlow 1.3 rules and groups as plain values, and how ours are told from others'.

Classes: `Rule`, `Group`, the actions `SetField`, `DecrementHopLimit`, `Output`, `ToGroup`, `GoTo`.
Functions: `match`, `mirrored`, `cookie`, `cookie_owner`, `is_ours`.

A match is a sorted tuple of (field, value, mask): fields have their OXM names, values and masks are
integers, the mask is None where the whole field is compared.
"""

from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import IPv6Address
from typing import TypeAlias

#: Width in bits of the fields in use (OpenFlow 1.3.5 §7.2.3.7).
FIELD_BITS = {
    "in_port": 32,
    "eth_type": 16,
    "eth_src": 48,
    "eth_dst": 48,
    "ipv6_src": 128,
    "ipv6_dst": 128,
    "ip_proto": 8,
    "ip_dscp": 6,
    "ipv6_flabel": 20,
    "tcp_src": 16,
    "tcp_dst": 16,
    "udp_src": 16,
    "udp_dst": 16,
    "sctp_src": 16,
    "sctp_dst": 16,
}
ETH_TYPE_IPV6 = 0x86DD
#: OFPP_NORMAL: what the switch would do without OpenFlow.
NORMAL = 0xFFFFFFFA

#: The first octet of the cookies, and of the group numbers, of rules that are ours.
MARK = 0xFB
COOKIE_MASK = 0xFF << 56
#: Cookie of rules that belong to no home address: gates and table misses.
INFRASTRUCTURE = MARK << 56

Match: TypeAlias = tuple[tuple[str, int, "int | None"], ...]


@dataclass(frozen=True, slots=True)
class SetField:
    """Write a field of the packet; the switch corrects the checksums that it is in."""

    field: str
    value: int


@dataclass(frozen=True, slots=True)
class DecrementHopLimit:
    """As a router does (RFC 8200 §3)."""


@dataclass(frozen=True, slots=True)
class Output:
    """Send the packet, as it now is, to a port number or to NORMAL."""

    port: int


@dataclass(frozen=True, slots=True)
class ToGroup:
    """Hand the packet to a group."""

    number: int


@dataclass(frozen=True, slots=True)
class GoTo:
    """Go on in a later table."""

    table: int


Action: TypeAlias = SetField | DecrementHopLimit | Output | ToGroup | GoTo


@dataclass(frozen=True, slots=True)
class Rule:
    """One flow entry. No actions: the packet is dropped. `hard_timeout_s` 0: it stays until it is deleted."""

    table: int
    priority: int
    match: Match
    actions: tuple[Action, ...]
    cookie: int
    hard_timeout_s: int = 0

    @property
    def key(self) -> tuple[int, int, Match]:
        """What identifies an entry in a switch: no two have the same."""
        return self.table, self.priority, self.match


@dataclass(frozen=True, slots=True)
class Group:
    """A group of type ALL: each bucket, a sequence of actions, gets a copy of the packet."""

    number: int
    buckets: tuple[tuple[Action, ...], ...]

    @classmethod
    def of(cls, buckets: tuple[tuple[Action, ...], ...]) -> "Group":
        """The group with these buckets: its number is drawn from them, so that equal groups are one."""
        digest = int.from_bytes(blake2b(repr(buckets).encode(), digest_size=3).digest(), "big")
        return cls(MARK << 24 | digest, buckets)


def match(**fields: "int | tuple[int, int] | IPv6Address | None") -> Match:
    """A match of these fields: a value, or (value, mask). None, and a mask of zeros, match anything."""
    found = []
    for name, wanted in fields.items():
        if wanted is None:
            continue
        full = (1 << FIELD_BITS[name]) - 1
        value, mask = wanted if isinstance(wanted, tuple) else (int(wanted), full)
        if mask:
            found.append((name, value & mask, None if mask == full else mask))
    return tuple(sorted(found))


_OPPOSITE = {
    name: name[: -len(end)] + other
    for name in FIELD_BITS
    for end, other in (("_src", "_dst"), ("_dst", "_src"))
    if name.endswith(end) and not name.startswith("eth_")
}


def mirrored(fields: Match) -> Match:
    """The match of the opposite direction: source and destination changed places."""
    return tuple(sorted((_OPPOSITE.get(name, name), value, mask) for name, value, mask in fields))


def cookie(home_address: IPv6Address, fid: int = 0) -> int:
    """The cookie of the rules of one flow binding: our mark, 40 bits for the home address, the FID."""
    digest = int.from_bytes(blake2b(home_address.packed, digest_size=5).digest(), "big")
    return MARK << 56 | digest << 16 | fid


def cookie_owner(value: int) -> int:
    """The same number for all the rules of one home address: its cookie for FID 0."""
    return value & ~0xFFFF


def is_ours(value: int) -> bool:
    """Whether a cookie is of a rule of ours."""
    return value & COOKIE_MASK == INFRASTRUCTURE
