"""The Mobility Header: round trips, damage, alignment, checksum (RFC 6275 §6.1, §6.2, §9.2)."""

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_strategies import (
    draft_messages,
    draft_options,
    ipv6_addresses,
    last_options,
    rfc6089_messages,
    rfc6089_options,
)

from testbed.wire.checksum import checksum
from testbed.wire.codec import MOBILITY_HEADER, Codec
from testbed.wire.error import ParseError
from testbed.wire.flow import FlowIdentification
from testbed.wire.message import (
    MESSAGES,
    BindingAcknowledgement,
    BindingError,
    BindingRefreshRequest,
    BindingUpdate,
    HomeTestInit,
    Status,
    UnknownMessage,
)
from testbed.wire.option import (
    AlternateCareOfAddress,
    BindingAuthorizationData,
    BindingIdentifier,
    BindingRefreshAdvice,
    FlowSummary,
    LinkLayerAddress,
    MalformedOption,
    MessageIdentifier,
    MobileNetworkPrefix,
    MobileNodeIdentifier,
    MobilityMessageAuthentication,
    NonceIndices,
    UnknownOption,
)
from testbed.wire.selector import IPv6TrafficSelector

MN = IPv6Address("2001:db8:100::100")
HA = IPv6Address("2001:db8:100::1")
CODEC = Codec()
CODECS = {
    "draft": CODEC,
    "literal": Codec(option_length_in_8_octets=True),
    "rfc6089": Codec("rfc6089"),
    "other type": Codec(flow_option_type=253),
}
UPDATE = BindingUpdate(1, 60, True, True)


def sealed(octets):
    """Return a Mobility Header with the right length and checksum for what else is in it."""
    header = bytearray(octets)
    header += bytes(-len(header) % 8)
    header[1] = len(header) // 8 - 1
    return checksummed(bytes(header))


def checksummed(header):
    """Return a Mobility Header with the right checksum."""
    header = header[:4] + bytes(2) + header[6:]
    return header[:4] + checksum(header, MN, HA, MOBILITY_HEADER).to_bytes(2, "big") + header[6:]


def update(options):
    """Return a Binding Update with these options, given in hexadecimal and padded with Pad1."""
    return sealed(bytes.fromhex("3b 00 05 00 0000 0001 c000 000f" + options))


def parse(octets, codec=CODEC):
    return codec.parse(octets, MN, HA)


@settings(deadline=None)
@given(draft_messages, ipv6_addresses, ipv6_addresses)
@pytest.mark.parametrize("name", ["draft", "literal", "other type"])
def test_round_trip(name, message, source, destination):
    codec = CODECS[name]
    assert codec.parse(codec.build(message, source, destination), source, destination) == message


@settings(deadline=None)
@given(rfc6089_messages)
def test_round_trip_in_rfc6089(message):
    codec = CODECS["rfc6089"]
    assert parse(codec.build(message, MN, HA), codec) == message


@settings(deadline=None)
@given(draft_messages)
def test_truncated_anywhere(message):
    octets = CODEC.build(message, MN, HA)
    for length in range(len(octets)):
        with pytest.raises(ParseError):
            parse(octets[:length])


@pytest.mark.requirement("RFC 6275 §9.2: a Header Len beyond the end: silence, whatever the checksum says")
def test_longer_than_it_is_with_a_right_checksum():
    octets = CODEC.build(UPDATE, MN, HA)
    for more in (1, 2, 255 - octets[1]):
        with pytest.raises(ParseError, match="truncated") as caught:
            parse(checksummed(octets[:1] + bytes((octets[1] + more,)) + octets[2:]))
        assert caught.value.pointer is None


@settings(deadline=None)
@given(draft_messages, st.integers(0, 40), st.sampled_from(sorted(CODECS)))
def test_cut_short_with_a_right_checksum(message, cut, name):
    """Nothing but ParseError, and what is parsed can be built and parsed again."""
    octets = CODECS["draft"].build(message, MN, HA)
    check_survives(sealed(octets[: max(len(octets) - 8 * (cut % (len(octets) // 8)), 8)]), CODECS[name])


@settings(deadline=None, max_examples=500)
@given(st.binary(min_size=6, max_size=300), st.integers(0, 12), st.sampled_from(sorted(CODECS)))
def test_arbitrary_octets(octets, mh_type, name):
    codec = CODECS[name]
    with pytest.raises(ParseError):
        parse(octets[:7], codec)
    for header in (octets, octets[:2] + bytes((mh_type,)) + octets[3:], b";" + octets[1:]):
        check_survives(header, codec)
        check_survives(sealed(header), codec)
        check_survives(sealed(b";" + header[1:2] + bytes((mh_type,)) + header[3:]), codec)


@settings(deadline=None, max_examples=500)
@given(st.data(), st.sampled_from(sorted(CODECS)))
def test_mutated_octets(data, name):
    message = data.draw(rfc6089_messages if name == "rfc6089" else draft_messages)
    octets = bytearray(CODECS[name].build(message, MN, HA))
    for _ in range(data.draw(st.integers(1, 6))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    check_survives(bytes(octets), CODECS[name])
    check_survives(sealed(octets), CODECS[name])


def check_survives(octets, codec):
    """Parse what an attacker may have sent. Whatever is well formed comes back the same."""
    try:
        message = parse(octets, codec)
    except ParseError as error:
        assert error.reason and (error.pointer is None or 0 <= error.pointer < len(octets))
        return
    if any(getattr(option, "malformed", None) for option in message.options):
        return
    if any(getattr(option, "unknown_selector_format", None) is not None for option in message.options):
        return
    try:
        again = codec.build(message, MN, HA)
    except ValueError as error:  # aligned, the same options can take more room than there is
        assert "more than" in str(error)
        return
    assert parse(again, codec) == message


@settings(deadline=None, max_examples=300)
@given(st.lists(draft_options, max_size=5), st.lists(last_options, max_size=1))
@pytest.mark.requirement("RFC 6275 §6.2.1: options are aligned as each of them requires")
def test_alignment_of_every_option(options, last):
    check_alignment(CODEC, (*options, *last))


@settings(deadline=None)
@given(st.lists(rfc6089_options, max_size=5))
def test_alignment_in_rfc6089(options):
    check_alignment(CODECS["rfc6089"], tuple(options))


def check_alignment(codec, options):
    octets = codec.encode(BindingUpdate(1, 60, options=options))
    assert len(octets) % 8 == 0
    offset, found, padding = 12, [], 0
    while offset < len(octets):
        size = 1 if octets[offset] == 0 else 2 + octets[offset + 1]
        if octets[offset] <= 1:
            padding += 1
            assert octets[offset + 2 : offset + size] == bytes(max(size - 2, 0))
        else:
            found.append(offset)
        offset += size
    assert offset == len(octets) and padding <= len(options) + 1  # never two in a row
    assert len(found) == len(options)
    for option, offset in zip(options, found, strict=True):
        unit, rest = codec.alignment(option)
        assert offset % unit == rest
        if isinstance(option, FlowIdentification) and option.selector is not None:
            end = offset + 2 + octets[offset + 1]
            sub_option = end - len(bytes(option.selector)) - 4  # the last one, 4 octets before the flags
            assert sub_option % max(option.selector.alignment, 2) == 0


@pytest.mark.parametrize(
    "option, alignment",
    [
        (BindingRefreshAdvice(4), (2, 0)),
        (AlternateCareOfAddress(MN), (8, 6)),
        (NonceIndices(1, 2), (2, 0)),
        (BindingAuthorizationData(bytes(12)), (8, 2)),
        (MobileNetworkPrefix.parse(bytes(18)), (8, 4)),
        (LinkLayerAddress(1, b""), (1, 0)),
        (MobileNodeIdentifier(1, b""), (1, 0)),
        (MobilityMessageAuthentication(1, 0, b""), (4, 1)),
        (MessageIdentifier(0), (8, 2)),
        (BindingIdentifier(1), (2, 0)),
        (BindingIdentifier(1, care_of_address=MN), (8, 2)),
        (BindingIdentifier(1, care_of_address=IPv4Address(1)), (8, 2)),
        (FlowSummary((1,)), (2, 0)),
        (FlowIdentification(1, 1), (2, 0)),
        (UnknownOption(200), (1, 0)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_alignment_is_that_of_the_specification(option, alignment):
    assert CODEC.alignment(option) == alignment


def test_alignment_with_a_selector():
    """The addresses of the selector come to lie at a multiple of 8, behind 8 octets and a reference of 4."""
    flow = FlowIdentification(1, 1, binding_reference=(1,), selector=IPv6TrafficSelector((HA, MN)))
    assert CODEC.alignment(flow) == (8, 4)
    octets = CODEC.encode(BindingUpdate(1, 60, options=(flow,)))
    assert octets.index(HA.packed) % 8 == 0


@settings(deadline=None)
@given(st.binary(max_size=99), ipv6_addresses, ipv6_addresses, st.integers(1, 255))
def test_checksum_is_that_of_rfc1071(data, source, destination, next_header):
    assert checksum(data, source, destination, next_header) == rfc1071(
        source.packed + destination.packed + struct.pack(">I3xB", len(data), next_header) + data
    )


def rfc1071(data):
    """The checksum as RFC 1071 §4.1 writes it: word by word with the carry folded in."""
    total = sum(word for word, in struct.iter_unpack(">H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@settings(deadline=None)
@given(draft_messages, st.data())
@pytest.mark.requirement("RFC 6275 §9.2: a Mobility Header with a wrong checksum is silently discarded")
def test_wrong_checksum(message, data):
    octets = bytearray(CODEC.build(message, MN, HA))
    octets[5] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ParseError, match="checksum") as caught:
        parse(octets)
    assert caught.value.pointer is None


def test_the_addresses_are_part_of_the_checksum():
    octets = CODEC.build(UPDATE, MN, HA)
    with pytest.raises(ParseError, match="checksum"):
        CODEC.parse(octets, IPv6Address("2001:db8:201::5"), HA)


@pytest.mark.requirement("RFC 6275 §9.2: an unknown MH Type is reported, whatever else is wrong")
def test_unknown_message():
    octets = sealed(bytes.fromhex("11 00 0d 00 0000 0102"))
    assert parse(octets) == UnknownMessage(13, bytes.fromhex("0102"))


@pytest.mark.requirement("RFC 6275 §9.2: Payload Proto other than 59: Parameter Problem pointing at it")
def test_payload_protocol():
    with pytest.raises(ParseError, match="payload 6") as caught:
        parse(sealed(bytes.fromhex("06 00 05 00 0000 0001 c000 000f")))
    assert (caught.value.pointer, caught.value.code) == (0, 0)


@pytest.mark.requirement("RFC 6275 §9.2: Header Len too small: Parameter Problem pointing at it")
@pytest.mark.parametrize("mh_type", sorted(MESSAGES.keys() - {0}))
def test_header_too_short(mh_type):
    with pytest.raises(ParseError, match="too short") as caught:
        parse(sealed(bytes((59, 0, mh_type, 0, 0, 0, 0, 0))))
    assert (caught.value.pointer, caught.value.code) == (1, 0)


def test_what_follows_the_header_is_ignored():
    assert parse(CODEC.build(UPDATE, MN, HA) + b"rest") == UPDATE


@pytest.mark.requirement("RFC 6275 §6.1.1: reserved fields are zero when sent and ignored at receipt")
def test_reserved_fields():
    octets = sealed(bytes.fromhex("3b 00 05 ff 0000 0001 c3bf 000f"))
    assert parse(octets) == UPDATE
    octets = sealed(bytes.fromhex("3b 00 06 ff 0000 00 3f 0001 000f"))
    assert parse(octets) == BindingAcknowledgement(Status.BINDING_UPDATE_ACCEPTED, 1, 60)
    octets = sealed(bytes.fromhex("3b 00 07 ff 0000 01 ff") + MN.packed)
    assert parse(octets) == BindingError(1, MN)


@pytest.mark.requirement("RFC 6275 §6.2.1: unknown options are skipped")
def test_unknown_options_are_skipped():
    message = parse(update("c8 03 010203 02 02 000f"))
    assert message.options == (UnknownOption(200, b"\1\2\3"), BindingRefreshAdvice(60))


@pytest.mark.requirement("RFC 6275 §6.2.3: the data of PadN is ignored")
def test_padding_is_ignored():
    assert parse(update("01 03 ffffff 00 00 01 00")).options == ()


@pytest.mark.parametrize(
    "options, reason",
    [
        ("01 06 0000", "option 1 at octet 12 runs past the end"),
        ("03 10 20010db8", "option 3 at octet 12 runs past the end"),
        ("00 00 00 03", "option 3 at octet 15 has no length"),
        ("03 0f" + "00" * 15, "AlternateCareOfAddress option has length 15, expected 16"),
        ("02 04 00000000", "BindingRefreshAdvice option has length 4, expected 2"),
        ("04 02 0000", "NonceIndices option has length 2, expected 4"),
        ("07 00", "LinkLayerAddress option has no option code"),
        ("08 00", "MobileNodeIdentifier option has no subtype"),
        ("09 04 00000000", "MobilityMessageAuthentication option has length 4, expected 5 or more"),
        ("0a 04 00000000", "MessageIdentifier option has length 4, expected 8"),
        ("05 02 0000 23 04 00010000", "BindingAuthorizationData is not the last option"),
    ],
)
def test_options_that_make_the_message_invalid(options, reason):
    with pytest.raises(ParseError, match=reason) as caught:
        parse(update(options))
    assert caught.value.pointer is None


@pytest.mark.requirement(
    "RFC 6275 §9.5.1: Binding Authorization Data MUST be the last option, without trailing padding"
)
@pytest.mark.parametrize("behind", ["00" * 8, "01 06 000000000000", "01 02 0000 04 02 0000"])
def test_nothing_comes_behind_binding_authorization_data(behind):
    option = "04 04 00010002 01 06 000000000000 05 0c" + "00" * 12
    (*_, last) = parse(update(option)).options
    assert type(last).__name__ == "BindingAuthorizationData"
    with pytest.raises(ParseError, match="BindingAuthorizationData is not the last option"):
        parse(update(option + behind))


@pytest.mark.requirement("RFC 5648 §4.4: MCOA MALFORMED (164) answers a Binding Identifier of wrong length")
@pytest.mark.parametrize("length", sorted(set(range(24)) - {4, 8, 20}))
def test_binding_identifier_of_wrong_length(length):
    (option, *_) = parse(update(f"23 {length:02x}" + "00" * length)).options
    assert option == MalformedOption(35, bytes(length), option.reason)
    assert option.reason == f"BindingIdentifier option has length {length}, expected 4 or 8 or 20"


@pytest.mark.parametrize("octets", ["06 12 00 81" + "00" * 16, "06 02 0000"])
def test_malformed_prefix_is_left_to_the_receiver(octets):
    (option,) = parse(update(octets)).options
    assert isinstance(option, MalformedOption) and option.type == 6


def test_bits_after_the_prefix_are_dropped():
    (option,) = parse(update("06 12 00 40" + "20010db8040001000000000000000001")).options
    assert str(option.prefix) == "2001:db8:400:100::/64"


@pytest.mark.parametrize("length", [0, 3])
def test_malformed_flow_summary(length):
    (option,) = parse(update(f"2c {length:02x}" + "00" * length), CODECS["rfc6089"]).options
    assert isinstance(option, MalformedOption)


def test_malformed_flow_does_not_spoil_the_others():
    message = parse(update("12 03 050001 12 06 06 0002 01 00 00"))
    first, second = message.all_options(FlowIdentification)
    assert first.fid == 1 and first.malformed
    assert second == FlowIdentification(2, 6)


def test_flow_option_of_literal_length_zero():
    with pytest.raises(ParseError, match="option 18 at octet 12 has length 0"):
        parse(update("12 00 0000"), CODECS["literal"])


def test_options_of_the_other_dialect_are_unknown():
    assert parse(update("2d 06 000100010000 2c 02 0001")).options == (
        UnknownOption(45, bytes.fromhex("000100010000")),
        UnknownOption(44, bytes.fromhex("0001")),
    )
    assert isinstance(parse(update("12 06 050001010000"), CODECS["rfc6089"]).options[0], UnknownOption)


def test_statuses_have_names_where_there_are_names():
    octets = sealed(bytes.fromhex("3b 00 06 00 0000 87 00 0001 0000"))
    assert parse(octets).status is Status.SEQUENCE_NUMBER_OUT_OF_WINDOW
    octets = sealed(bytes.fromhex("3b 00 06 00 0000 ff 00 0001 0000"))
    assert parse(octets).status == 255


@pytest.mark.parametrize(
    "message, reason",
    [
        (BindingUpdate(1, 4, options=[UnknownOption(200, bytes(256))]), "256 octets of data, more than 255"),
        (BindingUpdate(1, 4, options=[UnknownOption(200, bytes(250))] * 9), "more than 2048"),
        (BindingUpdate(1, 4, options=[BindingAuthorizationData(b""), BindingIdentifier(1)]), "the last"),
        (BindingUpdate(1, 4, options=[FlowIdentification(1, 256)]), "priority must be from 0 to 255"),
        (UnknownMessage(20, b"123"), "data must have"),
    ],
)
def test_what_cannot_be_sent(message, reason):
    with pytest.raises(ValueError, match=reason):
        CODEC.build(message, MN, HA)


@pytest.mark.parametrize(
    "build, reason",
    [
        (lambda: BindingUpdate(65536, 4), "sequence must be from 0 to 65535"),
        (lambda: BindingUpdate(1, 61), "lifetime_s must be a multiple of 4"),
        (lambda: BindingUpdate(1, 262144), "lifetime_s must be from 0 to 262140"),
        (lambda: BindingAcknowledgement(256, 1, 4), "status must be from 0 to 255"),
        (lambda: HomeTestInit(b"short"), "home_init_cookie must be 8 octets"),
        (lambda: BindingError(1, "::1"), "home_address must be IPv6Address"),
        (lambda: BindingIdentifier(1, priority=128), "priority must be from 0 to 127"),
        (lambda: BindingIdentifier(1, care_of_address="::1"), "care_of_address must be IPv6Address or"),
        (lambda: BindingRefreshAdvice(3), "refresh_interval_s must be a multiple of 4"),
        (lambda: FlowSummary(()), "fids must name at least one"),
        (lambda: Codec(flow_option_type=35), "flow_option_type must be from 2 to 255 and free, not 35"),
        (lambda: Codec("esperanto"), "dialect must be one of draft, rfc6089"),
    ],
)
def test_constructors_name_the_field(build, reason):
    with pytest.raises(ValueError, match=reason):
        build()


def test_options_are_found_by_class():
    message = BindingUpdate(1, 4, options=[BindingIdentifier(1), NonceIndices(1, 2), BindingIdentifier(2)])
    assert message.option(BindingIdentifier) == BindingIdentifier(1)
    assert message.option(FlowIdentification) is None
    assert message.all_options(BindingIdentifier) == (BindingIdentifier(1), BindingIdentifier(2))
    assert isinstance(message.options, tuple)
    assert BindingRefreshRequest().options == ()


def test_memoryview_and_bytearray_are_octets_too():
    octets = CODEC.build(UPDATE, MN, HA)
    assert parse(memoryview(octets)) == parse(bytearray(octets)) == UPDATE


def test_what_a_codec_remembers_of_options_is_right_and_has_a_bound():
    codec = Codec()
    for fid in range(3000):
        message = BindingAcknowledgement(0, 1, 40, options=(FlowIdentification(fid, 1),) * 2)
        octets = codec.build(message, HA, MN)
        assert octets == Codec().build(message, HA, MN)
    assert len(codec._octets) <= 1024
