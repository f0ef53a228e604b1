"""A program as experiments are: `isolated_program.py END`, where END is wait, raise or exit.

Prints a line for each step: isolated, started, ready, then ends as told; "stopped" when it was in good order.
"""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from testbed.isolation import isolate  # noqa: E402


def main(end: str) -> None:
    isolate()
    print("isolated", flush=True)
    from testbed.emulation.network import Network
    from topologies.multihome import MultihomeTopology

    with Network(MultihomeTopology()) as network:
        print("started", flush=True)
        network["mn"].await_care_of_addresses()
        network["cn"].spawn("sleep", "1000", log="sleep.log")
        print("ready", flush=True)
        if end == "wait":
            signal.pause()
        if end == "raise":
            raise RuntimeError("as told")
    print("stopped", flush=True)
    sys.exit(3)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.exit(130)
