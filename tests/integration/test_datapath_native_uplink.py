"""A mobile node answers without a tunnel where packets come without one (`NativeUplink`)."""

from collections.abc import Iterator

import pytest
from datapath_bed import UDP, Bed, mirrored, packet
from datapath_network import CELLULAR, HOME_ADDRESS, WLAN, Capture, binding, send_raw, wait_for

from testbed.datapath.native_uplink import TUNNEL_DEVICE, NativeUplink
from testbed.mobility.forwarding import Action, FlowRule
from testbed.wire.selector import IPv6TrafficSelector

FLOW = FlowRule(1, 1, IPv6TrafficSelector(source_port=(4001, 4001)), Action.FORWARD, (1,))
CARE_OF = {1: WLAN, 2: CELLULAR}


@pytest.fixture
def uplink(bed: Bed) -> Iterator[NativeUplink]:
    device = TUNNEL_DEVICE if bed.mobile.backend == "ip6tnl" else None
    uplink = bed.mn.run(lambda: NativeUplink(device))
    for bid, node in ((1, bed.network.ar1), (2, bed.network.ar2)):
        node.shell(f"ip -6 route add {HOME_ADDRESS} via {CARE_OF[bid]} dev access")
    yield uplink
    bed.mn.run(uplink.close)
    for node in (bed.network.ar1, bed.network.ar2):
        node.shell(f"ip -6 route del {HOME_ADDRESS}")


def follow(bed: Bed, uplink: NativeUplink, default: int) -> None:
    bed.bind(default=default, rules=(FLOW,))
    wanted = {HOME_ADDRESS: binding(False, default=default, rules=(FLOW,))}
    bed.mn.run(lambda: uplink.apply(wanted, bed.mobile.slots))


@pytest.mark.parametrize("port, default, bid", [(4001, 2, 1), (5000, 2, 2), (5000, 1, 1)])
def test_packets_without_a_tunnel(bed: Bed, uplink: NativeUplink, port: int, default: int, bid: int):
    """Of a flow binding, and of the default path."""
    follow(bed, uplink, default)
    router = bed.network.ar1 if bid == 1 else bed.network.ar2
    question = packet(UDP, port)
    assert bed.uplink(mirrored(question)) == [bid], "nothing has come without a tunnel yet"
    arriving = Capture(bed.mn, {1: "wlan", 2: "cellular"}[bid])
    send_raw(router, question)
    wait_for(lambda: any(found[6] == UDP and found[-8:] == question[-8:] for found in arriving.packets()))
    arriving.close()
    capture = Capture(router, "access")
    answer = mirrored(packet(UDP, port))
    send_raw(bed.mn, answer)
    wait_for(lambda: any(found[6] == UDP and found[8:] == answer[8:] for found in capture.packets()))
    capture.close()
    assert bed.downlink(packet(UDP, port)) == [bid], "in the tunnel again"
    assert bed.uplink(mirrored(question)) == [bid]


def test_packets_whose_path_leads_elsewhere(bed: Bed, uplink: NativeUplink):
    """What comes without a tunnel changes no path."""
    follow(bed, uplink, default=2)
    question = packet(UDP, 5000)
    arriving = Capture(bed.mn, "wlan")
    send_raw(bed.network.ar1, question)
    wait_for(lambda: any(found[-8:] == question[-8:] for found in arriving.packets()))
    arriving.close()
    assert bed.uplink(mirrored(packet(UDP, 5000))) == [2]
