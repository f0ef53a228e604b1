"""The six kinds of applications that the main experiments run, all from the correspondent node to the mobile
node's home address. Function: `six_applications`. `PORTS`.

Loads fit the smallest default network together: what gets lost is lost to mobility, not to queues.
"""

from testbed.experiment.run import Run
from testbed.measure.traffic import BulkTransfer, TcpProbe, Traffic, UdpProbe

#: Of the correspondent node, which traffic selectors name; in the order in which flows are shown.
PORTS = {"ssh": 22, "https": 443, "web": 80, "voip": 5004, "video": 5006, "background": 8080}
_HTTPS_BPS, _BACKGROUND_BPS = 5_000_000, 2_000_000
_VIDEO_BPS, _VIDEO_OCTETS = 5_000_000, 1200


def six_applications(run: Run, seed: int) -> list[Traffic]:
    """Interactive TCP, a download, web pages, a call, a video and a transfer in the background."""
    ends = run.correspondent, run.mobile, run.logs

    def tcp(name: str, number: int, **more: object) -> Traffic:
        return TcpProbe(name, number, *ends, port=PORTS[name], seed=seed + number, **more)

    def udp(name: str, number: int, **more: object) -> Traffic:
        return UdpProbe(name, number, *ends, port=PORTS[name], seed=seed + number, **more)

    def bulk(name: str, bitrate: int) -> Traffic:
        return BulkTransfer(name, *ends, port=PORTS[name], bitrate=bitrate)

    return [
        tcp("ssh", 1, kind="interactive", per_second=20, size=64),
        bulk("https", _HTTPS_BPS),
        tcp("web", 2, kind="web", per_second=1, page_size=60_000),
        udp("voip", 3, per_second=50, size=172),
        udp("video", 4, per_second=_VIDEO_BPS / 8 / _VIDEO_OCTETS, size=_VIDEO_OCTETS),
        bulk("background", _BACKGROUND_BPS),
    ]
