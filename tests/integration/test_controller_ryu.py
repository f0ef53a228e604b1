"""The same controller on Ryu 4.34, if $FLOWBIND_RYU_PYTHON names the Python of an environment that has it."""

import os

import pytest
from controller_network import OURS, ControllerNetwork, needs_switches

from testbed.emulation.process import wait_until

pytestmark = needs_switches

PYTHON = os.environ.get("FLOWBIND_RYU_PYTHON")


@pytest.mark.skipif(not PYTHON, reason="no environment with Ryu: $FLOWBIND_RYU_PYTHON")
def test_the_same_app_runs_on_ryu(tmp_path):
    with ControllerNetwork(tmp_path, python=PYTHON, library="ryu") as network:
        assert network.controller.ask("status")["library"].startswith("ryu ")
        selector = {"next_header": "udp", "source_port": "5001"}
        network.bind("add", 1, bids=["mn-wlan", "mn-cellular"], action="n-cast", **selector)
        network.await_mirrored(1)
        (arrived,) = network.run(0.5, network.probe("copies", 5001))
        assert arrived.lost == 0 and arrived.duplicates == arrived.sent
        network.daemon.ofctl("del-flows", "s0", f"{OURS},table=10")
        wait_until(lambda: network.rules("s0", fid=1), 30, "the repair")
