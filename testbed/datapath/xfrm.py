"""The kernel's IPsec and Mobile IPv6 transformations (XFRM) as values that can be installed and removed.

Classes: `Selector`, `Esp`, `State`, `Template`, `TransformPolicy`, `Transformations` (what a part of the
program has in the kernel). Functions: `dump_states`, `dump_policies`, `why_not`.

A policy says which packets have to be transformed, or to have been; a state how (RFC 4301 §4.4.1, §4.4.2).
States of the mode "route optimisation" put a Home Address option or a type 2 routing header in and take it
out (RFC 6275 §6.3, §6.4). What is ours has a `reqid` or priority from `FIRST_REQUEST` on.
"""

import errno
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network

from testbed.datapath.netlink import (
    CREATE,
    EXCLUSIVE,
    XFRM,
    Netlink,
    NetlinkError,
    attribute,
    attributes,
)

_NEW_STATE, _DELETE_STATE, _GET_STATE = 0x10, 0x11, 0x12
_DELETE_POLICY, _GET_POLICY, _UPDATE_POLICY, _UPDATE_STATE = 0x14, 0x15, 0x19, 0x1A
_ENCRYPTION, _TEMPLATES, _REPLAY, _SOURCE, _CARE_OF_ADDRESS, _AUTHENTICATION, _MARK = 2, 5, 10, 13, 14, 20, 21
_MARK_AFTER, _MASK_AFTER = 29, 30

ESP, DESTINATION_OPTIONS, ROUTING = 50, 60, 43
TRANSPORT, TUNNEL, ROUTE_OPTIMISATION = 0, 1, 2
IN, OUT, FORWARD = 0, 1, 2
ANY = IPv6Network("::/0")
UNSPECIFIED = IPv6Address(0)

#: Ours: others that use IPsec on this node have numbers of their own.
FIRST_REQUEST, LAST_REQUEST = 0x666C0000, 0x666CFFFF

_selector = struct.Struct("=16s16s8sHBBBxxxiI")
_identity = struct.Struct("=16s4sBxxx")
_template = struct.Struct("=24sHxx16sIBBBxIII")
_replay = struct.Struct("=III")
_NO_LIMITS = struct.pack("=8Q", *(2**64 - 1,) * 4, *(0,) * 4)
_NO_USE = bytes(32)
_STATE_OCTETS, _POLICY_OCTETS = 224, 168
_SEQUENCE_WINDOW = 32
_ANY_SOURCE = 8
#: HMAC-SHA-256-128 (RFC 4868), AES-CBC (RFC 3602).
AUTHENTICATION_KEY_OCTETS, ENCRYPTION_KEY_OCTETS = 32, (16, 32)
_AUTHENTICATION_NAME, _TRUNCATED_BITS = "hmac(sha256)", 128
_ENCRYPTION_NAME, _NO_ENCRYPTION_NAME = "cbc(aes)", "ecb(cipher_null)"

Message = tuple[int, int, bytes]


@dataclass(frozen=True, slots=True)
class Selector:
    """Packets from `source` to `destination` of an upper-layer `protocol` (0: any). `kind`: of the Mobility
    Header or the ICMPv6 message (None: any)."""

    source: IPv6Network
    destination: IPv6Network
    protocol: int = 0
    kind: int | None = None

    def __bytes__(self) -> bytes:
        ports = struct.pack(">HHHH", 0, 0, *((0, 0) if self.kind is None else (self.kind, 0xFFFF)))
        lengths = self.destination.prefixlen, self.source.prefixlen
        addresses = self.destination.network_address.packed, self.source.network_address.packed
        return _selector.pack(*addresses, ports, socket.AF_INET6, *lengths, self.protocol, 0, 0)

    @classmethod
    def parse(cls, data: bytes) -> "Selector":
        destination, source, ports, _, to_bits, from_bits, protocol, _, _ = _selector.unpack_from(data)
        kind, mask = struct.unpack_from(">HH", ports, 4)
        networks = IPv6Network((source, from_bits)), IPv6Network((destination, to_bits))
        return cls(*networks, protocol, kind if mask else None)


EVERYTHING = Selector(ANY, ANY)


@dataclass(frozen=True, slots=True)
class Esp:
    """How ESP protects packets: `authentication_key` of 32 octets (HMAC-SHA-256-128), `encryption_key` of 16
    or 32 (AES-CBC), none for no encryption."""

    spi: int
    authentication_key: bytes
    encryption_key: bytes = b""

    def __repr__(self) -> str:
        return f"Esp(spi={self.spi}, keys=<not shown>)"

    def attributes(self) -> bytes:
        name, key = _AUTHENTICATION_NAME.encode(), self.authentication_key
        algorithm = struct.pack("=64sII", name, 8 * len(key), _TRUNCATED_BITS) + key
        name = (_ENCRYPTION_NAME if self.encryption_key else _NO_ENCRYPTION_NAME).encode()
        cipher = struct.pack("=64sI", name, 8 * len(self.encryption_key)) + self.encryption_key
        return attribute(_AUTHENTICATION, algorithm) + attribute(_ENCRYPTION, cipher)


@dataclass(frozen=True, slots=True)
class State:
    """A transformation of packets from `source` to `destination`.

    `source` may be unspecified: any. `esp` with ESP; `care_of_address` in route optimisation mode
    (unspecified where packets arrive: any). `mark` (value, mask): only for policies with that mark.
    `mark_after`: what packets get, and are routed by once they are transformed (not compared).
    `sequence`: the number of the last packet that was sent, of the greatest that was received, and which of
    the 32 up to that (ESP; not compared).
    """

    source: IPv6Address
    destination: IPv6Address
    protocol: int
    mode: int
    request: int
    selector: Selector = EVERYTHING
    esp: Esp | None = None
    care_of_address: IPv6Address | None = None
    mark: tuple[int, int] = (0, 0)
    mark_after: tuple[int, int] = field(default=(0, 0), compare=False)
    sequence: tuple[int, int, int] = field(default=(0, 0, 0), compare=False)

    @property
    def key(self) -> tuple:
        if self.protocol == ESP:
            return "state", self.destination, self.esp.spi
        return "state", self.source, self.destination, self.protocol, self.mark

    @property
    def _spi(self) -> bytes:
        return struct.pack(">I", self.esp.spi if self.esp else 0)

    def _marked(self) -> bytes:
        return attribute(_MARK, struct.pack("=II", *self.mark)) if self.mark[1] else b""

    def _body(self) -> bytes:
        window = _SEQUENCE_WINDOW if self.protocol == ESP else 0
        flags = _ANY_SOURCE if self.source == self.care_of_address == UNSPECIFIED else 0
        parts = [
            bytes(self.selector),
            _identity.pack(self.destination.packed, self._spi, self.protocol),
            self.source.packed,
            _NO_LIMITS + _NO_USE + bytes(12),
            struct.pack("=IIHBBB", 0, self.request, socket.AF_INET6, self.mode, window, flags),
        ]
        body = b"".join(parts).ljust(_STATE_OCTETS, b"\0") + self._marked()
        if self.esp is not None:
            body += self.esp.attributes()
            if any(self.sequence):
                body += attribute(_REPLAY, _replay.pack(*self.sequence))
        if self.mark_after[1]:
            for kind, value in zip((_MARK_AFTER, _MASK_AFTER), self.mark_after, strict=True):
                body += attribute(kind, struct.pack("=I", value))
        if self.care_of_address is not None:
            body += attribute(_CARE_OF_ADDRESS, self.care_of_address.packed)
        return body

    def install(self) -> Message:
        return _NEW_STATE, CREATE | EXCLUSIVE, self._body()

    def replace(self) -> Message:
        """Give a state of the same key, which is there, this care-of address."""
        return _UPDATE_STATE, 0, self._body()

    def _identity(self) -> bytes:
        identity = self.destination.packed + self._spi + struct.pack("=HBx", socket.AF_INET6, self.protocol)
        return identity + self._marked() + attribute(_SOURCE, self.source.packed)

    def remove(self) -> Message:
        return _DELETE_STATE, 0, self._identity()

    def ask(self) -> tuple[int, bytes]:
        """The request for what the kernel has of it."""
        return _GET_STATE, self._identity()


@dataclass(frozen=True, slots=True)
class Template:
    """Which state a policy asks for: one of this protocol and mode (and SPI), between these addresses (in
    tunnel mode). `optional`: only if there is one, or had been one."""

    protocol: int
    mode: int
    request: int
    source: IPv6Address = UNSPECIFIED
    destination: IPv6Address = UNSPECIFIED
    spi: int = 0
    optional: bool = False

    def __bytes__(self) -> bytes:
        identity = _identity.pack(self.destination.packed, struct.pack(">I", self.spi), self.protocol)
        all_algorithms = (0xFFFFFFFF,) * 3
        return _template.pack(
            identity, socket.AF_INET6, self.source.packed, self.request, self.mode, 0, self.optional,
            *all_algorithms,
        )  # fmt: skip

    @classmethod
    def parse(cls, data: bytes) -> "Template":
        identity, _, source, request, mode, _, optional, *_ = _template.unpack_from(data)
        destination, spi, protocol = _identity.unpack(identity)
        ends = IPv6Address(source), IPv6Address(destination)
        return cls(protocol, mode, request, *ends, int.from_bytes(spi, "big"), bool(optional))


@dataclass(frozen=True, slots=True)
class TransformPolicy:
    """Packets of `selector` that go in `direction`, with that mark (value, mask), are transformed by
    `templates`, the innermost header first; or, arriving, dropped unless they have been. No templates: they
    are left as they are. Of several policies for a packet, that of the lowest `priority` counts, which is a
    request number, too, so that others' come first."""

    direction: int
    selector: Selector
    templates: tuple[Template, ...]
    priority: int
    mark: tuple[int, int] = (0, 0)

    @property
    def key(self) -> tuple:
        return "policy", self.direction, self.selector, self.mark

    def _marked(self) -> bytes:
        return attribute(_MARK, struct.pack("=II", *self.mark)) if self.mark[1] else b""

    def install(self) -> Message:
        end = struct.pack("=IIBBBB", self.priority, 0, self.direction, 0, 0, 0)
        body = (bytes(self.selector) + _NO_LIMITS + _NO_USE + end).ljust(_POLICY_OCTETS, b"\0")
        body += self._marked()
        if self.templates:
            body += attribute(_TEMPLATES, b"".join(map(bytes, self.templates)))
        return _UPDATE_POLICY, 0, body

    def remove(self) -> Message:
        end = struct.pack("=IBxxx", 0, self.direction)
        return _DELETE_POLICY, 0, bytes(self.selector) + end + self._marked()


def _marks(found: dict[int, bytes]) -> tuple[int, int]:
    return struct.unpack("=II", found[_MARK]) if _MARK in found else (0, 0)


def dump_states(netlink: Netlink) -> list[State]:
    """Our states, as far as these classes can say what they are: without selectors and keys."""
    states = map(_parse_state, netlink.dump(_GET_STATE, bytes(40)))
    return [state for state in states if state is not None]


def _parse_state(body: bytes) -> State | None:
    """None: not one of ours."""
    destination, spi, protocol = _identity.unpack_from(body, 56)
    source = body[80:96]
    _, request, family, mode = struct.unpack_from("=IIHB", body, 204)
    if family != socket.AF_INET6 or not FIRST_REQUEST <= request <= LAST_REQUEST:
        return None
    found = attributes(body, _STATE_OCTETS)
    addresses = IPv6Address(source), IPv6Address(destination)
    esp = Esp(int.from_bytes(spi, "big"), b"") if protocol == ESP else None
    care_of = found.get(_CARE_OF_ADDRESS)
    return State(
        *addresses, protocol, mode, request, esp=esp, mark=_marks(found),
        care_of_address=IPv6Address(care_of) if care_of else None,
        sequence=_replay.unpack(found[_REPLAY]) if _REPLAY in found else (0, 0, 0),
    )  # fmt: skip


def dump_policies(netlink: Netlink) -> list[TransformPolicy]:
    """Our policies."""
    policies = []
    for body in netlink.dump(_GET_POLICY, bytes(64)):
        priority, _, direction = struct.unpack_from("=IIB", body, 152)
        if FIRST_REQUEST <= priority <= LAST_REQUEST:
            found = attributes(body, _POLICY_OCTETS)
            data = found.get(_TEMPLATES, b"")
            templates = tuple(Template.parse(data[at : at + 64]) for at in range(0, len(data), 64))
            selector = Selector.parse(body)
            policies.append(TransformPolicy(direction, selector, templates, priority, _marks(found)))
    return policies


class Transformations:
    """The states and policies of one part of the program, whose request numbers begin at `first_request`.

    In the network namespace of the calling thread. Raises OSError where the kernel has no XFRM.
    """

    def __init__(self, first_request: int, requests: int = 256) -> None:
        self._requests = range(first_request, first_request + requests)
        self._netlink = Netlink(XFRM)
        self._now: dict[tuple, State | TransformPolicy] = {}

    def there(self) -> list[State | TransformPolicy]:
        """What the kernel has of them."""
        policies = [policy for policy in dump_policies(self._netlink) if policy.priority in self._requests]
        return [*policies, *(s for s in dump_states(self._netlink) if s.request in self._requests)]

    def now(self, state: State) -> State | None:
        """What the kernel has of this one, if it has it."""
        try:
            return _parse_state(self._netlink.request(*state.ask()))
        except NetlinkError as error:
            if error.errno != errno.ESRCH:
                raise
            return None

    def clean(self) -> None:
        """Remove what an earlier life has left."""
        self._netlink.attempt([o.remove() for o in self.there() if o.key not in self._now])

    def become(self, wanted: Collection[State | TransformPolicy]) -> None:
        """Make these all that there is. First what is new, states before policies; then what is gone goes.
        Raises NetlinkError."""
        after = {o.key: o for o in wanted}
        new = [o for key, o in after.items() if self._now.get(key) != o]
        new.sort(key=lambda o: o.key[0] == "policy")
        for o in new:
            self._install(o)
        gone = [o for key, o in self._now.items() if key not in after]
        gone.sort(key=lambda o: o.key[0] == "state")
        self._netlink.attempt([o.remove() for o in gone])
        self._now = after

    def put(self, o: State | TransformPolicy) -> None:
        """Have this one, too. Raises NetlinkError."""
        if self._now.get(o.key) != o:
            self._install(o)
            self._now[o.key] = o

    def drop(self, key: tuple) -> None:
        """Have none of this key."""
        if key in self._now:
            self._netlink.attempt([self._now.pop(key).remove()])

    def _install(self, o: State | TransformPolicy) -> None:
        if isinstance(o, State) and o.protocol != ESP and o.key in self._now:
            return self._netlink.execute([o.replace()])
        try:
            self._netlink.execute([o.install()])
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
            self._netlink.execute([o.remove(), o.install()])

    def close(self) -> None:
        """Remove everything."""
        self.become(())
        self._netlink.close()


def why_not(protocol: int, mode: int) -> str | None:
    """Whether XFRM can transform packets with that protocol in that mode, found by doing it in this network
    namespace, which must be a private one; None or what is missing."""
    address = IPv6Address("2001:db8::1")
    esp = Esp(0x100, bytes(32), bytes(16)) if protocol == ESP else None
    care_of_address = None if protocol == ESP else address
    state = State(
        address, address, protocol, mode, FIRST_REQUEST, esp=esp, care_of_address=care_of_address
    )
    try:
        Netlink(XFRM).execute([state.install()])
    except OSError as error:
        return error.strerror
    return None
