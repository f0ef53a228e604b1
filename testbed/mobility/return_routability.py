"""Return routability: cookies, nonces, keygen tokens and what they authorise (RFC 6275 §5.2, §6.2.7).

Classes: `Nonces` (correspondent node), `Token` (mobile node). Functions: `keygen_token`,
`binding_management_key`, `authenticator`, `authorised`, `is_authorised`.
"""

import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv6Address

from testbed.wire.codec import Codec
from testbed.wire.message import BindingAcknowledgement, BindingUpdate
from testbed.wire.option import BindingAuthorizationData
from testbed.wire.packet import Packet

#: How long a mobile node uses a token, how long a correspondent node accepts its nonce (RFC 6275 §12).
MAX_TOKEN_LIFETIME = 210.0
MAX_NONCE_LIFETIME = 240.0
#: What the two differ by: a new nonce this often meets both (§5.2.7).
NONCE_INTERVAL = 30.0
#: The longest lifetime of a binding that return routability authorises, in seconds (§12).
MAX_RR_BINDING_LIFETIME = 420

COOKIE_OCTETS = TOKEN_OCTETS = 8
AUTHENTICATOR_OCTETS = 12
_NODE_KEY_OCTETS = 20
_NONCE_OCTETS = 8
_HOME, _CARE_OF = b"\0", b"\1"


def keygen_token(node_key: bytes, address: IPv6Address, nonce: bytes, care_of: bool) -> bytes:
    """First (64, HMAC_SHA1 (Kcn, (address | nonce | 0 or 1))), RFC 6275 §5.2.5."""
    data = address.packed + nonce + (_CARE_OF if care_of else _HOME)
    return hmac.digest(node_key, data, "sha1")[:TOKEN_OCTETS]


def binding_management_key(home_token: bytes, care_of_token: bytes = b"") -> bytes:
    """Kbm, 20 octets; without a care-of token it is the one that deletes bindings (RFC 6275 §5.2.5)."""
    return hashlib.sha1(home_token + care_of_token).digest()


def authenticator(
    key: bytes, care_of_address: IPv6Address, correspondent: IPv6Address, mobility_header: bytes
) -> bytes:
    """First (96, HMAC_SHA1 (Kbm, care-of address | correspondent | MH data)), RFC 6275 §6.2.7.

    `mobility_header` is whole: its last 12 octets, which the authenticator takes, and its checksum do not
    count. `care_of_address` is the home address where bindings are deleted.
    """
    header = mobility_header[:4] + b"\0\0" + mobility_header[6:-AUTHENTICATOR_OCTETS]
    return hmac.digest(key, care_of_address.packed + correspondent.packed + header, "sha1")[
        :AUTHENTICATOR_OCTETS
    ]


def authorised(
    message: BindingUpdate | BindingAcknowledgement,
    key: bytes,
    care_of_address: IPv6Address,
    correspondent: IPv6Address,
    codec: Codec,
) -> BindingUpdate | BindingAcknowledgement:
    """The same message with a Binding Authorization Data option at its end."""
    blank = BindingAuthorizationData(bytes(AUTHENTICATOR_OCTETS))
    options = tuple(o for o in message.options if not isinstance(o, BindingAuthorizationData))
    header = codec.encode(replace(message, options=(*options, blank)))
    proof = BindingAuthorizationData(authenticator(key, care_of_address, correspondent, header))
    return replace(message, options=(*options, proof))


def is_authorised(
    packet: Packet, key: bytes, care_of_address: IPv6Address, correspondent: IPv6Address
) -> bool:
    """Whether a received message proves that its sender knows `key`. The option must be there, the last
    one, of 12 octets and without trailing padding (RFC 6275 §6.2.7, §9.5.1)."""
    options = packet.message.options
    if not options or not isinstance(options[-1], BindingAuthorizationData):
        return False
    claimed = options[-1].authenticator
    header = packet.mobility_header
    header = header[: 8 + 8 * header[1]] if len(header) >= 8 else b""
    if len(claimed) != AUTHENTICATOR_OCTETS or header[-AUTHENTICATOR_OCTETS:] != claimed:
        return False
    return hmac.compare_digest(claimed, authenticator(key, care_of_address, correspondent, header))


@dataclass(frozen=True, slots=True)
class Token:
    """A keygen token as the mobile node holds it, not to be used from the time `expires` on."""

    nonce_index: int
    value: bytes
    expires: float


@dataclass(frozen=True, slots=True)
class _Generation:
    node_key: bytes
    nonce: bytes
    first_used: float


class Nonces:
    """The nonces of a correspondent node, each with a Kcn of its own (RFC 6275 §5.2.7).

    A new one is made when it is needed and the last one is NONCE_INTERVAL old; each is accepted for
    MAX_NONCE_LIFETIME from its first use. Nothing is kept of whom the tokens were given to.
    `random(octets)` is the source of randomness. The first index is random, so that indices of an earlier
    life are not taken for ours.
    """

    def __init__(self, random: Callable[[int], bytes] = os.urandom) -> None:
        self._random = random
        self._generations: dict[int, _Generation] = {}
        self._latest = int.from_bytes(random(2), "big")

    def home_token(self, home_address: IPv6Address, now: float) -> tuple[int, bytes]:
        """The current nonce index and the home keygen token that it gives."""
        index, generation = self._current(now)
        return index, keygen_token(generation.node_key, home_address, generation.nonce, care_of=False)

    def care_of_token(self, care_of_address: IPv6Address, now: float) -> tuple[int, bytes]:
        """The current nonce index and the care-of keygen token that it gives."""
        index, generation = self._current(now)
        return index, keygen_token(generation.node_key, care_of_address, generation.nonce, care_of=True)

    def home_token_of(self, index: int, home_address: IPv6Address, now: float) -> bytes | None:
        """The token given with `index`, None if that is not recognised (any more)."""
        return self._token_of(index, home_address, now, care_of=False)

    def care_of_token_of(self, index: int, care_of_address: IPv6Address, now: float) -> bytes | None:
        """The token given with `index`, None if that is not recognised (any more)."""
        return self._token_of(index, care_of_address, now, care_of=True)

    def _token_of(self, index: int, address: IPv6Address, now: float, care_of: bool) -> bytes | None:
        generation = self._generations.get(index)
        if generation is None or now > generation.first_used + MAX_NONCE_LIFETIME:
            return None
        return keygen_token(generation.node_key, address, generation.nonce, care_of)

    def _current(self, now: float) -> tuple[int, _Generation]:
        current = self._generations.get(self._latest)
        if current is None or now >= current.first_used + NONCE_INTERVAL:
            self._generations = {
                index: generation
                for index, generation in self._generations.items()
                if now <= generation.first_used + MAX_NONCE_LIFETIME
            }
            self._latest = (self._latest + 1) % 65536
            current = _Generation(self._random(_NODE_KEY_OCTETS), self._random(_NONCE_OCTETS), now)
            self._generations[self._latest] = current
        return self._latest, current
