"""tshark as an oracle: it finds the same fields in what we build, and nothing malformed."""

import shutil
import subprocess
from collections import defaultdict
from ipaddress import IPv6Address

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scapy.utils import PcapWriter
from wire_strategies import (
    binding_identifiers,
    draft_flows,
    ipv6_addresses,
    lifetimes,
    packets,
    prefixes,
    u8,
    u16,
)

from testbed.wire import option as o
from testbed.wire.codec import Codec
from testbed.wire.dialect import Draft
from testbed.wire.flow import FlowIdentification
from testbed.wire.message import BindingAcknowledgement, BindingRefreshRequest, BindingUpdate
from testbed.wire.packet import build_packet

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

RAW_IPV6 = 229  # LINKTYPE_IPV6

FIELDS = (
    "ipv6.src ipv6.dst ipv6.opt.mipv6.home_address ipv6.routing.mipv6.home_address "
    "mip6.proto mip6.mhtype "
    "mip6.bu.seqnr mip6.bu.a_flag mip6.bu.h_flag mip6.bu.l_flag mip6.bu.k_flag mip6.bu.m_flag "
    "mip6.nemo.bu.r_flag mip6.bu.b_flag mip6.bu.lifetime "
    "mip6.ba.status mip6.ba.k_flag mip6.nemo.ba.r_flag mip6.ba.seqnr mip6.ba.lifetime "
    "mip6.bra.interval mip6.acoa.acoa mip6.ni.hni mip6.ni.cni mip6.bad.auth "
    "mip6.nemo.mnp.pfl mip6.nemo.mnp.mnp mip6.mnid.subtype mip6.mnid.identifier "
    "mip6.auth.subtype mip6.auth.mobility_spi mip6.auth.auth_data mip6.em.data "
    "mip6.bi.bid mip6.bi.status mip6.bi.h_flag mip6.bi.coa_ipv4 mip6.bi.coa_ipv6 "
    "_ws.malformed"
).split()
#: Two octets are missing from what tshark shows of them.
CUT_SHORT = 2


def tshark(octets, path, *arguments):
    """Return what tshark says of IPv6 packets, one line a packet."""
    with PcapWriter(str(path), linktype=RAW_IPV6) as capture:
        for packet in octets:
            capture.write(packet)
    command = ["tshark", "-n", "-r", str(path), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def dissect(octets, path):
    """Return {field: values} for each packet."""
    selected = [argument for field in FIELDS for argument in ("-e", field)]
    form = ["-T", "fields", "-E", "separator=/t", "-E", "occurrence=a", "-E", "aggregator=;"]
    lines = tshark(octets, path, *form, *selected)
    return [
        {
            field: [_normal(value) for value in text.split(";")]
            for field, text in zip(FIELDS, line.split("\t"), strict=True)
            if text
        }
        for line in lines
    ]


def _normal(text):
    """Return an address as Python writes it: tshark writes ::1:2 as ::0.1.0.2."""
    return str(IPv6Address(text)) if "::" in text else text


def fields_of(packet):
    """Return {field: values} as tshark should find them."""
    fields = defaultdict(list)

    def found(**values):
        for name, value in values.items():
            if value is not None:
                fields[f"mip6.{name.replace('__', '.')}"].append(str(int(value) if value is True else value))

    fields["ipv6.src"].append(str(packet.source))
    fields["ipv6.dst"].append(str(packet.destination))
    if packet.home_address is not None:
        fields["ipv6.opt.mipv6.home_address"].append(str(packet.home_address))
    if packet.routing_address is not None:
        fields["ipv6.routing.mipv6.home_address"].append(str(packet.routing_address))
    message = packet.message
    found(mhtype=message.mh_type, proto=59)
    match message:
        case BindingUpdate():
            found(
                bu__seqnr=message.sequence,
                bu__a_flag=int(message.acknowledge),
                bu__h_flag=int(message.home_registration),
                bu__l_flag=int(message.link_local_compatibility),
                bu__k_flag=int(message.key_management),
                bu__m_flag=int(message.map_registration),
                nemo__bu__r_flag=int(message.mobile_router),
                bu__b_flag=int(message.overwrite),  # named as in RFC 6602, to which IANA gave the bit
                bu__lifetime=message.lifetime_s // 4,
            )
        case BindingAcknowledgement():
            found(
                ba__status=int(message.status),
                ba__k_flag=int(message.key_management),
                nemo__ba__r_flag=int(message.mobile_router),
                ba__seqnr=message.sequence,
                ba__lifetime=message.lifetime_s // 4,
            )
    for option in message.options:
        match option:
            case o.BindingRefreshAdvice(seconds):
                found(bra__interval=seconds // 4)
            case o.AlternateCareOfAddress(address):
                found(acoa__acoa=address)
            case o.NonceIndices(home, care_of):
                found(ni__hni=home, ni__cni=care_of)
            case o.BindingAuthorizationData(authenticator):
                found(bad__auth=authenticator.hex())
            case o.MobileNetworkPrefix(prefix):
                found(nemo__mnp__pfl=prefix.prefixlen, nemo__mnp__mnp=prefix.network_address)
            case o.MobileNodeIdentifier(subtype, identifier):
                found(mnid__subtype=subtype, mnid__identifier=identifier.decode())
            case o.MobilityMessageAuthentication(subtype, spi, authenticator):
                found(auth__subtype=subtype, auth__mobility_spi=spi)
                found(auth__auth_data=authenticator[:-CUT_SHORT].hex())
            case FlowIdentification():
                found(em__data=Draft().data(option)[:-CUT_SHORT].hex())
            case o.BindingIdentifier(bid, status, home, _, address):
                found(bi__bid=bid, bi__status=status, bi__h_flag=int(home))
                if address is not None:
                    found(**{f"bi__coa_ipv{address.version}": address})
    return dict(fields)


#: tshark does not show identifiers of one or two octets.
_names = st.text("abcdefghijklmnopqrstuvwxyz.@", min_size=3, max_size=20).map(str.encode)
_options = st.one_of(
    st.builds(o.BindingRefreshAdvice, lifetimes),
    st.builds(o.AlternateCareOfAddress, ipv6_addresses),
    st.builds(o.NonceIndices, u16, u16),
    st.builds(o.MobileNetworkPrefix, prefixes),
    st.builds(o.MobileNodeIdentifier, u8, _names),
    st.builds(o.MobilityMessageAuthentication, u8, u16, st.binary(min_size=12, max_size=12)),
    st.builds(o.MessageIdentifier, st.integers(0, 2**64 - 1)),
    binding_identifiers,
    draft_flows,
)
_last = st.lists(st.builds(o.BindingAuthorizationData, st.binary(min_size=12, max_size=12)), max_size=1)
_lists = st.builds(lambda some, last: (*some, *last), st.lists(_options, max_size=8), _last)
_flags = st.booleans()
_messages = st.one_of(
    st.builds(BindingUpdate, u16, lifetimes, *([_flags] * 7), _lists),
    st.builds(BindingAcknowledgement, u8, u16, lifetimes, _flags, _flags, _lists),
    st.builds(BindingRefreshRequest, _lists),
)


@settings(
    deadline=None,
    max_examples=6,
    phases=[Phase.generate],  # shrinking would take minutes and tell nothing more
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sent=st.lists(packets(_messages), min_size=30, max_size=60))
def test_tshark_finds_the_same_fields(sent, tmp_path):
    dissected = dissect([build_packet(packet, Codec()) for packet in sent], tmp_path / "sent.pcap")
    assert len(dissected) == len(sent)
    for packet, found in zip(sent, dissected, strict=True):
        assert "_ws.malformed" not in found, packet
        assert found == fields_of(packet)
