#!/usr/bin/env python3
"""What authentication costs: microseconds of processor time of each step, on one message after the other."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path as FilePath

sys.path.insert(0, str(FilePath(__file__).resolve().parents[1]))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

from testbed.experiment import bench  # noqa: E402
from testbed.experiment.bench import Figure  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402
from testbed.mobility.authentication import SecurityAssociation, Signer, is_signed  # noqa: E402
from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration  # noqa: E402
from testbed.wire.codec import Codec  # noqa: E402
from testbed.wire.message import BindingUpdate  # noqa: E402
from testbed.wire.option import BindingIdentifier  # noqa: E402
from testbed.wire.packet import Packet, build_packet, parse_packet  # noqa: E402

DESCRIPTION = """\
A Binding Update with one Binding Identifier option is signed (RFC 4285), made octets of, parsed and verified;
a forged one is parsed and rejected. Each step many times over, by itself.
"""
EPILOG = """\
There is no goal: `bench control` has that of the whole. It needs no root. Example:
  ./run bench security --times 20000
"""
HOME_AGENT, HOME_ADDRESS = IPv6Address("2001:db8:100::1"), IPv6Address("2001:db8:100::100")
CARE_OF_ADDRESS = IPv6Address("2001:db8:201::a")
NOW = 1.7e9


def microseconds(work: Callable[[], object], times: int) -> float:
    """How long `work` takes, the mean of `times` runs."""
    begun = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begun) / times * 1e6


def main() -> int:
    made = bench.parser("security", DESCRIPTION, EPILOG, 5, "500 runs of each step")
    made.add_argument("--times", type=int, metavar="N", help="runs of each step (5000)")
    options = bench.parse(made)
    times = options.times or (500 if options.quick else 5000)
    codec, key = Codec(require_alignment=True), SecurityAssociation(1000, bytes(range(16)))
    signer = Signer(key, lambda now: now, codec)
    configuration = HomeAgentConfiguration(
        HOME_AGENT, (IPv6Network("2001:db8:100::/64"),), associations={HOME_ADDRESS: key}
    )
    home_agent = HomeAgent(configuration, NOW, codec, lambda now: now)
    option = BindingIdentifier(1, priority=10, care_of_address=CARE_OF_ADDRESS)
    update = BindingUpdate(1, 60, acknowledge=True, home_registration=True, options=(option,))
    signed = signer.sign(update, CARE_OF_ADDRESS, HOME_ADDRESS, NOW)
    packet = Packet(CARE_OF_ADDRESS, HOME_AGENT, signed, home_address=HOME_ADDRESS)
    octets = build_packet(packet, codec)
    forged = build_packet(replace(packet, message=replace(signed, sequence=2)), codec)
    received = parse_packet(octets, codec)

    def reject() -> None:
        home_agent.receive(parse_packet(forged, codec), "eth0", NOW)
        home_agent.transmissions(), home_agent.events()

    steps = (
        ("sign a Binding Update", lambda: signer.sign(update, CARE_OF_ADDRESS, HOME_ADDRESS, NOW)),
        ("make octets of it", lambda: build_packet(packet, codec)),
        ("parse it", lambda: parse_packet(octets, codec)),
        ("verify its authenticator", lambda: is_signed(received, key, CARE_OF_ADDRESS, HOME_ADDRESS)),
        ("parse a forged one and reject it", reject),
    )
    shown = [
        Figure(name, "us", [microseconds(work, times) for _ in range(options.repetitions)])
        for name, work in steps
    ]
    return bench.finish("security", options, shown, times=times)


if __name__ == "__main__":
    sys.exit(guarded("bench security", main))
