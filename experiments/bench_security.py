#!/usr/bin/env python3
"""Measure what authentication costs: microseconds of each step, on one message after the other.

    python experiments/bench_security.py [--times 5000]
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path as FilePath

sys.path.insert(0, str(FilePath(__file__).resolve().parents[1]))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

from testbed.mobility.authentication import SecurityAssociation, Signer, is_signed  # noqa: E402
from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration  # noqa: E402
from testbed.wire.codec import Codec  # noqa: E402
from testbed.wire.message import BindingUpdate  # noqa: E402
from testbed.wire.option import BindingIdentifier  # noqa: E402
from testbed.wire.packet import Packet, build_packet, parse_packet  # noqa: E402

HOME_AGENT, HOME_ADDRESS = IPv6Address("2001:db8:100::1"), IPv6Address("2001:db8:100::100")
CARE_OF_ADDRESS = IPv6Address("2001:db8:201::a")
NOW = 1.7e9


def microseconds(work: Callable[[], object], times: int) -> float:
    """How long `work` takes, the mean of `times` runs."""
    begun = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - begun) / times * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=5000, metavar="N", help="runs of each step (5000)")
    times = parser.parse_args().times
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

    for name, work in (
        ("sign a Binding Update", lambda: signer.sign(update, CARE_OF_ADDRESS, HOME_ADDRESS, NOW)),
        ("make octets of it", lambda: build_packet(packet, codec)),
        ("parse it", lambda: parse_packet(octets, codec)),
        ("verify its authenticator", lambda: is_signed(received, key, CARE_OF_ADDRESS, HOME_ADDRESS)),
        ("parse a forged one and reject it", reject),
    ):
        print(f"{name:36}{microseconds(work, times):8.1f} us")


if __name__ == "__main__":
    main()
