"""tshark as an oracle: it finds the same fields in what we build, and nothing malformed."""

import os
import shutil
import subprocess
import tempfile
from collections import defaultdict
from ipaddress import IPv6Address
from pathlib import Path

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
    rfc6089_flows,
    u8,
    u16,
)

from testbed.wire import option as o
from testbed.wire.codec import Codec
from testbed.wire.dialect import RFC6089, Draft
from testbed.wire.flow import FlowIdentification
from testbed.wire.message import BindingAcknowledgement, BindingRefreshRequest, BindingUpdate
from testbed.wire.packet import Packet, build_packet
from testbed.wire.selector import IPv4TrafficSelector, IPv6TrafficSelector

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

RAW_IPV6 = 229  # LINKTYPE_IPV6
NOBODY = 65534
LUA = Path(__file__).parents[2] / "docs" / "wireshark" / "flow-binding.lua"

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


def tshark(octets, path, *arguments, lua=False):
    """Return what tshark says of IPv6 packets, one line a packet; `lua`: with our dissector.

    It runs neither as root nor with root's group, as which it loads no Lua script (Wireshark 4.4), so that
    files reach it open.
    """
    with PcapWriter(str(path), linktype=RAW_IPV6) as capture:
        for packet in octets:
            capture.write(packet)
    with open(path, "rb") as capture, tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        load = ["-X", f"lua_script:{shutil.copy(LUA, folder)}"] if lua else []
        done = subprocess.run(
            ["tshark", "-n", "-r", "-", *load, *arguments],
            capture_output=True,
            text=True,
            stdin=capture,
            cwd="/",
            env={**os.environ, "HOME": "/nonexistent"},
            **({"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}),
        )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def dissect(octets, path, names=FIELDS, lua=False):
    """Return {field: values} of the fields with these names for each packet."""
    selected = [argument for name in names for argument in ("-e", name)]
    form = ["-T", "fields", "-E", "separator=/t", "-E", "occurrence=a", "-E", "aggregator=;"]
    lines = tshark(octets, path, *form, *selected, lua=lua)
    return [
        {
            name: [_normal(value) for value in text.split(";")]
            for name, text in zip(names, line.split("\t"), strict=True)
            if text
        }
        for line in lines
    ]


def _normal(text):
    """Return an address as Python writes it (tshark writes ::1:2 as ::0.1.0.2), a flag as 0 or 1."""
    return str(IPv6Address(text)) if "::" in text else {"False": "0", "True": "1"}.get(text, text)


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


by_the_dozen = settings(
    deadline=None,
    max_examples=6,
    phases=[Phase.generate],  # shrinking would take minutes and tell nothing more
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@by_the_dozen
@given(sent=st.lists(packets(_messages), min_size=30, max_size=60))
def test_tshark_finds_the_same_fields(sent, tmp_path):
    dissected = dissect([build_packet(packet, Codec()) for packet in sent], tmp_path / "sent.pcap")
    assert len(dissected) == len(sent)
    for packet, found in zip(sent, dissected, strict=True):
        assert "_ws.malformed" not in found, packet
        assert found == fields_of(packet)


FLOW_FIELDS = (
    "flowbind.fid flowbind.priority flowbind.action flowbind.status flowbind.pro flowbind.bid "
    "flowbind.selector.format flowbind.binding_action flowbind.malformed _ws.malformed _ws.lua.error"
).split()
SELECTOR_FIELDS = {
    f"flowbind.selector.{prefix}{name}{end}": (kind, name, end)
    for prefix, kind in (("", IPv6TrafficSelector), ("ipv4.", IPv4TrafficSelector))
    for name in kind.__slots__
    for end in ("", "_end")
}
_addresses = {"source": IPv6Address("2001:db8::1"), "destination": IPv6Address("2001:db8::2")}


def dissect_flows(updates, path, codec):
    octets = [build_packet(Packet(message=update, **_addresses), codec) for update in updates]
    return dissect(octets, path, [*FLOW_FIELDS, *SELECTOR_FIELDS], lua=True)


def flow_fields(flows, dialect):
    """Return {field: values} as the Lua dissector should find them."""
    fields = defaultdict(list)
    for flow in flows:
        fields["flowbind.fid"].append(str(flow.fid))
        fields["flowbind.priority"].append(str(flow.priority))
        fields["flowbind.status"].append(str(flow.status))
        if dialect == "draft":
            fields["flowbind.action"].append(str(flow.action))
            fields["flowbind.pro"].append(str(int(flow.pro)))
        fields["flowbind.bid"] += map(str, flow.binding_reference or ())
        if flow.flow_binding_action is not None:
            fields["flowbind.binding_action"].append(str(flow.flow_binding_action))
        if flow.selector is not None:
            fields["flowbind.selector.format"].append(str(flow.selector.ts_format))
        for field, (kind, name, end) in SELECTOR_FIELDS.items():
            if isinstance(flow.selector, kind):
                value = getattr(flow.selector, name)
                if value is not None and (not end or value[0] != value[1]):
                    fields[field].append(str(value[1] if end else value[0]))
    return {field: values for field, values in fields.items() if values}


@pytest.mark.parametrize("dialect, flows", [("draft", draft_flows), ("rfc6089", rfc6089_flows)])
@by_the_dozen
@given(data=st.data())
def test_the_lua_dissector_finds_the_same_fields(dialect, flows, data, tmp_path):
    sent = data.draw(st.lists(st.lists(flows, min_size=1, max_size=3), min_size=30, max_size=40))
    updates = [BindingUpdate(1, 4, options=some) for some in sent]
    dissected = dissect_flows(updates, tmp_path / "flows.pcap", Codec(dialect))
    for some, found in zip(sent, dissected, strict=True):
        assert found == flow_fields(some, dialect)


@pytest.mark.parametrize("kind, parse", [(18, Draft().parse), (45, RFC6089().parse)])
@by_the_dozen
@given(data=st.data())
def test_the_lua_dissector_survives_anything(kind, parse, data, tmp_path):
    """It raises no error of Lua's, and what it calls malformed is malformed."""
    short = st.binary(max_size=12)
    sub_options = st.tuples(st.integers(0, 4), st.integers(0, 14), short).map(lambda t: bytes(t[:2]) + t[2])
    contents = st.tuples(short, st.lists(sub_options, max_size=4)).map(lambda t: t[0] + b"".join(t[1]))
    sent = data.draw(st.lists(contents, min_size=40, max_size=60))
    updates = [BindingUpdate(1, 4, options=[o.UnknownOption(kind, some)]) for some in sent]
    for some, found in zip(sent, dissect_flows(updates, tmp_path / "flows.pcap", Codec()), strict=True):
        assert "_ws.lua.error" not in found
        assert not found.keys() & {"flowbind.malformed", "_ws.malformed"} or parse(some).malformed
