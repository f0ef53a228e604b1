#!/usr/bin/env python3
"""Bindings at the home agent against bindings at the correspondent node, over the distance to the home
agent."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

from testbed.experiment.distance import compare_over_distance  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402

DESCRIPTION = """\
Flows through the home agent, and flows straight from the correspondent node to the care-of addresses (route
optimisation), while the home agent is ever farther away; a network is lost and comes back.
"""


def main() -> int:
    return compare_over_distance("optimisation", "route-optimised", DESCRIPTION)


if __name__ == "__main__":
    sys.exit(guarded("optimisation", main))
