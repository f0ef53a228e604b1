"""Authentication of Binding Updates and Acknowledgements by shared keys (RFC 4285).

Classes: `SecurityAssociation`, `Signer` and `IpsecSigner` (mobile node), `Verifier` (home agent, anchor
point). Functions: `signed`, `is_signed`, `hmac_sha1`, `unprotected`, `ntp_timestamp`.
"""

import hmac
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha1
from ipaddress import IPv6Address
from itertools import takewhile

from testbed.wire.codec import Codec
from testbed.wire.message import BindingAcknowledgement, BindingUpdate, Status
from testbed.wire.option import (
    AlternateCareOfAddress,
    BindingIdentifier,
    MessageIdentifier,
    MobilityMessageAuthentication,
)
from testbed.wire.packet import Packet

MN_HA = 1  #: subtype of the option (RFC 4285 §5.1)
KEY_OCTETS = 16
AUTHENTICATOR_OCTETS = 12
#: How many Binding Updates may be under way, answers to which are still taken for answers.
_TIME_STAMPS_KEPT = 16
_NTP_EPOCH = 2_208_988_800  # seconds from 1900 to 1970
_BEFORE_AUTHENTICATOR = 5  # octets of data: subtype and SPI
_BLOCK_OCTETS = 64  # of SHA-1
#: What each octet of the key becomes (RFC 2104 §2).
_INNER, _OUTER = (bytes(octet ^ pad for octet in range(256)) for pad in (0x36, 0x5C))

Signed = BindingUpdate | BindingAcknowledgement


@dataclass(frozen=True, slots=True)
class SecurityAssociation:
    """A shared-key-based mobility security association (RFC 4285 §5.1).

    `spi`: 256 to 2^32 - 1; `key`: 16 octets; `window_s`: how far a time stamp may be from the receiver's
    time of day, more than 3 s. Raises ValueError for what is out of range.
    """

    spi: int
    key: bytes
    window_s: float = 7.0

    def __post_init__(self) -> None:
        if not 256 <= self.spi < 1 << 32:
            raise ValueError(f"spi must be from 256 to {(1 << 32) - 1}, not {self.spi}")
        if len(self.key) != KEY_OCTETS:
            raise ValueError(f"key must have {KEY_OCTETS} octets, not {len(self.key)}")
        if not self.window_s > 3:
            raise ValueError(f"window_s must be more than 3 seconds, not {self.window_s}")

    def __repr__(self) -> str:
        return f"SecurityAssociation(spi={self.spi}, key=<not shown>, window_s={self.window_s})"


def ntp_timestamp(time_of_day: float) -> int:
    """Seconds since 1970 as 64 bits of NTP time (RFC 1305 §3.1)."""
    return int((time_of_day + _NTP_EPOCH) * (1 << 32)) % (1 << 64)


def signed(
    message: Signed,
    association: SecurityAssociation,
    care_of: IPv6Address,
    home: IPv6Address,
    codec: Codec,
    identifier: MessageIdentifier | None = None,
) -> Signed:
    """The same message with an MN-HA authentication option at its end (RFC 4285 §5.1), and before that the
    time stamp, if there is one."""
    options = message.options if identifier is None else (*message.options, identifier)
    blank, octets = _blank(association.spi)
    header = codec.encode(message, (*options, blank))
    offset = header.rindex(octets)
    proof = _authenticator(association, care_of, home, header, offset)
    option = MobilityMessageAuthentication(MN_HA, association.spi, proof)
    made = message.with_options((*options, option))
    begin = offset + 2 + _BEFORE_AUTHENTICATOR
    codec.remember(made, header[:begin] + proof + header[begin + AUTHENTICATOR_OCTETS :])
    return made


@lru_cache(maxsize=1024)
def _blank(spi: int) -> tuple[MobilityMessageAuthentication, bytes]:
    """The option before its authenticator is known, and its octets."""
    option = MobilityMessageAuthentication(MN_HA, spi, bytes(AUTHENTICATOR_OCTETS))
    return option, _octets(option)


def is_signed(
    packet: Packet, association: SecurityAssociation, care_of: IPv6Address, home: IPv6Address
) -> bool:
    """Whether a received message ends in an option that proves the knowledge of the key."""
    message = packet.message
    proofs = message.all_options(MobilityMessageAuthentication)
    if len(proofs) != 1 or message.options[-1] is not proofs[0]:
        return False
    claimed = proofs[0]
    if (claimed.subtype, claimed.spi) != (MN_HA, association.spi):
        return False
    header = packet.mobility_header
    expected = _authenticator(association, care_of, home, header, header.rindex(_octets(claimed)))
    return hmac.compare_digest(expected, claimed.authenticator)


def _authenticator(
    association: SecurityAssociation, care_of: IPv6Address, home: IPv6Address, header: bytes, offset: int
) -> bytes:
    """First (96, HMAC_SHA1 (key, care-of address | home address | MH data)); MH data ends with the SPI."""
    end = offset + 2 + _BEFORE_AUTHENTICATOR
    data = care_of.packed + home.packed + header[:4] + b"\0\0" + header[6:end]
    return hmac_sha1(association.key, data)[:AUTHENTICATOR_OCTETS]


def hmac_sha1(key: bytes, data: bytes) -> bytes:
    """HMAC (RFC 2104) of a key of at most 64 octets. `hmac.digest` has OpenSSL 3 look the algorithm up each
    time, which takes longer than to compute both digests."""
    block = key.ljust(_BLOCK_OCTETS, b"\0")
    inner = sha1(block.translate(_INNER) + data).digest()
    return sha1(block.translate(_OUTER) + inner).digest()


def _octets(option: MobilityMessageAuthentication) -> bytes:
    """The whole option. There is nothing but padding behind it in a Mobility Header, which it is found by."""
    data = bytes(option)
    return bytes((option.option_type, len(data))) + data


class Signer:
    """The mobile node's half: signs Binding Updates, checks their acknowledgements.

    `time_of_day` turns the role's clock into seconds since 1970.
    """

    def __init__(
        self, association: SecurityAssociation, time_of_day: Callable[[float], float], codec: Codec
    ) -> None:
        self.association = association
        self._time_of_day = time_of_day
        self._codec = codec
        self._correction = 0
        self._last = 0
        self._used: deque[int] = deque(maxlen=_TIME_STAMPS_KEPT)

    def sign(
        self, update: BindingUpdate, care_of: IPv6Address, home: IPv6Address, now: float
    ) -> BindingUpdate:
        """Add a time stamp, greater than any before (RFC 4285 §6), and the authentication option."""
        timestamp = ntp_timestamp(self._time_of_day(now)) + self._correction
        self._last = max(timestamp, self._last + 1) % (1 << 64)
        self._used.append(self._last)
        return signed(update, self.association, care_of, home, self._codec, MessageIdentifier(self._last))

    def check(self, packet: Packet, home: IPv6Address) -> str | None:
        """What is wrong with a Binding Acknowledgement; None if it is right and answers a message of ours."""
        message = packet.message
        refused = message.status == Status.MIPV6_AUTH_FAIL
        if not is_signed(packet, self.association, packet.destination, home):
            says = ", and says that our own key is wrong" if refused else ""
            return f"not authenticated by the home agent (RFC 4285 §5.1.1){says}"
        if refused:
            # RFC 4285 §5.3 has a mobile node stop now. But who shares our key has taken our messages for
            # authentic: this answers a forged copy, and must not silence us.
            return "answers a forged copy of a message of ours (RFC 4285 §5.3)"
        identifier = message.option(MessageIdentifier)
        mismatch = message.status == Status.MIPV6_ID_MISMATCH
        compared = 0xFFFFFFFF if mismatch else (1 << 64) - 1
        if identifier is None or all((identifier.timestamp ^ used) & compared for used in self._used):
            return "time stamp is not that of a Binding Update of ours (RFC 4285 §6)"
        return None

    def learn_time(self, acknowledgement: BindingAcknowledgement, now: float) -> None:
        """Status MIPV6-ID-MISMATCH brings the home agent's time of day: use that from now on."""
        identifier = acknowledgement.option(MessageIdentifier)
        if acknowledgement.status == Status.MIPV6_ID_MISMATCH and identifier is not None:
            here = ntp_timestamp(self._time_of_day(now)) + self._correction
            self._correction += ((identifier.timestamp >> 32) - (here >> 32)) << 32
            self._last = 0


def unprotected(packet: Packet) -> str | None:
    """Why a message is to be dropped that should be protected by IPsec; None if it is."""
    return None if packet.protected else "not protected by ESP (RFC 6275 §5.1)"


def _care_of_address_unprotected(packet: Packet, home: IPv6Address) -> str | None:
    """Why a Binding Update is to be dropped: its source address, which ESP does not protect, is not borne out
    by options, which it does (RFC 3776 §4.3)."""
    options = (*packet.message.all_options(BindingIdentifier), packet.message.option(AlternateCareOfAddress))
    told = {option.care_of_address for option in options if option is not None}
    if packet.home_address is None:
        return "says elsewhere that it is not at home (RFC 3776 §4.3)" if told - {None, home} else None
    return None if told else "no option with the care-of address (RFC 3776 §4.3)"


class IpsecSigner:
    """A Signer's place where IPsec protects the messages (RFC 6275 §5.1, RFC 3776)."""

    def sign(
        self, update: BindingUpdate, care_of: IPv6Address, home: IPv6Address, now: float
    ) -> BindingUpdate:
        """See that the care-of address is in an option: ESP does not protect the IPv6 header (RFC 3776 §4.3;
        with Binding Identifier options, RFC 5648 §5.2)."""
        if care_of == home or update.option(BindingIdentifier) is not None:
            return update
        return update.with_options((*update.options, AlternateCareOfAddress(care_of)))

    def check(self, packet: Packet, home: IPv6Address) -> str | None:
        """Why a Binding Acknowledgement is to be dropped, None if it is not."""
        return unprotected(packet)

    def learn_time(self, acknowledgement: BindingAcknowledgement, now: float) -> None:
        """There is no time in it."""


class Verifier:
    """The receiver's half: which mobile nodes have a key, and whether a Binding Update is theirs and new.

    Without a security association for a home address, its messages are taken only if
    `accept_unauthenticated` says so.
    """

    def __init__(
        self,
        associations: dict[IPv6Address, SecurityAssociation],
        accept_unauthenticated: bool,
        time_of_day: Callable[[float], float],
        codec: Codec,
        by_ipsec: Collection[IPv6Address] = (),
    ) -> None:
        """`by_ipsec`: home addresses whose messages IPsec protects, and no option."""
        self.associations = associations
        self.accept_unauthenticated = accept_unauthenticated
        self._time_of_day = time_of_day
        self._codec = codec
        self._by_ipsec = by_ipsec
        #: The last time stamp accepted, by home address: outlives the bindings, as long as it matters.
        self.timestamps: dict[IPv6Address, int] = {}
        self._judged_at = 0.0
        self._window_s = 0.0
        self._forgotten_at = 0
        self._found: tuple[Packet | None, SecurityAssociation | None] = None, None

    def association(self, packet: Packet, home: IPv6Address) -> SecurityAssociation | None:
        """The one that a Binding Update for `home` has to be authenticated by."""
        return self.associations.get(home)

    def _association(self, packet: Packet, home: IPv6Address) -> SecurityAssociation | None:
        """The same, looked up once a message."""
        if self._found[0] is not packet:
            self._found = packet, self.association(packet, home)
        return self._found[1]

    def drop_reason(self, packet: Packet, home: IPv6Address) -> str | None:
        """Why a Binding Update is to be dropped in silence (RFC 4285 §5, §5.3; RFC 6275 §5.1), None if it
        is not."""
        if self._by_ipsec and home in self._by_ipsec:
            return self.unprotected(packet, home) or _care_of_address_unprotected(packet, home)
        if self._association(packet, home) is None:
            return None if self.accept_unauthenticated else f"no security association with {home}"
        if packet.message.option(MobilityMessageAuthentication) is None:
            return "no authentication option (RFC 4285 §5)"
        return None

    def unprotected(self, packet: Packet, home: IPv6Address) -> str | None:
        """Why any message of `home` is to be dropped that IPsec has not protected; None if it is not."""
        return unprotected(packet) if home in self._by_ipsec else None

    def judge(self, packet: Packet, home: IPv6Address, now: float) -> Status:
        """The status that refuses a Binding Update, or "accepted" (RFC 4285 §5.3, §6)."""
        self._judged_at = now
        association = self._association(packet, home)
        if association is None:
            return Status.BINDING_UPDATE_ACCEPTED
        if not is_signed(packet, association, packet.source, home):
            return Status.MIPV6_AUTH_FAIL
        identifier = packet.message.option(MessageIdentifier)
        if identifier is None:
            return Status.MIPV6_MESG_ID_REQD
        ours = ntp_timestamp(self._time_of_day(now))
        away = identifier.timestamp - ours
        if abs(away) > association.window_s * (1 << 32):
            return Status.MIPV6_ID_MISMATCH
        if identifier.timestamp <= self.timestamps.get(home, -1):
            return Status.MIPV6_ID_MISMATCH
        self._window_s = max(self._window_s, association.window_s)
        self._remember(home, identifier.timestamp, ours)
        return Status.BINDING_UPDATE_ACCEPTED

    def _remember(self, home: IPv6Address, timestamp: int, ours: int) -> None:
        """The newest comes last; what could not be played back any more, as it is out of every window, is
        forgotten, once a window: at a mobility anchor point there is no end of home addresses."""
        self.timestamps.pop(home, None)
        self.timestamps[home] = timestamp
        window = int(self._window_s * (1 << 32))
        if abs(ours - self._forgotten_at) < window:
            return
        self._forgotten_at = ours
        old = takewhile(lambda home: self.timestamps[home] < ours - window, self.timestamps)
        for home in list(old):
            del self.timestamps[home]

    def sign(
        self, acknowledgement: BindingAcknowledgement, packet: Packet, home: IPv6Address
    ) -> BindingAcknowledgement:
        """The acknowledgement of `packet`, which was judged last: with its time stamp, and signed.

        A time stamp that was refused comes back with our own seconds (RFC 4285 §6).
        """
        association = self._association(packet, home)
        if association is None:
            return acknowledgement
        identifier = packet.message.option(MessageIdentifier)
        if identifier is not None:
            if acknowledgement.status == Status.MIPV6_ID_MISMATCH:
                ours = ntp_timestamp(self._time_of_day(self._judged_at)) >> 32
                identifier = MessageIdentifier(ours << 32 | identifier.timestamp & 0xFFFFFFFF)
        return signed(acknowledgement, association, packet.source, home, self._codec, identifier)
