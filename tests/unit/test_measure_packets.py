"""Captures to columns: packets built by scapy, an independent oracle, in files that this test writes."""

import struct
import time

import numpy as np
import pytest
from scapy.layers.inet import TCP as ScapyTcp
from scapy.layers.inet import UDP as ScapyUdp
from scapy.layers.inet6 import (
    HAO,
    MIP6MH_BU,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from testbed.measure import probe_udp
from testbed.measure.accounting import account
from testbed.measure.matching import arrivals, path_series, segment_limit, sent_packets, signalling
from testbed.measure.packets import address_text, read_capture, same_address
from testbed.measure.traffic import FlowKey

CN, MN, HA = "2001:db8:300::2", "2001:db8:100::100", "2001:db8:100::1"
WLAN, CELLULAR = "2001:db8:201::1", "2001:db8:202::1"
#: With addresses, or scapy would ask the network for them.
FRAME = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def write(path, packets, snaplen=176, order="<", magic=0xA1B23C4D, cut=0):
    """`packets` are (time in ns, frame)."""
    unit = 1 if magic == 0xA1B23C4D else 1000
    data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, 1)
    for moment, frame in packets:
        octets = bytes(frame)
        data += struct.pack(order + "4I", moment // 10**9, moment % 10**9 // unit, min(len(octets), snaplen),
                            len(octets)) + octets[:snaplen]
    path.write_bytes(data[:len(data) - cut])
    return path


def probe(sequence, flow=3, size=172):
    return probe_udp.HEADER.pack(probe_udp.MAGIC, flow, 0, sequence, 5) + bytes(size - probe_udp.HEADER.size)


def voip(sequence):
    return IPv6(src=CN, dst=MN) / ScapyUdp(sport=5004, dport=5004) / Raw(probe(sequence))


def segment(sequence, length=1000, stamp=77, **fields):
    return IPv6(src=CN, dst=MN) / ScapyTcp(sport=443, dport=40000, seq=sequence, flags="A", options=[
        ("NOP", None), ("NOP", None), ("Timestamp", (stamp, 0))], **fields) / Raw(bytes(length))


def tunnel(packet, care_of=WLAN):
    return FRAME / IPv6(src=HA, dst=care_of) / packet


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("magic", [0xA1B23C4D, 0xA1B2C3D4])
def test_times_in_either_byte_order_and_unit(tmp_path, order, magic):
    frames = [(1_700_000_000_123_456_000, FRAME / voip(1)), (1_700_000_000_123_999_000, FRAME / voip(2))]
    table = read_capture(write(tmp_path / "a.pcap", frames, order=order, magic=magic))
    assert list(table.time_ns) == [moment for moment, _ in frames]


def test_wall_clock_times_become_monotonic_across_a_step_of_the_wall_clock(tmp_path):
    frames = [(10**18, FRAME / voip(1)), (10**18 + 3 * 10**9, FRAME / voip(2))]
    clock = [(500, 10**18), (500 + 10**9, 10**18 + 3 * 10**9)]
    assert list(read_capture(write(tmp_path / "a.pcap", frames), clock).time_ns) == [500, 500 + 10**9]


def test_tunnelled_and_plain_probes(tmp_path):
    table = read_capture(write(tmp_path / "a.pcap", [(1, FRAME / voip(8)), (2, tunnel(voip(9)))]))
    assert list(table.protocol) == [17, 17] and list(table.probe_sequence) == [8, 9]
    assert list(table.probe_flow) == [3, 3] and list(table.payload_octets) == [172, 172]
    assert same_address(table.destination, MN).all() and same_address(table.source, CN).all()
    assert [address_text(value) for value in table.outer_destination] == ["::", WLAN]


def test_tcp_fields_beyond_a_short_snapshot(tmp_path):
    syn = IPv6(src=CN, dst=MN) / ScapyTcp(sport=443, dport=40000, seq=1, flags="SA", options=[("MSS", 1380)])
    frames = [(1, tunnel(syn)), (2, tunnel(segment(5000))), (3, tunnel(segment(2**32 - 1, length=0)))]
    table = read_capture(write(tmp_path / "a.pcap", frames))
    assert list(table.sequence) == [1, 5000, 2**32 - 1] and list(table.timestamp) == [0, 77, 77]
    assert list(table.payload_octets) == [0, 1000, 0] and list(table.segment_limit) == [1380, 0, 0]
    assert list(table.wire_octets) == [len(bytes(frame)) for _, frame in frames]


@pytest.mark.requirement("RFC 6275 §6.3: the packet's source is the Home Address option's, for upper layers")
def test_home_address_option_and_type_2_routing_header_are_looked_through(tmp_path):
    update = (IPv6(src=WLAN, dst=HA, nh=60) / IPv6ExtHdrDestOpt(options=[HAO(hoa=MN)]) / MIP6MH_BU(seq=1))
    routed = (IPv6(src=CN, dst=WLAN) / IPv6ExtHdrRouting(type=2, addresses=[MN], segleft=1)
              / ScapyUdp(sport=5004, dport=5004) / Raw(probe(4)))
    path = write(tmp_path / "a.pcap", [(1, FRAME / update), (2, FRAME / routed)])
    table = read_capture(path)
    assert list(table.protocol) == [135, 17] and list(table.message) == [5, 0]
    assert address_text(table.source[0]) == MN and address_text(table.destination[1]) == MN
    assert table.probe_sequence[1] == 4
    (message,) = signalling({"mn-wlan": table})
    assert message.message == 5 and message.from_mobile and message.octets == len(bytes(FRAME / update))


def test_what_is_no_ipv6_or_is_cut_off_is_there_but_empty(tmp_path):
    fragment = IPv6(src=CN, dst=MN) / IPv6ExtHdrFragment(nh=17) / ScapyUdp(sport=1, dport=2) / Raw(b"abc")
    frames = [(1, FRAME / ARP()), (2, FRAME / fragment), (3, bytes(FRAME / voip(1))[:50])]
    table = read_capture(write(tmp_path / "a.pcap", frames))
    assert list(table.protocol) == [0, 17, 17] and list(table.source_port) == [0, 1, 0]
    assert list(table.probe_flow) == [-1, -1, -1]


def test_a_last_record_cut_short_is_left_out(tmp_path):
    path = write(tmp_path / "a.pcap", [(1, FRAME / voip(1)), (2, FRAME / voip(2))], cut=3)
    assert len(read_capture(path)) == 1
    assert len(read_capture(write(tmp_path / "b.pcap", []))) == 0


@pytest.mark.parametrize("data", [b"", b"x" * 40, struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 9, 113)])
def test_other_files_are_refused(tmp_path, data):
    (tmp_path / "a.pcap").write_bytes(data)
    with pytest.raises(ValueError, match="a.pcap"):
        read_capture(tmp_path / "a.pcap")


def test_a_flow_over_two_paths_with_copies_and_losses(tmp_path):
    key = FlowKey("voip", "udp", CN, 5004, MN)
    at_cn = read_capture(write(tmp_path / "cn", [
        (10 * number, FRAME / voip(number)) for number in range(6)]))
    wlan = read_capture(write(tmp_path / "w", [
        (10 * number + 3, tunnel(voip(number))) for number in (0, 1, 3)]))
    cellular = read_capture(write(tmp_path / "c", [
        (10 * number + 7, tunnel(voip(number), CELLULAR)) for number in (3, 4)]))
    found = arrivals({"wlan": wlan, "cellular": cellular}, key)
    counts = account(sent_packets([at_cn], key), found.received())
    assert (counts.sent, counts.received, counts.lost, counts.duplicates) == (6, 4, 2, 1)
    assert found.care_of_addresses == {"wlan": [WLAN], "cellular": [CELLULAR]}
    assert list(found.times_on("cellular")) == [37, 47]
    octets = path_series(found, 0, 5, 10)
    assert list(octets["wlan"]) == [172, 172, 0, 172, 0] and list(octets["cellular"]) == [0, 0, 0, 172, 172]


def test_a_retransmission_is_another_packet_and_superpackets_are_cut(tmp_path):
    key = FlowKey("https", "tcp", CN, 443, MN)
    syn = IPv6(src=MN, dst=CN) / ScapyTcp(sport=40000, dport=443, flags="S", options=[("MSS", 1012)])
    at_cn = [read_capture(write(tmp_path / "cn", [
        (0, FRAME / syn), (1, FRAME / segment(2**32 - 500, length=2500)),
        (9, FRAME / segment(500, stamp=90))]))]
    at_mn = {"wlan": read_capture(write(tmp_path / "mn", [
        (4, tunnel(segment(2**32 - 500))), (5, tunnel(segment(1500, length=500))),
        (12, tunnel(segment(500, stamp=90)))]))}
    limit = segment_limit([*at_cn, *at_mn.values()], key)
    assert limit == 1000
    sent = sent_packets(at_cn, key, limit)
    counts = account(sent, arrivals(at_mn, key, limit).received())
    assert list(sent.octets) == [1000, 1000, 500, 1000]
    assert (counts.sent, counts.received, counts.lost, counts.reordered) == (4, 3, 1, 0)


def test_half_a_million_packets_take_a_second(tmp_path):
    """60 Mbit/s for 40 s in 1400-octet packets, seen at both ends, is 430,000 packets."""
    frame = bytes(tunnel(segment(0)))[:176]
    count = 430_000
    records = np.zeros((count, 16 + len(frame)), np.uint8)
    head = np.zeros((count, 4), "<u4")
    head[:, 1], head[:, 2], head[:, 3] = np.arange(count), len(frame), 1400
    records[:, :16] = head.view(np.uint8)
    records[:, 16:] = np.frombuffer(frame, np.uint8)
    records[:, 16 + 98:16 + 102] = np.arange(count).astype(">u4").view(np.uint8).reshape(-1, 4)
    path = tmp_path / "big.pcap"
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1) + records.tobytes())
    started = time.process_time()
    table = read_capture(path)
    found = arrivals({"wlan": table}, FlowKey("https", "tcp", CN, 443, MN))
    taken = time.process_time() - started
    assert len(found.key) == count and len(np.unique(found.key)) == count
    assert taken < 5, f"{taken:.1f} s"
