"""A made-up result with everything in it, which other tests of the report use, and a check that it is
valid.
"""

import random

import msgspec

from testbed.report.result import (
    SCHEMA_VERSION,
    BusyTime,
    CapturedInterface,
    Flow,
    FlowInHandover,
    FlowSeries,
    Handover,
    LossPlaces,
    PacketSeries,
    PathUse,
    Quantiles,
    Result,
    Signalling,
    SignallingMessage,
    Standstill,
    TimeSeries,
)

FLOWS = {  # name: kind, protocol, port, fid, Mbit/s
    "ssh": ("interactive", "tcp", 22, 1, 0.02), "https": ("bulk", "tcp", 443, 2, 30.0),
    "web": ("web", "tcp", 80, None, 1.2), "voip": ("udp-probe", "udp", 5004, 3, 0.07),
    "video": ("udp-probe", "udp", 5006, None, 5.0), "background": ("bulk", "tcp", 5201, None, 9.0)}
INTERFACES = ["mn-wlan", "mn-cellular"]
DURATION_S, INTERVAL_S = 30.0, 0.1
CAUSES = [(8.0, "flow-replace", "flow-replace flow 2", None, 2),
          (14.0, "link-down", "link-down mn-wlan", "mn-wlan", None),
          (20.0, "link-up", "link-up mn-wlan", "mn-wlan", None)]


def path_of(name: str, at_s: float) -> int:
    if name not in ("ssh", "https", "voip") or 14.0 <= at_s < 20.0:
        return 1
    return 1 if name == "https" and 8.0 <= at_s < 14.0 else 0


def sample() -> Result:
    """Six flows, two paths, three handovers."""
    generator = random.Random(1)
    bins = round(DURATION_S / INTERVAL_S)
    series, flows = {}, []
    for name, (kind, protocol, port, fid, rate) in FLOWS.items():
        throughput = {interface: [0.0] * bins for interface in INTERFACES}
        delays = []
        for index in range(bins):
            at_s = index * INTERVAL_S
            path = path_of(name, at_s)
            value = rate * 1e6 * generator.uniform(0.9, 1.1)
            if name == "web":
                value = value * 5 if index % 20 < 4 else 0.0
            throughput[INTERFACES[path]][index] = value
            delays.append((12.0, 43.0)[path] + generator.expovariate(1) if value else None)
        carried = {path: [round(value * INTERVAL_S / 8) for value in values]
                   for path, values in throughput.items()}
        series[name] = FlowSeries(
            throughput_bps=throughput, one_way_delay_ms=delays, lost=[0] * bins, carried_octets=carried,
            sent=[-(-sum(octets) // 1000) for octets in zip(*carried.values(), strict=True)])
        flows.append(Flow(
            name=name, kind=kind, protocol=protocol, port=port, downlink=True, fid=fid,
            selector=f"{protocol} source port {port}", bid=1 if fid else 2,
            counted="probe" if protocol == "udp" else "capture", goodput_bps=rate * 1e6,
            sent=1500, received=1497, lost=3, duplicates=0, reordered=1, reordering_extent=2,
            interruption_ms=48.25, interruption_at_s=13.98, nominal_spacing_ms=20.0,
            one_way_delay_ms=Quantiles(12.5, 44.0, 61.0), delay_variation_ms=Quantiles(0.4, 1.5, 30.0),
            start_s=0.4, end_s=29.6, paths=[
                PathUse(interface=interface, care_of_addresses=[f"2001:db8:20{number}::1"],
                        packets=700 * number, octets=70000)
                for number, interface in enumerate(INTERFACES, 1)],
            lost_at=LossPlaces(sender=0, link=3, receiver=0) if protocol == "udp" else None,
            retransmits=4 if kind == "bulk" else None))
    return Result(
        experiment="multihome", metadata={"kernel": "6.1", "seed": 1}, origin_s=1000.0, duration_s=DURATION_S,
        interfaces=list(INTERFACES), flows=flows,
        handovers=[_handover(generator, *cause) for cause in CAUSES],
        time_series=TimeSeries(interval_s=INTERVAL_S, bins=bins, flows=series),
        events=[{"at_s": 8.0, "t": 1008.0, "node": "experiment", "event": "flow-replace", "fid": 2}],
        signalling=Signalling(packets=1, octets=150, messages=[SignallingMessage(
            at_s=8.01, interface="mn-wlan", message="Binding Update", octets=150, from_mobile=True)]),
        captures=[CapturedInterface(host="mn", interface="mn-wlan", file="mn.mn-wlan.pcap", packets=9,
                                    drops=0)],
        busy=[BusyTime(start_s=3.0, end_s=3.4, idle=0.0, steal=0.2, late_ms=31.0)],
        standstills=[Standstill(start_s=28.0, end_s=28.2)],
        warnings=["From 3.0 s to 3.4 s this machine was too busy: do not trust figures from this time."])


def _handover(generator: random.Random, at_s: float, cause: str, text: str, interface: str | None,
              fid: int | None) -> Handover:
    stages = {"detected": 1.2, "care_of_address": None, "binding_update_sent": 2.1,
              "binding_update_received": 43.0, "datapath_ready": 44.2, "binding_acknowledgement_sent": 44.6,
              "binding_acknowledgement_received": 86.0, "first_packet": 88.3}
    if cause == "link-up":
        stages |= {"care_of_address": 60.0, "binding_update_sent": 61.0, "binding_update_received": 74.0,
                   "datapath_ready": 75.1, "binding_acknowledgement_sent": 75.3,
                   "binding_acknowledgement_received": 88.0, "first_packet": 90.0}
    flows, packets = {}, {}
    for name in FLOWS:
        old, new = path_of(name, at_s - 0.1), path_of(name, at_s + 0.1)
        sent = [step * 20.0 - 500 for step in range(150)]
        lost = [cause == "link-down" and old != new and -12 < moment < 44 for moment in sent]
        path = [None if gone else (old if moment < 44 else new)
                for moment, gone in zip(sent, lost, strict=True)]
        delay = [None if one is None else (12.0, 43.0)[one] + generator.expovariate(0.7) for one in path]
        packets[name] = PacketSeries(sent_ms=sent, delay_ms=delay, path=path)
        flows[name] = FlowInHandover(
            old_path=INTERFACES[old] if old != new else None,
            new_path=INTERFACES[new] if old != new else None,
            first_packet_ms=88.3 if old != new else None, interruption_ms=80.0 if old != new else 20.4,
            sent=300, lost=sum(lost), duplicates=0, reordered=0)
    return Handover(at_s=at_s, until_s=at_s + 6, cause=cause, text=text, interface=interface, fid=fid,
                    stages_ms=stages, flows=flows, packets=packets)


def test_the_sample_has_every_field_of_the_schema():
    result = sample()
    assert result.schema_version == SCHEMA_VERSION
    assert msgspec.convert(msgspec.to_builtins(result), Result) == result
