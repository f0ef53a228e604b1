"""The datapath's own devices are ready for packets as soon as they are there."""

import socket
from collections.abc import Iterator

import pytest
from datapath_network import Namespace

from testbed.datapath.device import DetourDevice
from testbed.datapath.netlink import ROUTE, Netlink

ETH_P_EXPERIMENT = 0x88B5
ROUNDS = 100
#: Keeps the kernel from telling devices of their carrier at once, as many nodes that start together do.
BUSY = """
while :; do
    ip link add left type veth peer name right
    ip link set left up
    ip link set right up
    ip link del left
done
"""


@pytest.fixture
def node() -> Iterator[Namespace]:
    nodes = [Namespace(name) for name in ("node", "busy", "busier")]
    for other in nodes[1:]:
        other.start("sh", "-c", BUSY)
    yield nodes[0]
    for each in nodes:
        each.close()


def test_what_enters_the_detour_at_once_leaves_it(node: Namespace):
    detour = node.run(lambda: DetourDevice(Netlink(ROUTE), "detour0", "detour1", 1460))
    for number in range(ROUNDS):
        entry, leaving = (node.socket(socket.SOCK_RAW, family=socket.AF_PACKET) for _ in range(2))
        with entry, leaving:
            node.run(detour.ensure)
            leaving.bind((detour.exit_name, ETH_P_EXPERIMENT))
            entry.bind((detour.name, 0))
            frame = b"\x02flowb" * 2 + ETH_P_EXPERIMENT.to_bytes(2) + number.to_bytes(60)
            entry.send(frame)
            assert leaving.recv(100) == frame
        node.run(detour.remove)
