"""Keygen tokens, nonces and authenticators. The octets expected here were computed with openssl."""

from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from testbed.mobility.rate_limit import RateLimit
from testbed.mobility.return_routability import (
    MAX_NONCE_LIFETIME,
    MAX_TOKEN_LIFETIME,
    NONCE_INTERVAL,
    Nonces,
    authorised,
    binding_management_key,
    is_authorised,
    keygen_token,
)
from testbed.wire.codec import Codec
from testbed.wire.message import BindingUpdate
from testbed.wire.option import BindingAuthorizationData, NonceIndices
from testbed.wire.packet import Packet, build_packet, parse_packet

HOME = IPv6Address("2001:db8:100::100")
CARE_OF = IPv6Address("2001:db8:201::a")
PEER = IPv6Address("2001:db8:300::2")
NODE_KEY, NONCE = bytes(range(20)), bytes(range(0xA0, 0xA8))
HOME_TOKEN, CARE_OF_TOKEN = bytes.fromhex("cf726c988a65b169"), bytes.fromhex("571299130011afde")
KEY = bytes.fromhex("d22685ec9f3a08f5bd36b1d2c541b62f35833a06")
UPDATE = BindingUpdate(1, 420, acknowledge=True, options=(NonceIndices(5, 6),))

requirement = pytest.mark.requirement


@requirement("RFC 6275 §5.2.5: keygen tokens are First (64, HMAC_SHA1 (Kcn, (address | nonce | 0 or 1)))")
def test_keygen_tokens():
    assert keygen_token(NODE_KEY, HOME, NONCE, care_of=False) == HOME_TOKEN
    assert keygen_token(NODE_KEY, CARE_OF, NONCE, care_of=True) == CARE_OF_TOKEN


@requirement("RFC 6275 §5.2.5: Kbm is SHA-1 over both tokens, for deletion over the home token alone")
def test_binding_management_key():
    assert binding_management_key(HOME_TOKEN, CARE_OF_TOKEN) == KEY
    assert binding_management_key(HOME_TOKEN).hex() == "73d5bd57defad338af3d0001dd0ae5b386889e79"


@requirement("RFC 6275 §6.2.7: the authenticator covers care-of address, correspondent and the message")
def test_authenticator():
    signed = authorised(UPDATE, KEY, CARE_OF, PEER, Codec())
    assert signed.options[-1] == BindingAuthorizationData(bytes.fromhex("c2643225712de05ab87d223f"))
    header = Codec().encode(signed)
    assert header[:20].hex() == "3b0305000000000180000069040400050006050c" and len(header) == 32
    # signing anew replaces the proof
    assert authorised(signed, KEY, CARE_OF, PEER, Codec()) == signed


def received(message, source=CARE_OF):
    return parse_packet(build_packet(Packet(source, PEER, message, home_address=HOME), Codec()), Codec())


def test_authenticator_is_verified():
    signed = authorised(UPDATE, KEY, CARE_OF, PEER, Codec())
    assert is_authorised(received(signed), KEY, CARE_OF, PEER)
    # what the checksum covers changes nothing: it counts as zero
    assert is_authorised(received(signed, source=CARE_OF + 1), KEY, CARE_OF, PEER)
    assert not is_authorised(received(signed), KEY, CARE_OF + 1, PEER)
    assert not is_authorised(received(signed), KEY, CARE_OF, PEER + 1)
    assert not is_authorised(received(signed), KEY[::-1], CARE_OF, PEER)
    assert not is_authorised(received(replace(signed, sequence=2)), KEY, CARE_OF, PEER)
    assert not is_authorised(received(UPDATE), KEY, CARE_OF, PEER)
    for length in (0, 4, 20):
        odd = replace(UPDATE, options=(*UPDATE.options, BindingAuthorizationData(bytes(length))))
        assert not is_authorised(received(odd), KEY, CARE_OF, PEER)


@requirement("RFC 6275 §5.2.7: tokens last MAX_TOKEN_LIFETIME at least, nonces MAX_NONCE_LIFETIME at most")
@pytest.mark.parametrize("given_at", [0.0, 10.0, NONCE_INTERVAL - 0.001])
def test_lifetime_of_nonces(given_at):
    nonces = Nonces()
    first, _ = nonces.home_token(HOME, 0.0)
    index, token = nonces.home_token(HOME, given_at)
    assert index == first
    for now in range(30, 240, 15):
        nonces.care_of_token(CARE_OF, float(now))
    assert nonces.home_token_of(index, HOME, given_at + MAX_TOKEN_LIFETIME) == token
    assert nonces.home_token_of(index, HOME, MAX_NONCE_LIFETIME) == token
    assert nonces.home_token_of(index, HOME, MAX_NONCE_LIFETIME + 0.001) is None


def test_nonces_and_node_keys_change_together():
    nonces = Nonces()
    tokens = [nonces.home_token(HOME, now) for now in (0.0, 29.0, 30.0, 1000.0)]
    assert tokens[0] == tokens[1]
    assert len(set(tokens)) == 3
    assert tokens[2][0] == (tokens[0][0] + 1) % 65536
    assert nonces.home_token_of(tokens[2][0], HOME, 1000.0) is None
    assert len(nonces._generations) == 1


def test_home_and_care_of_tokens_differ():
    nonces = Nonces(random=lambda octets: bytes(octets))
    assert nonces.home_token(HOME, 0.0)[1] != nonces.care_of_token(HOME, 0.0)[1]


def test_rate_limit():
    limit = RateLimit(total=10, per_sender=3)
    assert [limit.allows(HOME + step, 0.0) for step in range(5)] == [True] * 3 + [False] * 2
    others = [limit.allows(HOME + (step << 64), 0.5) for step in range(1, 20)]
    assert others == [True] * 7 + [False] * 12
    assert limit.allows(HOME, 1.0)
