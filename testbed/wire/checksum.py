"""The Internet checksum of upper-layer packets (RFC 1071, RFC 8200 §8.1). Function: `checksum`."""

from ipaddress import IPv6Address


def checksum(data: bytes, source: IPv6Address, destination: IPv6Address, next_header: int) -> int:
    """Return the checksum of `data`, 16 bits, with the pseudo-header of `source` and `destination`.

    Computed over data whose checksum field is zero it is the value of that field; over data as received it is
    zero exactly where the checksum is right.
    """
    pseudo_header = int(source) + int(destination) + len(data) + next_header
    if len(data) % 2:
        data += b"\0"
    # 2**16 is 1 modulo 0xffff: the remainder of a whole number is the one's complement sum of its words.
    return -(pseudo_header + int.from_bytes(data, "big")) % 0xFFFF
