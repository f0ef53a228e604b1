"""A ring of packets that the kernel fills (AF_PACKET, TPACKET_V3). Class: `PacketRing`.

The kernel writes packets into blocks of shared memory; this process is woken once a block. Each packet
there has a header whose octets 4 to 20 are seconds, nanoseconds, captured and original length: the record
header of a pcap file with nanoseconds, so a packet goes to the file in two slices and nothing is unpacked
but where it lies.
"""

import ctypes
import mmap
import socket
import struct
import sys

_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION = 5, 6, 10
_TPACKET_V3 = 2
_SO_ATTACH_FILTER = 26
_BPF_RETURN = 0x06
_BLOCK_OCTETS = 1 << 18
_RETIRE_MS = 50
_STATUS_USER = 1

# struct tpacket_req3: block size, blocks, frame size, frames, time-out, private octets, features
_REQUEST = struct.Struct("@7I")
# struct tpacket_block_desc: version, offset of private data, status, packets, offset of the first packet
_BLOCK = struct.Struct("@5I")
# struct tpacket3_hdr: next offset, [seconds, nanoseconds, captured, original], status, offset of the MAC
# header
_NEXT_AND_MAC = struct.Struct("@I20xH")


class PacketRing:
    """Packets of one interface in both directions, cut to `snaplen` octets, with `octets` of buffer.

    Raises OSError: no such interface, or no permission (CAP_NET_RAW).
    """

    def __init__(self, interface: str, snaplen: int, octets: int):
        blocks = max(octets // _BLOCK_OCTETS, 2)
        # Protocol 0: nothing is delivered before all is prepared.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
            program = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, snaplen))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER,
                                    struct.pack("HP", 1, ctypes.addressof(program)))
            self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, _REQUEST.pack(
                _BLOCK_OCTETS, blocks, _BLOCK_OCTETS, blocks, _RETIRE_MS, 0, 0))
            self._memory = mmap.mmap(self._socket.fileno(), _BLOCK_OCTETS * blocks)
            self._socket.bind((interface, _ETH_P_ALL))
        except OSError:
            self._socket.close()
            raise
        self._view = memoryview(self._memory)
        self._blocks = blocks
        self._current = 0
        self.packets = self.drops = 0

    def fileno(self) -> int:
        """Readable when a block is ready, and on an error such as the interface going down."""
        return self._socket.fileno()

    def clear_error(self) -> int:
        """The pending errno, 0 if none. A ring whose interface is down resumes by itself when it is up
        again.
        """
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def read(self, records: bytearray) -> bool:
        """Append the pcap records of the next block that is ready and give it back; False if none is."""
        start = self._current * _BLOCK_OCTETS
        _, _, status, count, first = _BLOCK.unpack_from(self._view, start)
        if not status & _STATUS_USER:
            return False
        view, position = self._view, start + first
        for _ in range(count):
            next_offset, mac = _NEXT_AND_MAC.unpack_from(view, position)
            header = view[position + 4:position + 20]
            captured = int.from_bytes(header[8:12], sys.byteorder)
            records += header
            records += view[position + mac:position + mac + captured]
            position += next_offset
        # struct tpacket_hdr_v1 begins at 8: the block's status goes back to the kernel.
        struct.pack_into("@I", self._view, start + 8, 0)
        self._current = (self._current + 1) % self._blocks
        return True

    def count(self) -> tuple[int, int]:
        """Packets seen and packets dropped because the ring was full, since the start."""
        statistics = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12)
        packets, drops, _ = struct.unpack("@3I", statistics)
        self.packets += packets  # the kernel's counters start again at each reading; packets include drops
        self.drops += drops
        return self.packets, self.drops

    def close(self) -> None:
        self._view.release()
        self._memory.close()
        self._socket.close()

