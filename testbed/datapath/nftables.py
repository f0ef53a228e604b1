"""nf_tables as netlink messages (linux/netfilter/nf_tables.h): expressions of rules, and objects of a table.

An expression is `bytes`; a rule is a sequence of them. Data lie in register 1 unless told otherwise: it has
16 octets, as every register here. `nft list table` shows everything that is built here in nft's own syntax.

Classes: `Rule`, `Table`. Functions: one an expression, named after what it does.
"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from testbed.datapath.netlink import CREATE, attribute, attribute_list, attributes, nested, text

_SUBSYSTEM = 10 << 8
_IPV6 = 10
NEW_TABLE, GET_TABLE, DELETE_TABLE = 0, 1, 2
NEW_CHAIN, GET_CHAIN, DELETE_CHAIN = 3, 4, 5
NEW_RULE, GET_RULE, DELETE_RULE = 6, 7, 8
NEW_SET, GET_SET, DELETE_SET = 9, 10, 11
NEW_ELEMENT, GET_ELEMENT, DELETE_ELEMENT = 12, 13, 14
NEW_OBJECT, GET_OBJECT, DELETE_OBJECT = 18, 19, 20

LINK, NETWORK, TRANSPORT = 0, 1, 2
EQUAL, NOT_EQUAL, LESS, AT_MOST, MORE, AT_LEAST = range(6)
LENGTH, MARK, IN_INTERFACE, OUT_INTERFACE, IN_NAME, UPPER_PROTOCOL, BY_IPSEC = 0, 3, 4, 5, 6, 16, 25
DROP, ACCEPT, JUMP, GOTO, RETURN = 0, 1, -3, -4, -5
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = 0, 1, 2, 3, 4
#: Kind of address that the `fib` expression reports for an address of this node (RTN_LOCAL).
LOCAL = 2

#: nft's numbers for types of data, which only matter to those who list the table.
TYPE_ADDRESS, TYPE_LINK_ADDRESS, TYPE_PROTOCOL, TYPE_MARK, TYPE_VERDICT = 8, 9, 12, 19, 0xFFFFFF00
_TYPE_LENGTH = {TYPE_ADDRESS: 16, TYPE_LINK_ADDRESS: 6, TYPE_PROTOCOL: 1, TYPE_MARK: 4}

_COUNTER = 1
_SET_MAP, _SET_INTERVAL, _SET_TIMEOUT, _SET_BY_RULES = 0x8, 0x4, 0x10, 0x20
_DIGEST = 0x7F


_pair = struct.Struct("=HH")
_big = struct.Struct(">I")


def _number(kind: int, value: int) -> bytes:
    return _pair.pack(8, kind) + _big.pack(value & 0xFFFFFFFF)


def _expression(name: str, *parts: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *parts))


#: The same few expressions stand in the rules of every home address.
_remembered = lru_cache(maxsize=1024)


@_remembered
def load(base: int, offset: int, length: int, register: int = 1) -> bytes:
    """Octets of the packet; TRANSPORT starts behind all extension headers."""
    return _expression(
        "payload", _number(1, register), _number(2, base), _number(3, offset), _number(4, length)
    )


def store(base: int, offset: int, length: int, register: int = 1) -> bytes:
    """Write the register into the packet; checksums stay as they are."""
    return _expression(
        "payload",
        _number(5, register),
        _number(2, base),
        _number(3, offset),
        _number(4, length),
        _number(6, 0),
        _number(7, 0),
        _number(8, 0),
    )


@_remembered
def load_meta(key: int, register: int = 1) -> bytes:
    return _expression("meta", _number(2, key), _number(1, register))


def load_length(register: int = 1) -> bytes:
    """Length of the IPv6 packet, of one that is still to be segmented as a whole: 4 octets, big-endian."""
    return load_meta(LENGTH, register) + _expression(
        "byteorder", _number(1, register), _number(2, register), _number(3, 1), _number(4, 4), _number(5, 4)
    )


def load_extension(header: int, offset: int, length: int, register: int = 1) -> bytes:
    """Octets of the first IPv6 extension header of that type; no match without one."""
    return _expression(
        "exthdr",
        _number(1, register),
        attribute(2, bytes([header])),
        _number(3, offset),
        _number(4, length),
        _number(5, 0),
        _number(6, 0),
    )


def load_maximum_segment_size() -> bytes:
    """The value of TCP's option 2, two octets; no match without it."""
    return _expression(
        "exthdr",
        _number(1, 1),
        attribute(2, b"\2"),
        _number(3, 2),
        _number(4, 2),
        _number(5, 0),
        _number(6, 1),
    )


def store_maximum_segment_size() -> bytes:
    return _expression(
        "exthdr", _number(7, 1), attribute(2, b"\2"), _number(3, 2), _number(4, 2), _number(6, 1)
    )


def load_next_hop() -> bytes:
    """The next hop of the route that the packet has been given; no match before it has one."""
    return _expression("rt", _number(1, 1), _number(2, 2))


def load_destination_type() -> bytes:
    """Whose the destination address is, by the routing tables: 4 octets, this node's is LOCAL."""
    return _expression("fib", _number(1, 1), _number(2, 3), _number(3, 2))


@_remembered
def compare(operation: int, value: bytes, register: int = 1) -> bytes:
    return _expression("cmp", _number(1, register), _number(2, operation), nested(3, attribute(1, value)))


def within(start: bytes, end: bytes) -> bytes:
    """Register 1 is from `start` to `end`, both included."""
    if start == end:
        return compare(EQUAL, start)
    return compare(AT_LEAST, start) + compare(AT_MOST, end)


def masked(mask: bytes, exclusive_or: bytes | None = None, register: int = 1) -> bytes:
    """Register = register & mask ^ exclusive_or."""
    exclusive_or = bytes(len(mask)) if exclusive_or is None else exclusive_or
    return _expression(
        "bitwise",
        _number(1, register),
        _number(2, register),
        _number(3, len(mask)),
        nested(4, attribute(1, mask)),
        nested(5, attribute(1, exclusive_or)),
    )


def immediate(value: bytes, register: int = 1) -> bytes:
    return _expression("immediate", _number(1, register), nested(2, attribute(1, value)))


@_remembered
def found_in(set_name: str) -> bytes:
    """Register 1 (and on) is an element of the set."""
    return _expression("lookup", text(1, set_name), _number(2, 1))


def translate(map_name: str) -> bytes:
    """Register 1 = what the map has for register 1; no match if nothing."""
    return _expression("lookup", text(1, map_name), _number(2, 1), _number(3, 1))


def add_element(map_name: str, data_register: int) -> bytes:
    """Add register 1 (and on) to the map, unless it has it; no match where the map is full."""
    return _expression("dynset", text(1, map_name), _number(3, 0), _number(4, 1), _number(5, data_register))


def remember(set_name: str) -> bytes:
    """Add register 1 to the set, unless it has it; no match where the set is full."""
    return _expression("dynset", text(1, set_name), _number(3, 0), _number(4, 1))


def dispatch(map_name: str) -> bytes:
    """Go where the verdict map says for register 1; on if it says nothing."""
    return _expression("lookup", text(1, map_name), _number(2, 1), _number(3, 0))


@_remembered
def verdict(code: int, chain: str | None = None) -> bytes:
    return _expression("immediate", _number(1, 0), nested(2, _verdict(code, chain)))


def _verdict(code: int, chain: str | None = None) -> bytes:
    return nested(2, _number(1, code), *([text(2, chain)] if chain else []))


def count(counter: str) -> bytes:
    """Count the packet with the table's counter of that name."""
    return _expression("objref", _number(1, _COUNTER), text(2, counter))


@_remembered
def set_mark(value: int, kept: int) -> bytes:
    """Mark = mark & kept | value; value has no bit of kept."""
    return (
        load_meta(MARK)
        + masked(struct.pack("=I", kept), struct.pack("=I", value))
        + _expression("meta", _number(2, MARK), _number(3, 1))
    )


def mark_is(value: int, mask: int) -> bytes:
    return load_meta(MARK) + masked(struct.pack("=I", mask)) + compare(EQUAL, struct.pack("=I", value))


def protocol_is(number: int) -> bytes:
    """The upper-layer protocol: the header behind all IPv6 extension headers."""
    return load_meta(UPPER_PROTOCOL) + compare(EQUAL, bytes([number]))


def untracked() -> bytes:
    """Neither connection tracking nor the reassembly of fragments that comes with it get the packet."""
    return nested(1, text(1, "notrack"))


def duplicate() -> bytes:
    """Send a copy of the packet as it is, mark included, by way of the address in register 1."""
    return _expression("dup", _number(1, 1))


def reassemble() -> bytes:
    """Have the kernel put fragments together before prerouting and output (nf_defrag_ipv6).

    It does so in every network namespace that has a rule with this expression, in whatever chain. It must
    stand behind the condition that the protocol is TCP or UDP, and where no packet comes.
    """
    return (
        immediate(bytes(15) + b"\1")
        + immediate(b"\0\1", register=2)
        + _expression("tproxy", _number(1, _IPV6), _number(2, 1), _number(3, 2))
    )


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its expressions one after the other, and a comment that `nft list` shows.

    The kernel keeps the digest of the expressions beside them, so that it can be asked what it has.
    """

    expressions: bytes
    comment: str = ""
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.blake2s(self.expressions + self.comment.encode(), digest_size=16).digest()
        object.__setattr__(self, "digest", digest)


class Table:
    """Messages about the objects of one table of family ip6. `name` is the table's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._last_set = 0

    @staticmethod
    def header(family: int = _IPV6, resource: int = 0) -> bytes:
        return struct.pack(">BBH", family, 0, resource)

    BEGIN = struct.pack(">BBH", 0, 0, 10)

    def _message(self, kind: int, *parts: bytes, flags: int = 0) -> tuple[int, int, bytes]:
        return _SUBSYSTEM | kind, flags, self.header() + text(1, self.name) + b"".join(parts)

    def request(self, kind: int, *parts: bytes) -> tuple[int, bytes]:
        """Type and body of a dump request for objects of this table."""
        kind, _, body = self._message(kind, *parts)
        return kind, body

    def create(self, comment: str) -> tuple[int, int, bytes]:
        return self._message(NEW_TABLE, attribute(6, _comment(comment)), flags=CREATE)

    def delete(self) -> tuple[int, int, bytes]:
        return self._message(DELETE_TABLE)

    def chain(self, name: str) -> tuple[int, int, bytes]:
        return self._message(NEW_CHAIN, text(3, name), flags=CREATE)

    def base_chain(self, name: str, kind: str, hook: int, priority: int) -> tuple[int, int, bytes]:
        return self._message(
            NEW_CHAIN,
            text(3, name),
            nested(4, _number(1, hook), _number(2, priority)),
            _number(5, ACCEPT),
            text(7, kind),
            flags=CREATE,
        )

    def delete_chain(self, name: str) -> tuple[int, int, bytes]:
        return self._message(DELETE_CHAIN, text(3, name))

    def rule(self, chain: str, rule: Rule) -> tuple[int, int, bytes]:
        """Append a rule to the chain."""
        data = _comment(rule.comment) + bytes([_DIGEST, len(rule.digest)]) + rule.digest
        return self._message(
            NEW_RULE,
            text(2, chain),
            attribute(4 | 0x8000, rule.expressions),
            attribute(7, data),
            flags=CREATE | 0x800,
        )

    def flush(self, chain: str) -> tuple[int, int, bytes]:
        """Delete the rules of the chain."""
        return self._message(DELETE_RULE, text(2, chain))

    def set(
        self,
        name: str,
        key: tuple[int, ...],
        data: int | None = None,
        interval: bool = False,
        by_rules: tuple[int, int] | None = None,
    ) -> tuple[int, int, bytes]:
        """A set with keys of these types one after the other, or a map if it has a type of data. `by_rules`:
        rules add the elements, so many at most, and each stays for so many seconds."""
        self._last_set += 1
        flags = (_SET_MAP if data is not None else 0) | (_SET_INTERVAL if interval else 0)
        flags |= _SET_BY_RULES | _SET_TIMEOUT if by_rules is not None else 0
        key_type = 0
        for kind in key:
            key_type = key_type << 6 | kind
        # the order of octets of keys and data, for `nft list`: 1 = host's, 2 = network's
        order = 1 if TYPE_MARK in key else 2
        user = bytes([0, 4]) + struct.pack("=I", order)
        parts = [
            text(2, name),
            _number(3, flags),
            _number(4, key_type),
            _number(
                5,
                sum(-(-_TYPE_LENGTH[kind] // 4) * 4 for kind in key)
                if len(key) > 1
                else _TYPE_LENGTH[key[0]],
            ),
        ]
        if data is not None:
            parts.append(_number(6, data))
            if data != TYPE_VERDICT:
                parts.append(_number(7, _TYPE_LENGTH[data]))
                user += bytes([1, 4]) + struct.pack("=I", 2)
        if by_rules is not None:
            size, seconds = by_rules
            parts += [nested(9, _number(1, size)), attribute(11, struct.pack(">Q", 1000 * seconds))]
        return self._message(NEW_SET, *parts, _number(10, self._last_set), attribute(13, user), flags=CREATE)

    def delete_set(self, name: str) -> tuple[int, int, bytes]:
        return self._message(DELETE_SET, text(2, name))

    def elements(self, kind: int, set_name: str, elements: Iterable["Element"]) -> tuple[int, int, bytes]:
        """Add (NEW_ELEMENT) or take away (DELETE_ELEMENT) elements of a set."""
        flags = CREATE if kind == NEW_ELEMENT else 0
        return self._message(kind, text(2, set_name), nested(3, *(e.encode() for e in elements)), flags=flags)

    def counter(self, name: str, packets: int = 0, octets: int = 0) -> tuple[int, int, bytes]:
        value = struct.pack("=HH", 12, 1) + struct.pack(">Q", octets)
        value += struct.pack("=HH", 12, 2) + struct.pack(">Q", packets)
        return self._message(NEW_OBJECT, text(2, name), _number(3, _COUNTER), nested(4, value), flags=CREATE)

    def delete_counter(self, name: str) -> tuple[int, int, bytes]:
        return self._message(DELETE_OBJECT, text(2, name), _number(3, _COUNTER))

    def counters_request(self) -> tuple[int, bytes]:
        return self.request(GET_OBJECT, _number(3, _COUNTER))


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a set or map: key, and data (octets, or the chain to jump to).

    `end`: the key is the first one behind an interval, which the element before began. `goto`: to the chain
    without coming back.
    """

    key: bytes
    data: bytes | str | None = None
    end: bool = False
    goto: bool = False

    def encode(self) -> bytes:
        parts = [nested(1, attribute(1, self.key))]
        if isinstance(self.data, str):
            parts.append(nested(2, _verdict(GOTO if self.goto else JUMP, self.data)))
        elif self.data is not None:
            parts.append(nested(2, attribute(1, self.data)))
        if self.end:
            parts.append(_number(3, 1))
        return nested(1, *parts)


def parse_element(data: bytes) -> Element:
    found = attributes(data)
    value: bytes | str | None = None
    goto = False
    if 2 in found:
        inner = attributes(found[2])
        if 1 in inner:
            value = inner[1]
        else:
            where = attributes(inner[2])
            value = where.get(2, b"").rstrip(b"\0").decode()
            goto = where.get(1) == _big.pack(GOTO & 0xFFFFFFFF)
    end = 3 in found and bool(int.from_bytes(found[3], "big") & 1)
    return Element(attributes(found[1])[1], value, end, goto)


def parse_elements(body: bytes) -> list[Element]:
    """The elements in one message of a dump of elements."""
    elements = attributes(body, 4).get(3, b"")
    return [parse_element(data) for _, data in attribute_list(elements)]


def parse_rule(body: bytes) -> tuple[str, bytes | None]:
    """Chain and digest (None: not our rule) in one message of a dump of rules."""
    found = attributes(body, 4)
    data = found.get(7, b"")
    digest = None
    while len(data) >= 2:
        kind, length = data[0], data[1]
        if kind == _DIGEST:
            digest = data[2 : 2 + length]
        data = data[2 + length :]
    return found[2].rstrip(b"\0").decode(), digest


def parse_counter(body: bytes) -> tuple[str, tuple[int, int]]:
    """Name, (packets, octets) in one message of a dump of counters."""
    found = attributes(body, 4)
    values = attributes(found[4])
    packets, octets = (int.from_bytes(values[kind], "big") for kind in (2, 1))
    return found[2].rstrip(b"\0").decode(), (packets, octets)


def parse_name(body: bytes, kind: int) -> tuple[str, str]:
    """Table and own name (attribute `kind`) in one message of a dump of chains or sets."""
    found = attributes(body, 4)
    return found[1].rstrip(b"\0").decode(), found[kind].rstrip(b"\0").decode()


def _comment(comment: str) -> bytes:
    if not comment:
        return b""
    data = comment.encode()[:120] + b"\0"
    return bytes([0, len(data)]) + data
