"""Switching off what a network device leaves to hardware that is not there: `stop_transmit_checksums`."""

import ctypes
import fcntl
import socket
import struct

from testbed.emulation.link_device import Device
from testbed.emulation.process import EmulationError

SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM = 0x17


def stop_transmit_checksums(device: Device) -> None:
    """Have the kernel compute the checksums of what this device sends: `ethtool -K DEVICE tx off`.

    A veth pair hands packets over without, which only another Linux stack understands: a switch in user space
    would pass on wrong ones. Raises EmulationError.
    """
    value = ctypes.create_string_buffer(struct.pack("=II", ETHTOOL_STXCSUM, 0))
    with device.namespace.entered(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as any_socket:
        try:
            request = struct.pack("16sP16x", device.name.encode(), ctypes.addressof(value))
            fcntl.ioctl(any_socket, SIOCETHTOOL, request)
        except OSError as error:
            raise EmulationError(
                f"cannot switch off checksum offload of {device.name}: {error.strerror}."
            ) from error
