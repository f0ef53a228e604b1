"""The probe's schedule, logs and command line, without a network; reports of bulk transfers; the machine
watch.
"""

import itertools
import json
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.measure import probe, probe_tcp
from testbed.measure.accounting import Received, Sent, account
from testbed.measure.iperf import read_iperf
from testbed.measure.machine import MachineSample, busy_spans, read_machine, standstills
from testbed.measure.metadata import metadata
from testbed.measure.pacing import arrivals
from testbed.measure.probe_log import FAILED, ProbeLogWriter, read_probe_log
from testbed.measure.tcp_information import tcp_information

SECOND = 1_000_000_000


@given(st.floats(0.1, 5000), st.integers(0, 2**32), st.integers(0, 10**18))
def test_a_periodic_stream_does_not_drift(per_second, seed, start):
    times = list(itertools.islice(arrivals(start, per_second, "constant", seed), 500))
    assert start <= times[0] <= start + SECOND / per_second + 1
    assert abs(times[-1] - times[0] - 499 * SECOND / per_second) <= 400  # float resolution at 10^18 ns


def test_poisson_arrivals_have_the_rate_and_follow_the_seed():
    times = list(itertools.islice(arrivals(0, 100, "poisson", 7), 5000))
    assert times == list(itertools.islice(arrivals(0, 100, "poisson", 7), 5000))
    assert times[-1] / SECOND == pytest.approx(50, rel=0.05) and times == sorted(times)
    assert times != list(itertools.islice(arrivals(0, 100, "poisson", 8), 5000))
    with pytest.raises(ValueError, match="pattern 'bursty' is unknown"):
        next(arrivals(0, 1, "bursty"))


def test_logs_are_read_as_they_were_written(tmp_path):
    for role, names in (("sender", ("scheduled_ns", "sent_ns")), ("receiver", ("sent_ns", "received_ns"))):
        log = ProbeLogWriter(tmp_path / role, role, {"flow": 3, "rate": 50})
        for number in range(300):
            log.append(number, number * 10, -number, 172, FAILED if number == 5 else 0)
        log.close()
        header, records = read_probe_log(tmp_path / role)
        assert header == {"role": role, "flow": 3, "rate": 50}
        assert list(records["sequence"]) == list(range(300)) and list(records[names[1]]) == [
            -number for number in range(300)]
        assert records[names[0]][7] == 70 and records["flags"][5] == FAILED and records["octets"][9] == 172


@given(cut=st.integers(1, 31))
def test_a_record_cut_short_is_left_out(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("log") / "log"
    log = ProbeLogWriter(path, "receiver", {})
    log.append(1, 2, 3, 4)
    log.append(2, 3, 4, 5)
    log.close()
    path.write_bytes(path.read_bytes()[:-cut])
    assert list(read_probe_log(path)[1]["sequence"]) == [1]


@pytest.mark.parametrize("data", [b"", b"fbprobe1", b"fbprobe1\x04\0\0\0{}{}", b"fbprobe1\xff\0\0\0{}",
                                  b'fbprobe1\x10\0\0\0{"role": "none"}'])
def test_what_is_no_probe_log_is_refused(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ValueError, match="is not a probe log"):
        read_probe_log(tmp_path / "x")


def test_log_columns_are_what_accounting_takes(tmp_path):
    writers = [ProbeLogWriter(tmp_path / role, role, {}) for role in ("sender", "receiver")]
    for number in range(4):
        writers[0].append(number, number * 10, number * 10, 100)
    for number in (0, 3, 1):
        writers[1].append(number, number * 10, 100 + number, 100)
    for writer in writers:
        writer.close()
    sent, received = (read_probe_log(tmp_path / role)[1] for role in ("sender", "receiver"))
    counts = account(Sent(sent["sequence"], sent["sent_ns"], sent["octets"]),
                     Received(received["sequence"], received["received_ns"], received["octets"]))
    assert (counts.lost, counts.reordered) == (1, 0), "arrivals are ordered by time, not by the log"


@pytest.mark.parametrize("arguments, complaint", [
    ([], "MODE"),
    (["udp-send", "--local", "::", "--remote", "::", "--remote-port", "1", "--send-log", "x", "--size", "7"],
     "'7' is not a number from 24 to 65000"),
    (["udp-send", "--local", "::", "--remote", "::", "--remote-port", "1", "--send-log", "x", "--rate", "no"],
     "'no' is not a number"),
])
def test_wrong_arguments_are_named(capsys, arguments, complaint):
    with pytest.raises(SystemExit) as ended:
        probe.main(arguments)
    assert ended.value.code == 2 and complaint in capsys.readouterr().err


def report(tmp_path, name, **parts):
    (tmp_path / name).write_text(json.dumps({"role": name, "started_s": 1.0, "report": parts}))
    return tmp_path / name


def intervals(**stream):
    return [{"streams": [stream | {"rtt": rtt}], "sum": {
        "start": number * 0.1, "end": number * 0.1 + 0.1, "bits_per_second": 8e6}}
        for number, rtt in enumerate((20000, 30000, 25000))]


def test_a_reversed_transfer_has_its_goodput_from_the_client_and_its_round_trips_from_the_server(tmp_path):
    client = report(tmp_path, "client", start={"test_start": {"reverse": 1}}, intervals=intervals(), end={
        "sum_sent": {"retransmits": 4}, "sum_received": {"bits_per_second": 8e6, "bytes": 300000},
        "sender_tcp_congestion": "cubic"})
    server = report(tmp_path, "server", intervals=intervals(), end={})
    found = read_iperf(client, server)
    assert (found.goodput_bps, found.octets, found.retransmits) == (8e6, 300000, 4)
    assert found.round_trip_ms == {"p50": 25.0, "p95": 30.0, "max": 30.0}
    assert len(found.intervals) == 3 and found.congestion_control == "cubic" and found.error is None


def test_a_transfer_that_died_has_an_error_and_nothing_else(tmp_path):
    found = read_iperf(report(tmp_path, "client", error="control socket has closed"), tmp_path / "none")
    assert found.error == "control socket has closed" and found.goodput_bps is None and found.intervals == []
    (tmp_path / "client").write_text("{")
    with pytest.raises(ValueError, match="is not the log of a bulk transfer"):
        read_iperf(tmp_path / "client")


def test_busy_times_are_joined_and_one_coarse_sample_without_idle_time_is_forgiven(tmp_path):
    quiet = [MachineSample(number / 10, 0.5, 0.0, 0.3) for number in range(40)]
    samples = dict(enumerate(quiet))
    samples[5] = MachineSample(0.5, 0.0, 0.0, 8.0)
    samples[10] = MachineSample(1.0, 0.0, 0.0, 4.0)
    samples[12] = MachineSample(1.2, 0.1, 0.3, 0.5)
    samples[30] = MachineSample(3.0, 0.9, 0.0, 25.0)
    log = tmp_path / "machine.jsonl"
    log.write_text("\n".join(json.dumps(asdict(one)) for one in samples.values()) + '\n{"t": 4')
    first, second = busy_spans(read_machine(log))
    assert (first.start, first.end, first.idle, first.steal, first.late_ms) == (0.9, 1.2, 0.0, 0.3, 4.0)
    assert second.end == 3.0 and "From 1.9 s to 2.0 s" in second.text(origin=1.0)
    assert "25 ms late" in second.text()


def test_a_busy_time_begins_when_the_canary_ought_to_have_been_woken():
    quiet = [MachineSample(number / 10, 0.5, 0.0, 0.3) for number in range(20)]
    (found,) = busy_spans([*quiet, MachineSample(3.2, 0.9, 0.0, 1200.0)])
    assert (found.start, found.end) == (2.0, 3.2)


def test_a_machine_that_stood_still_did_so_no_longer_than_nobody_was_woken():
    busy = [MachineSample(number / 10, 0.0, 0.0, late) for number, late in enumerate([40.0, 20.0, 90.0] * 5)]
    samples = [*busy, MachineSample(2.7, 0.0, 0.0, 1200.0), MachineSample(2.8, 0.0, 0.0, 60.0)]
    (span,) = busy_spans(samples)
    assert (span.end - span.start) > 2.8
    assert standstills(samples) == [(pytest.approx(1.5), 2.7)]


def test_metadata_names_the_machine_and_takes_further_facts():
    facts = metadata(seed=3, topology={"networks": 2})
    assert facts["seed"] == 3 and facts["kernel"] and facts["versions"]["python"] and facts["processors"] >= 1
    assert SimpleNamespace(**facts).topology == {"networks": 2}
    json.dumps(facts)


@pytest.fixture(params=["TCP", "Multipath TCP"])
def connection(request):
    """Both ends of a connection of this machine with itself."""
    protocol = 0 if request.param == "TCP" else probe._MULTIPATH_TCP
    try:
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, protocol)
    except OSError:
        pytest.skip("this kernel has no Multipath TCP")
    with listener, socket.socket(socket.AF_INET6, socket.SOCK_STREAM, protocol) as client:
        listener.bind(("::1", 0))
        listener.listen(1)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            yield server, client


class Stopped:
    """A `Stop` without signals, which belong to a main thread."""

    def __init__(self):
        self.is_set = False
        self._ends = socket.socketpair()

    def set(self):
        self.is_set = True
        self._ends[1].send(b"x")

    fileno = property(lambda self: self._ends[0].fileno)

    def wait_until(self, due_ns):
        return bool(select.select([self], [], [], max(due_ns - time.monotonic_ns(), 0) / 1e9)[0])


def test_a_bulk_transfer_is_logged_at_both_ends_and_has_the_kernels_figures(tmp_path, connection):
    def end(name, sock):
        logs = [ProbeLogWriter(tmp_path / f"{name}-{role}", role, {}) for role in ("sender", "receiver")]
        return probe_tcp.RecordConnection(sock, 7, *logs), logs

    (server, server_logs), (client, client_logs) = (
        end(name, sock) for name, sock in zip(("server", "client"), connection, strict=True))
    schedule = {"size": 4096, "per_second": 2000, "pattern": "constant", "seed": 1, "duration_s": 0.5}
    with ThreadPoolExecutor() as threads:
        sending = threads.submit(probe_tcp.send_bulk, server, Stopped(), 2.0, **schedule)
        receiving = threads.submit(probe_tcp.receive_bulk, client, Stopped(), 2.0)
        sent, received = sending.result(), receiving.result()
    for log in (*server_logs, *client_logs):
        log.close()
    assert sent["sent"] == received["received"] == 1000 and received["sent"] == 0
    assert sent["retransmits"] < 50  # a processor that is late looks like a loss
    assert 0 < sent["round_trip_ms"]["p50"] <= sent["round_trip_ms"]["max"] < 50
    assert received["ended"] == "closed"
    records = read_probe_log(tmp_path / "client-receiver")[1]
    assert list(records["sequence"]) == list(range(1000)) and set(records["octets"]) == {4096}


def test_every_subflow_of_a_connection_has_its_round_trip(connection):
    server, client = connection
    client.sendall(b"x" * 10_000)
    assert server.recv(1)
    found = tcp_information(client)
    assert len(found) == 1 and 0 < found[0][0] < 50
    client.close()
    with pytest.raises(OSError):
        tcp_information(client)
