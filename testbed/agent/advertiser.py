"""Router Advertisements with MAP options, which radvd does not send (RFC 4861 §6.2, RFC 5380 §7).

`python -m testbed.agent.advertiser --interface lan0 --prefix 2001:db8:201::/64 --map 2001:db8:500::1,2`

Functions: `main`. It advertises at a fixed interval and answers Router Solicitations at once.
"""

import argparse
import select
import socket
import struct
import time
from ipaddress import IPv6Address, IPv6Network

from testbed.wire.router_advertisement import (
    AdvertisementInterval,
    MobilityAnchorPoint,
    PrefixInformation,
    RouterAdvertisement,
    SourceLinkLayerAddress,
)

_ICMPV6_FILTER, _ROUTER_SOLICITATION = 1, 133
_ALL_NODES, _ALL_ROUTERS, _HOP_LIMIT = "ff02::1", "ff02::2", 255


def anchor_point(text: str) -> MobilityAnchorPoint:
    """`ADDRESS[,DISTANCE[,PREFERENCE[,LIFETIME]]]`. Raises ValueError."""
    address, *numbers = text.split(",")
    return MobilityAnchorPoint(IPv6Address(address), *map(int, numbers))


def main(arguments: list[str] | None = None) -> None:
    """Advertise until killed."""
    parser = argparse.ArgumentParser(prog="python -m testbed.agent.advertiser", description=__doc__)
    parser.add_argument("--interface", required=True)
    parser.add_argument("--prefix", type=IPv6Network, required=True)
    words = "ADDRESS[,DISTANCE[,PREFERENCE[,LIFETIME]]]"
    parser.add_argument("--map", type=anchor_point, action="append", default=[], metavar=words)
    parser.add_argument("--interval", type=float, default=0.05, metavar="S")
    parser.add_argument("--router-lifetime", type=int, default=3, metavar="S")
    parser.add_argument("--valid-lifetime", type=int, default=30, metavar="S")
    parser.add_argument("--preferred-lifetime", type=int, default=10, metavar="S")
    options = parser.parse_args(arguments)
    index = socket.if_nametoindex(options.interface)
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
        sock.bind((options.interface, 0))
        hardware = sock.getsockname()[4]
    prefix = PrefixInformation(
        options.prefix.network_address,
        options.prefix.prefixlen,
        options.valid_lifetime,
        options.preferred_lifetime,
    )
    interval = AdvertisementInterval(int(options.interval * 1000))
    message = bytes(
        RouterAdvertisement(
            options.router_lifetime, (SourceLinkLayerAddress(hardware), interval, prefix, *options.map)
        )
    )
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
        blocked = [0xFFFFFFFF] * 8
        blocked[_ROUTER_SOLICITATION // 32] &= ~(1 << _ROUTER_SOLICITATION % 32)
        sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, struct.pack("8I", *blocked))
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOP_LIMIT)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        group = socket.inet_pton(socket.AF_INET6, _ALL_ROUTERS) + struct.pack("i", index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
        sock.setblocking(False)
        while True:
            try:
                sock.sendto(message, (_ALL_NODES, 0, 0, index))
            except OSError:  # the interface is down: it may come back
                pass
            _wait(sock, index, time.monotonic() + options.interval)


def _wait(sock: socket.socket, index: int, until: float) -> None:
    """Until it is time, or somebody on this link asks."""
    while (remaining := until - time.monotonic()) > 0:
        if select.select([sock], [], [], remaining)[0]:
            try:
                _, address = sock.recvfrom(2048)
            except OSError:
                continue
            if address[3] == index:
                return


if __name__ == "__main__":
    main()
