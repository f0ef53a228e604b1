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


def main() -> None:
    isolate()
    import mininet.clean
    from mininet.net import Mininet

    Mininet.inited = True  # it would raise kernel-wide limits
    mininet.clean.cleanup = lambda: None  # after an error: it would delete files; the namespaces end anyway
    options = sys.argv[1:]
    if not any(option == "--topo" or option.startswith("--topo=") for option in options):
        options = ["--topo", "multihome,agents=1", *options]
    if not any(option == "--controller" or option.startswith("--controller=") for option in options):
        options = ["--controller", "none", *options]  # this network has no switches
    sys.argv[1:] = ["--custom", str(TOPOLOGY), *options]
    runpy.run_path(str(Path(sys.prefix, "bin", "mn")), run_name="__main__")


if __name__ == "__main__":
    main()
