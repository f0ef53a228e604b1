"""The figures of one flow, on packets made up."""

import numpy as np
import pytest

from testbed.measure.accounting import Sent, account
from testbed.measure.events import Handover
from testbed.measure.matching import Arrivals
from testbed.measure.traffic import BulkTransfer, Host, TcpProbe
from testbed.report.flow_figures import FlowEvidence, in_handover, series

MS = 1_000_000
ENDS = Host(None, "2001:db8:300::2"), Host(None, "2001:db8:100::100")


def evidence(packets, traffic=None):
    """A flow's packets: (sent, arrived or None, index of the interface), ms, 100 octets each."""
    packets = sorted(packets)
    sent_ms, arrived_ms, interface = zip(*packets, strict=True)
    there = [number for number, arrived in enumerate(arrived_ms) if arrived is not None]
    sent = Sent(np.arange(len(packets)), np.array(sent_ms) * MS, np.full(len(packets), 100))
    came = np.array(sorted(there, key=lambda number: arrived_ms[number]), int)
    arrivals = Arrivals(
        ("wlan", "cellular"), came, np.array([arrived_ms[number] for number in came]) * MS,
        np.full(len(came), 100), np.array([interface[number] for number in came]), {})  # fmt: skip
    received = arrivals.received()
    return FlowEvidence(
        traffic or BulkTransfer("https", *ENDS, "/nowhere", port=443), sent, received,
        account(sent, received), arrivals, arrivals, sent, None, None, None, None, None, 0)  # fmt: skip


def steady(start_ms, end_ms, interface=0):
    return [(at, at + 10, interface) for at in range(start_ms, end_ms, 10)]


def test_what_was_sent_is_told_from_when_it_came():
    found = series(evidence([*steady(0, 100), (195, 320, 0), (205, None, 1), (290, 301, 1)]), 4, 0.1)
    assert found.sent == [10, 1, 2, 0] and found.lost == [0, 0, 1, 0]
    assert found.carried_octets == {"wlan": [1000, 100, 0, 0], "cellular": [0, 0, 100, 0]}
    assert found.throughput_bps["wlan"] == [72000, 8000, 0, 8000]


@pytest.mark.parametrize("cause", ["link-down", "flow-replace"])
def test_a_transfer_that_is_silent_all_the_time_of_a_handover_was_interrupted(cause):
    found = in_handover(evidence([*steady(0, 2000), *steady(6500, 7000, 1)]), Handover(3.0, 6.0, cause, {}))
    assert (found.sent, found.lost, found.new_path) == (0, 0, None)
    assert found.interruption_ms == pytest.approx(3250)  # from 0.25 s before the cause


def test_who_has_nothing_to_send_is_not_interrupted():
    handover = Handover(3.0, 6.0, "link-down", {})
    assert in_handover(evidence(steady(0, 2000)), handover) is None  # it has ended
    assert in_handover(evidence(steady(6500, 7000)), handover) is None  # it has not begun
    rare = TcpProbe("web", 1, *ENDS, "/nowhere", port=80, kind="web", per_second=0.2)
    assert in_handover(evidence([*steady(0, 100), *steady(6500, 7000)], rare), handover) is None
    brief = Handover(3.0, 3.2, "flow-replace", {})
    assert in_handover(evidence([*steady(0, 2600), *steady(3100, 7000)]), brief) is None
