"""Mininet's own `mn` command with the multihomed network in it: `python -m testbed.emulation.mn [OPTIONS]`.

Options are those of `mn`. Without `--topo` it loads the multihomed topology with running agents; parameters
of that go behind a comma: `--topo multihome,mobile_nodes=2,agents=1`. Unlike `mn` itself, it works in private
namespaces and leaves kernel-wide settings as they are.

Function: `main`.
"""

import runpy
import sys
from pathlib import Path

from testbed.isolation import isolate

TOPOLOGY = Path(__file__).resolve().parents[2] / "topologies" / "multihome.py"


HELP = """\
./run mn: Mininet's own command (its options are below), with the multihomed network and running agents:
mn, the mobile node; ha, its home agent; cn, a correspondent node; ar1, ar2 (wlan, cellular), core, hn.
In it, for example:

  mininet> mn flowbind bindings                      the care-of addresses that are registered
  mininet> mn flowbind flow add 1 --to wlan --next-header icmpv6
  mininet> mn ping -c 3 cn
  mininet> link mn ar1 down                          lose a network (up: get it back)
  mininet> mn flowbind --help
  mininet> exit

Parameters of the network, and other networks:

  sudo ./run mn --topo multihome,agents=1,mobile_nodes=2
  sudo ./run mn --custom topologies/nemo.py --topo nemo,agents=1
  sudo ./run mn --custom topologies/sdn.py --topo sdn,agents=True --controller flowbind

docs/labs.md begins here. Nothing stays after it. What follows is Mininet's.
"""


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(HELP, flush=True)
    else:
        isolate()
    import mininet.clean
    from mininet.net import Mininet

    Mininet.inited = True  # it would raise kernel-wide limits
    mininet.clean.cleanup = _end_after_error
    options = sys.argv[1:]
    if not any(option == "--topo" or option.startswith("--topo=") for option in options):
        options = ["--topo", "multihome,agents=1", *options]
    if not any(option == "--controller" or option.startswith("--controller=") for option in options):
        options = ["--controller", "none", *options]  # this network has no switches
    sys.argv[1:] = ["--custom", str(TOPOLOGY), *options]
    runpy.run_path(str(Path(sys.prefix, "bin", "mn")), run_name="__main__")


def _end_after_error() -> None:
    """In place of Mininet's clean-up, which would delete files: the namespaces end anyway."""
    if sys.exc_info()[0]:
        raise SystemExit(2)


if __name__ == "__main__":
    main()
