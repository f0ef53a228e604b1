"""The sequence probe, run inside hosts: `python -m testbed.measure.probe MODE ...`.

Modes: `udp-send`, `udp-receive`; `tcp-connect` and `tcp-listen` for `interactive` records both ways, `web`
pages, or `bulk` records from the server alone. It prints `ready`, runs until SIGTERM or --duration, and
prints a JSON summary. Packets are in the logs (`testbed.measure.probe_log`). Exit code 2: wrong arguments;
1: the network refused.
"""

import argparse
import gc
import json
import select
import socket
import sys
import time

from testbed.measure import probe_tcp, probe_udp
from testbed.measure.pacing import PATTERNS, Stop, arrivals, take_precedence
from testbed.measure.probe_log import ProbeLogWriter

_MULTIPATH_TCP = 262


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    stop = Stop()
    take_precedence()
    gc.disable()  # a collection is a pause, and nothing here makes cycles
    try:
        summary = _MODES[options.mode](options, stop)
    except OSError as error:
        print(f"probe {options.mode} [{options.local}]:{options.local_port}: {error.strerror or error}",
              file=sys.stderr)
        return 1
    print(json.dumps(summary), flush=True)
    return 0


def _udp_send(options, stop: Stop) -> dict:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind((options.local, options.local_port))
        log = ProbeLogWriter(options.send_log, "sender", _header(options))
        try:
            _ready()
            return probe_udp.send(sock, (options.remote, options.remote_port), log, stop, flow=options.flow,
                                  **_schedule(options))
        finally:
            log.close()


def _udp_receive(options, stop: Stop) -> dict:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind((options.local, options.local_port))
        probe_udp.prepare_receiver(sock)
        log = ProbeLogWriter(options.receive_log, "receiver", _header(options))
        try:
            _ready()
            return probe_udp.receive(sock, log, stop, flow=options.flow, drain_s=options.drain)
        finally:
            log.close()


def _tcp_listen(options, stop: Stop) -> dict:
    with _stream(options) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((options.local, options.local_port))
        listener.listen(1)
        _ready()
        select.select([listener, stop], [], [])
        if stop.is_set:
            return {"sent": 0, "failed": 0, "received": 0, "ended": "stopped"}
        sock, _ = listener.accept()
        if options.multipath:  # further paths join by the port that is listened on
            return _tcp(sock, options, stop, server=True)
    return _tcp(sock, options, stop, server=True)


def _tcp_connect(options, stop: Stop) -> dict:
    deadline = time.monotonic() + options.connect_timeout
    for due_ns in arrivals(time.monotonic_ns(), 10):
        sock = _stream(options)
        sock.settimeout(max(deadline - time.monotonic(), 0.1))
        try:
            sock.bind((options.local, options.local_port))
            sock.connect((options.remote, options.remote_port))
            break
        except OSError:
            sock.close()
            if time.monotonic() > deadline or stop.wait_until(due_ns):
                raise
    sock.settimeout(None)
    _ready()
    return _tcp(sock, options, stop, server=False)


def _stream(options) -> socket.socket:
    return socket.socket(socket.AF_INET6, socket.SOCK_STREAM, _MULTIPATH_TCP if options.multipath else 0)


def _tcp(sock: socket.socket, options, stop: Stop, server: bool) -> dict:
    logs = (ProbeLogWriter(options.send_log, "sender", _header(options)),
            ProbeLogWriter(options.receive_log, "receiver", _header(options)))
    connection = probe_tcp.RecordConnection(sock, options.flow, *logs)
    try:
        if server and options.kind == "web":
            return probe_tcp.serve_pages(connection, stop, options.drain, options.page_size)
        if options.kind == "bulk" and not server:
            return probe_tcp.receive_bulk(connection, stop, options.drain)
        if options.kind == "bulk":
            return probe_tcp.send_bulk(connection, stop, options.drain, **_schedule(options))
        return probe_tcp.exchange_records(connection, stop, options.drain, **_schedule(options))
    finally:
        for log in logs:
            log.close()


_MODES = {"udp-send": _udp_send, "udp-receive": _udp_receive, "tcp-listen": _tcp_listen,
          "tcp-connect": _tcp_connect}


def _ready() -> None:
    print("ready", flush=True)


def _schedule(options) -> dict:
    return {"size": options.size, "per_second": options.rate, "pattern": options.pattern,
            "seed": options.seed, "duration_s": options.duration}


def _header(options) -> dict:
    return {name: getattr(options, name, None) for name in (
        "mode", "kind", "flow", "local", "local_port", "remote", "remote_port", "rate", "size", "pattern",
        "seed", "page_size")}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="probe", description="Numbered, time-stamped packets or records.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="MODE")
    for name, explanation in (("udp-send", "send numbered datagrams"), ("udp-receive", "log what arrives"),
                              ("tcp-listen", "be the server of one connection"),
                              ("tcp-connect", "be the client of one connection")):
        mode = modes.add_parser(name, help=explanation, description=explanation)
        mode.add_argument("--local", required=True, metavar="ADDRESS", help="own IPv6 address")
        mode.add_argument("--local-port", type=int, default=0, metavar="PORT")
        mode.add_argument("--flow", type=_number(int, 0, 0xFFFF), default=0, metavar="0..65535",
                          help="number in each packet; others are not counted")
        if name in ("udp-send", "tcp-connect"):
            mode.add_argument("--remote", required=True, metavar="ADDRESS")
            mode.add_argument("--remote-port", type=int, required=True, metavar="PORT")
        if name == "tcp-connect":
            mode.add_argument("--connect-timeout", type=float, default=5.0, metavar="SECONDS")
        if name != "udp-receive":
            mode.add_argument("--rate", type=_number(float, 0.001, 1e6), default=20.0, metavar="PER_SECOND")
            mode.add_argument("--size", type=_number(int, probe_udp.HEADER.size, 65000), default=160,
                              metavar="OCTETS", help="payload of a datagram, or length of a record")
            mode.add_argument("--pattern", choices=PATTERNS, default="constant")
            mode.add_argument("--seed", type=int, default=0)
            mode.add_argument("--duration", type=float, default=None, metavar="SECONDS")
            mode.add_argument("--send-log", required=True, metavar="FILE")
        if name != "udp-send":
            mode.add_argument("--receive-log", required=True, metavar="FILE")
            mode.add_argument("--drain", type=_number(float, 0.01, 60), metavar="SECONDS",
                              default=0.3 if name == "udp-receive" else 2.0,
                              help="after SIGTERM: silence to wait for (UDP), patience with the peer (TCP)")
        if name.startswith("tcp"):
            mode.add_argument("--kind", choices=("interactive", "web", "bulk"), required=True)
            mode.add_argument("--multipath", action="store_true", help="use Multipath TCP")
            mode.add_argument("--page-size", type=_number(int, probe_tcp.HEADER.size, 1 << 30),
                              default=200_000, metavar="OCTETS")
    return parser


def _number(kind: type, low: float, high: float):
    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
        return value
    return parse


if __name__ == "__main__":
    sys.exit(main())
