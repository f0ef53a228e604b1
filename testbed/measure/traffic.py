"""Traffic between the correspondent node and the mobile node, one object a flow.

Classes: `Host`, `FlowKey`, `Traffic` and its kinds `UdpProbe`, `TcpProbe`, `BulkTransfer`. Functions:
`start_traffic`, `stop_traffic`.

In every kind the correspondent node has the fixed port that a traffic selector names as source port
(selectors describe packets from the correspondent to the mobile node), and the mobile node uses its home
address.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.measure.process import HostProcess, MeasurementError, Popen

_PROBE = "testbed.measure.probe"
_IPERF = "testbed.measure.iperf"
_OWN_END_S = 2.0


@dataclass(frozen=True, slots=True)
class Host:
    """Where to start programs (Mininet: `node.popen`), and the address that they use."""

    popen: Popen
    address: str


@dataclass(frozen=True, slots=True)
class FlowKey:
    """How a flow's packets are told from others in a capture: `protocol` is "tcp" or "udp".

    `downlink` says which direction is measured: from the correspondent node (the usual one) or to it. `also`:
    further addresses of the mobile node (Multipath TCP uses one a path).
    """

    name: str
    protocol: str
    correspondent: str
    port: int
    mobile: str
    downlink: bool = True
    also: tuple[str, ...] = ()


class Traffic:
    """A listener at one end, a talker at the other, their logs in `directory`.

    `logs` are the sender's and the receiver's probe log of the measured direction, None where there are none;
    `kind` is "udp-probe", "interactive", "web" or "bulk"; `spacing_ms` the nominal time between packets or
    records, None for bulk. Raises MeasurementError from `listen` and `talk` if a process does not get ready.
    """

    kind: str
    #: Whether packets are counted by the logs: several connections may carry one flow, or none be captured.
    counted_by_logs = False
    logs: tuple[Path, Path] | None = None
    spacing_ms: float | None = None

    def __init__(self, key: FlowKey, correspondent: Host, mobile: Host, directory: str | Path):
        self.key = key
        self.name = key.name
        self.correspondent = correspondent
        self.mobile = mobile
        self.directory = Path(directory)
        self.summaries: dict[str, dict] = {}
        self.listener: HostProcess | None = None
        self.talker: HostProcess | None = None

    def log(self, part: str) -> Path:
        """The path of one of this flow's logs."""
        return self.directory / f"{self.name}-{part}"

    def listen(self) -> None:
        """Start the process that waits for the other."""
        raise NotImplementedError

    def talk(self) -> None:
        """Start the process that begins."""
        raise NotImplementedError



class UdpProbe(Traffic):
    """Numbered datagrams at `per_second`; `number` tells flows apart in packets and logs."""

    kind = "udp-probe"
    counted_by_logs = True

    def __init__(self, name: str, number: int, correspondent: Host, mobile: Host, directory: str | Path, *,
                 port: int, per_second: float, size: int, seed: int = 0, pattern: str = "constant",
                 downlink: bool = True):
        key = FlowKey(name, "udp", correspondent.address, port, mobile.address, downlink)
        super().__init__(key, correspondent, mobile, directory)
        self.spacing_ms = 1000 / per_second
        self._flow = ["--flow", number]
        self._schedule = ["--rate", per_second, "--size", size, "--pattern", pattern, "--seed", seed]
        self.logs = self.log("sent.probe"), self.log("received.probe")
        self._from, self._to = (correspondent, mobile) if downlink else (mobile, correspondent)

    def listen(self) -> None:
        self.listener = HostProcess(self._to.popen, f"receiver of {self.name}", _PROBE, [
            "udp-receive", "--local", self._to.address, "--local-port", self.key.port, *self._flow,
            "--receive-log", self.logs[1]])

    def talk(self) -> None:
        self.talker = HostProcess(self._from.popen, f"sender of {self.name}", _PROBE, [
            "udp-send", "--local", self._from.address, "--local-port", self.key.port,
            "--remote", self._to.address, "--remote-port", self.key.port, *self._flow, *self._schedule,
            "--send-log", self.logs[0]])


class TcpProbe(Traffic):
    """Numbered records on one TCP connection, the server at the correspondent node.

    `kind` "interactive": both ends send `size` octets `per_second` times. "web": the mobile node asks for a
    page of `page_size` octets `per_second` times; requests are `size` octets long. "bulk": the correspondent
    node alone sends, `size` octets `per_second` times: what `BulkTransfer` does, where libiperf cannot.

    `paths`: use Multipath TCP (RFC 8684), and these are the mobile node's other addresses for it. Then
    records are counted, not packets: a packet sent again on another path is the same record.
    """

    def __init__(self, name: str, number: int, correspondent: Host, mobile: Host, directory: str | Path, *,
                 port: int, kind: str = "interactive", per_second: float = 20.0, size: int = 64,
                 page_size: int = 200_000, seed: int = 0, pattern: str = "constant", downlink: bool = True,
                 paths: Sequence[str] | None = None):
        key = FlowKey(name, "tcp", correspondent.address, port, mobile.address, downlink, tuple(paths or ()))
        super().__init__(key, correspondent, mobile, directory)
        self.counted_by_logs = paths is not None
        self.kind, self.spacing_ms = kind, None if kind == "bulk" else 1000 / per_second
        self._common = ["--kind", kind, "--flow", number, "--rate", per_second, "--size", size,
                        "--pattern", pattern, "--page-size", page_size,
                        *(["--multipath"] if paths is not None else [])]
        self._seed = seed
        ends = ("server", "client") if downlink else ("client", "server")
        self.logs = self.log(f"{ends[0]}-sent.probe"), self.log(f"{ends[1]}-received.probe")

    def _logs(self, end: str) -> list[object]:
        return ["--send-log", self.log(f"{end}-sent.probe"),
                "--receive-log", self.log(f"{end}-received.probe")]

    def listen(self) -> None:
        self.listener = HostProcess(self.correspondent.popen, f"server of {self.name}", _PROBE, [
            "tcp-listen", "--local", self.correspondent.address, "--local-port", self.key.port, *self._common,
            "--seed", self._seed, *self._logs("server")])

    def talk(self) -> None:
        self.talker = HostProcess(self.mobile.popen, f"client of {self.name}", _PROBE, [
            "tcp-connect", "--local", self.mobile.address, "--remote", self.correspondent.address,
            "--remote-port", self.key.port, *self._common, "--seed", self._seed + 1, *self._logs("client")])


class BulkTransfer(Traffic):
    """A TCP transfer by iperf3, the server at the correspondent node; `bitrate` 0 is as fast as TCP goes."""

    kind = "bulk"

    def __init__(self, name: str, correspondent: Host, mobile: Host, directory: str | Path, *, port: int,
                 bitrate: int = 0, downlink: bool = True):
        super().__init__(FlowKey(name, "tcp", correspondent.address, port, mobile.address, downlink),
                         correspondent, mobile, directory)
        self.bitrate = bitrate
        self.reports = self.log("client.json"), self.log("server.json")

    def listen(self) -> None:
        self.listener = HostProcess(self.correspondent.popen, f"iperf3 server of {self.name}", _IPERF, [
            "server", "--local", self.correspondent.address, "--port", self.key.port,
            "--log", self.reports[1]])

    def talk(self) -> None:
        self.talker = HostProcess(self.mobile.popen, f"iperf3 client of {self.name}", _IPERF, [
            "client", "--local", self.mobile.address, "--remote", self.correspondent.address,
            "--port", self.key.port, "--bitrate", self.bitrate, "--log", self.reports[0],
            *(["--reverse"] if self.key.downlink else [])])


def start_traffic(traffic: Iterable[Traffic], timeout_s: float = 60.0) -> None:
    """Start all, the listeners first. Raises MeasurementError for the first that does not get ready."""
    traffic = list(traffic)
    for one in traffic:
        one.listen()
    for one in traffic:
        one.listener.wait_ready(timeout_s)
    for one in traffic:
        one.talk()
    for one in traffic:
        one.talker.wait_ready(timeout_s)


def stop_traffic(traffic: Iterable[Traffic], timeout_s: float = 10.0) -> dict[str, str]:
    """End all flows, the talkers first, so that what is under way arrives; fill in their `summaries`.

    Returns the errors by name of the flow: a transfer that died is a result, too.
    """
    traffic = [one for one in traffic if one.listener]
    errors: dict[str, str] = {}

    def collect(one: Traffic, part: str, process: HostProcess) -> None:
        try:
            one.summaries[part] = process.wait(timeout_s)
        except MeasurementError as error:
            errors[one.name] = str(error)

    for one in traffic:
        if one.talker:
            one.talker.terminate()
    for one in traffic:
        if one.talker:
            collect(one, "talker", one.talker)
    for one in traffic:
        # A TCP server sees its client leave and ends by itself; a UDP receiver cannot know.
        if isinstance(one, UdpProbe) or not one.talker or not one.listener.ends_within(_OWN_END_S):
            one.listener.terminate()
    for one in traffic:
        collect(one, "listener", one.listener)
        one.listener = one.talker = None
    return errors
