"""Bulk transfers with libiperf (through iperf3-python), run inside hosts: `python -m testbed.measure.iperf
ROLE ...`.

One process a transfer: a libiperf test object is single-use and blocks its caller. libiperf writes its
report to the standard output and only at the end, so that goes to a file (a pipe would fill up at 64 KiB
and hang it). SIGTERM at the client ends the transfer properly and early: the client is told that it has
moved enough octets, which lets both ends exchange and report what they have.

The report of the end that sends has retransmissions and round-trip times, that of the receiver the goodput,
so both are kept. Function for the experiment: `read_iperf`.
"""

import argparse
import ctypes
import json
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from testbed.measure.pacing import Stop

MINIMUM_INTERVAL_S = 0.1
#: What a transfer of limited rate writes at a time. By default that is 128 KiB, a burst that fills queues.
LIMITED_BLOCK_OCTETS = 4096
_POLL_S = 0.02
#: libiperf's answer to a stop takes an interval and two round trips; a dead path never answers.
_END_S = 3.0


class IperfTest:
    """One libiperf test on its way in a thread.

    Raises OSError if libiperf is not installed.
    """

    def __init__(self, role: str, options: argparse.Namespace):
        import iperf3

        self._peer = iperf3.Client() if role == "client" else iperf3.Server()
        self._library, self._test = self._peer.lib, self._peer._test
        self._peer.port = options.port
        if role == "client":
            self._peer.server_hostname = options.remote
            self._peer.protocol = "tcp"
            self._peer.duration = options.duration
            self._peer.reverse = options.reverse
            if options.bitrate:
                self._peer.bandwidth = options.bitrate
                self._peer.blksize = LIMITED_BLOCK_OCTETS
        if options.local:
            self._peer.bind_address = options.local
        for name in ("iperf_set_test_reporter_interval", "iperf_set_test_stats_interval"):
            function = getattr(self._library, name)
            function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_double), None
            function(self._test, options.interval)
        self._library.iperf_set_test_bytes.argtypes = (ctypes.c_void_p, ctypes.c_uint64)
        self._library.iperf_set_test_bytes.restype = None
        self._run = self._library.iperf_run_client if role == "client" else self._library.iperf_run_server
        self._output = tempfile.TemporaryFile()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.started_s: float | None = None
        self.failed = False

    def start(self) -> None:
        sys.stdout.flush()
        os.dup2(self._output.fileno(), 1)
        self.started_s = time.monotonic()
        self._thread.start()

    def _work(self) -> None:
        self.failed = self._run(self._test) < 0
        ctypes.CDLL(None).fflush(None)

    def finish(self) -> None:
        """Have the client end at its next look: it compares the octets moved with this limit."""
        self._library.iperf_set_test_bytes(self._test, 1)

    def join(self, timeout_s: float) -> bool:
        """True once the test is over."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def report(self) -> dict:
        """libiperf's own report, with `error` where it failed."""
        self._output.seek(0)
        text = self._output.read().decode(errors="replace")
        try:
            report = json.loads(text[text.index("{"):])
        except ValueError:
            report = {}
        if self.failed and "error" not in report:
            report["error"] = self._peer._error_to_string(self._peer._errno)
        return report


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    stop = Stop()
    results = os.fdopen(os.dup(1), "w")
    try:
        report, started_s = (_client if options.role == "client" else _server)(options, stop, results)
    except OSError as error:
        print(f"iperf {options.role}: {error}", file=sys.stderr)
        return 1
    document = {"role": options.role, "started_s": started_s, "report": report}
    Path(options.log).write_text(json.dumps(document))
    print(json.dumps({"error": report.get("error")}), file=results, flush=True)
    os._exit(0)  # a test that never ended would hold the process


def _client(options, stop: Stop, results) -> tuple[dict, float]:
    """Run the transfer; connect again, for `connect_timeout`, as long as the server refuses."""
    deadline = time.monotonic() + options.connect_timeout
    announced = False
    while True:
        test = IperfTest("client", options)
        test.start()
        while not test.join(MINIMUM_INTERVAL_S if announced else _POLL_S):
            if not announced and _connected(options.remote, options.port):
                print("ready", file=results, flush=True)
                announced = True
            if stop.is_set:
                test.finish()
                if not test.join(_END_S):
                    return {"error": "the path was dead at the end: no report came"}, test.started_s
        report = test.report()
        refused = "unable to connect" in report.get("error", "")
        if refused and not stop.is_set and time.monotonic() < deadline:
            stop.wait_until(time.monotonic_ns() + 100_000_000)
            continue
        if refused:
            raise OSError(report["error"])
        if not announced:
            print("ready", file=results, flush=True)
        return report, test.started_s


def _server(options, stop: Stop, results) -> tuple[dict, float]:
    """Serve one transfer, or none if stopped before."""
    test = IperfTest("server", options)
    test.start()
    announced = False
    while not test.join(MINIMUM_INTERVAL_S if announced else _POLL_S):
        if not announced and _listening(options.port):
            print("ready", file=results, flush=True)
            announced = True
        if stop.is_set and not test.join(_END_S if _has_peer(options.port) else 0):
            return {"error": "stopped before the transfer had ended"}, test.started_s
    return test.report(), test.started_s


def _sockets() -> list[tuple[str, str, str]]:
    """Local address, remote address, state of this namespace's IPv6 TCP sockets, as /proc has them."""
    with open("/proc/self/net/tcp6") as table:
        return [tuple(line.split()[1:4]) for line in table.readlines()[1:]]


def _listening(port: int) -> bool:
    return any(local.endswith(f":{port:04X}") and state == "0A" for local, _, state in _sockets())


def _has_peer(port: int) -> bool:
    return any(local.endswith(f":{port:04X}") and state == "01" for local, _, state in _sockets())


def _connected(address: str, port: int) -> bool:
    """Whether both the control and the data connection to the server are up."""
    return sum(remote.endswith(f":{port:04X}") and state == "01" for _, remote, state in _sockets()) >= 2


@dataclass(frozen=True, slots=True)
class IperfResult:
    """What one transfer moved. Fields are None where the report lacks them.

    `intervals` are (start_s, end_s, goodput_bps) from the receiver's side, seconds from the start of the
    transfer. `round_trip_ms` has p50, p95 and max over the sender's intervals (the kernel's smoothed RTT).
    """

    goodput_bps: float | None
    octets: int | None
    retransmits: int | None
    round_trip_ms: dict[str, float] | None
    congestion_control: str | None
    intervals: list[tuple[float, float, float]]
    error: str | None


def read_iperf(client_log: str | Path, server_log: str | Path | None = None) -> IperfResult:
    """Join the client's report with the server's, which is the sender of a reversed transfer.

    Raises ValueError if the client's is not a log of this module.
    """
    client = _read(client_log)
    server = _read(server_log) if server_log and Path(server_log).exists() else {}
    reversed_ = bool(client.get("start", {}).get("test_start", {}).get("reverse"))
    sender, receiver = (server, client) if reversed_ else (client, server or client)
    total = receiver.get("end", {}).get("sum_received") or {}
    intervals = [(entry["sum"]["start"], entry["sum"]["end"], entry["sum"]["bits_per_second"])
                 for entry in receiver.get("intervals", ()) if entry.get("sum")]
    round_trips = sorted(stream["rtt"] / 1000 for entry in sender.get("intervals", ())
                         for stream in entry["streams"] if stream.get("rtt"))
    sums = (client.get("end", {}).get("sum_sent") or {}), (sender.get("end", {}).get("sum_sent") or {})
    return IperfResult(
        goodput_bps=total.get("bits_per_second"), octets=total.get("bytes"),
        retransmits=next((entry["retransmits"] for entry in sums if "retransmits" in entry), None),
        round_trip_ms=_summary(round_trips) if round_trips else None,
        congestion_control=client.get("end", {}).get("sender_tcp_congestion"), intervals=intervals,
        error=client.get("error"))


def _read(path: str | Path) -> dict:
    try:
        return json.loads(Path(path).read_text())["report"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the log of a bulk transfer: {error}") from error


def _summary(values: list[float]) -> dict[str, float]:
    last = len(values) - 1
    return {"p50": values[round(last * 0.5)], "p95": values[round(last * 0.95)], "max": values[last]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="iperf", description="One bulk TCP transfer with libiperf.")
    roles = parser.add_subparsers(dest="role", required=True, metavar="ROLE")
    for name in ("client", "server"):
        role = roles.add_parser(name, help=f"be the {name}")
        role.add_argument("--local", metavar="ADDRESS", help="own address")
        role.add_argument("--port", type=int, required=True, help="the server's port")
        role.add_argument("--interval", type=float, default=MINIMUM_INTERVAL_S, metavar="SECONDS")
        role.add_argument("--log", required=True, metavar="FILE")
        if name == "client":
            role.add_argument("--remote", required=True, metavar="ADDRESS")
            role.add_argument("--reverse", action="store_true", help="the server sends")
            role.add_argument("--duration", type=int, default=3600, metavar="SECONDS",
                              help="at most so long; SIGTERM ends it earlier")
            role.add_argument("--bitrate", type=int, default=0, metavar="BIT/S",
                              help="0: as fast as TCP goes")
            role.add_argument("--connect-timeout", type=float, default=5.0, metavar="SECONDS")
    return parser


if __name__ == "__main__":
    sys.exit(main())
