"""Programs and maps of the kernel's BPF machine, without a compiler or a library.

Classes: `Assembler` (instructions with labels), `Map` (a hash map), `BpfError`. Functions: `load_classifier`,
`is_available`. Constants: registers, helper functions, offsets of `struct __sk_buff`.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable, Iterator

_SYSTEM_CALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_MAP_CREATE, _, _MAP_UPDATE, _MAP_DELETE, _MAP_NEXT_KEY, _PROGRAM_LOAD = range(6)
_HASH, _CLASSIFIER = 1, 3
_LOG_OCTETS = 1 << 18

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP = range(11)

# linux/bpf.h: helper functions
MAP_LOOKUP, STORE_BYTES, LOAD_BYTES, ADJUST_ROOM = 1, 9, 26, 50
# struct __sk_buff
SKB_MARK, SKB_PROTOCOL, SKB_INTERFACE = 8, 16, 40
# what a classifier with direct action may return
ACT_OK, ACT_SHOT = 0, 2

_library = ctypes.CDLL(None, use_errno=True)


class BpfError(OSError):
    """The kernel's refusal; its own words, where it gave some, are the text."""


def _bpf(command: int, attributes: bytes) -> int:
    number = _SYSTEM_CALL.get(platform.machine())
    if number is None:
        raise BpfError(errno.ENOSYS, f"bpf is not known for {platform.machine()}")
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = _library.syscall(ctypes.c_long(number), command, buffer, len(attributes))
    if result < 0:
        raise BpfError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _pointer(buffer: ctypes.Array) -> int:
    return ctypes.addressof(buffer)


class Map:
    """A hash map: keys and values of fixed length, updated while programs read it."""

    def __init__(self, key_octets: int, value_octets: int, size: int) -> None:
        self._key_octets = key_octets
        self.fd = _bpf(_MAP_CREATE, struct.pack("=IIIII", _HASH, key_octets, value_octets, size, 0))

    def put(self, key: bytes, value: bytes) -> None:
        """Raises BpfError (E2BIG: the map is full)."""
        buffers = [ctypes.create_string_buffer(octets, len(octets)) for octets in (key, value)]
        _bpf(_MAP_UPDATE, struct.pack("=IxxxxQQQ", self.fd, *map(_pointer, buffers), 0))

    def delete(self, key: bytes) -> None:
        """Delete a key; one that is not there is no error."""
        buffer = ctypes.create_string_buffer(key, len(key))
        try:
            _bpf(_MAP_DELETE, struct.pack("=IxxxxQ", self.fd, _pointer(buffer)))
        except BpfError as error:
            if error.errno != errno.ENOENT:
                raise

    def keys(self) -> Iterator[bytes]:
        """All keys."""
        key = None
        while True:
            try:
                before = ctypes.create_string_buffer(key, len(key)) if key else None
                after = ctypes.create_string_buffer(self._key_octets)
                pointer = _pointer(before) if before else 0
                _bpf(_MAP_NEXT_KEY, struct.pack("=IxxxxQQ", self.fd, pointer, _pointer(after)))
            except BpfError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            key = after.raw
            yield key

    def become(self, wanted: dict[bytes, bytes], before: dict[bytes, bytes]) -> None:
        """Go from `before` to `wanted`: first what is new, then what is gone."""
        for key, value in wanted.items():
            if before.get(key) != value:
                self.put(key, value)
        for key in before.keys() - wanted.keys():
            self.delete(key)

    def close(self) -> None:
        os.close(self.fd)


class Assembler:
    """Instructions in order; `label` names the next one, `jump…` go to a label further down."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int, int]] = []
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []

    def _emit(self, operation: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> None:
        self._code.append((operation, to, source, offset, value))

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def set(self, register: int, value: int) -> None:
        self._emit(0xB7, register, value=value)

    def copy(self, register: int, source: int) -> None:
        self._emit(0xBF, register, source)

    def add(self, register: int, value: int) -> None:
        self._emit(0x07, register, value=value)

    def mask(self, register: int, value: int) -> None:
        self._emit(0x57, register, value=value)

    def address(self, register: int, stack_offset: int) -> None:
        """register = the address of an octet on the stack (offset from its end, negative)."""
        self.copy(register, FP)
        self.add(register, stack_offset)

    def load(self, octets: int, register: int, base: int, offset: int) -> None:
        self._emit({1: 0x71, 2: 0x69, 4: 0x61, 8: 0x79}[octets], register, base, offset)

    def store(self, octets: int, base: int, offset: int, register: int) -> None:
        self._emit({1: 0x73, 2: 0x6B, 4: 0x63, 8: 0x7B}[octets], base, register, offset)

    def store_constant(self, octets: int, base: int, offset: int, value: int) -> None:
        self._emit({1: 0x72, 2: 0x6A, 4: 0x62, 8: 0x7A}[octets], base, 0, offset, value)

    def to_big_endian(self, register: int, bits: int) -> None:
        self._emit(0xDC, register, value=bits)

    def move(self, octets: int, to_base: int, to: int, from_base: int, source: int, by: int = 4) -> None:
        """Copy octets from memory to memory, through R0."""
        for offset in range(0, octets, by):
            self.load(by, R0, from_base, source + offset)
            self.store(by, to_base, to + offset, R0)

    def map(self, register: int, source: Map) -> None:
        self._emit(0x18, register, 1, value=source.fd)
        self._emit(0)

    def call(self, helper: int) -> None:
        self._emit(0x85, value=helper)

    def jump(self, label: str) -> None:
        self._jumps.append((len(self._code), label))
        self._emit(0x05)

    def jump_if_equal(self, register: int, value: int, label: str) -> None:
        self._jumps.append((len(self._code), label))
        self._emit(0x15, register, value=value)

    def jump_unless_equal(self, register: int, value: int, label: str) -> None:
        self._jumps.append((len(self._code), label))
        self._emit(0x55, register, value=value)

    def end(self, value: int) -> None:
        self.set(R0, value)
        self._emit(0x95)

    def octets(self) -> bytes:
        """The program. Raises KeyError for a label that is nowhere."""
        code = list(self._code)
        for at, label in self._jumps:
            operation, destination, source, _, value = code[at]
            code[at] = operation, destination, source, self._labels[label] - at - 1, value
        return b"".join(
            struct.pack("=BBhi", operation, destination | source << 4, offset, value)
            for operation, destination, source, offset, value in code
        )


def load_classifier(name: str, program: bytes) -> int:
    """Have the kernel verify a program for traffic control; its descriptor. Raises BpfError."""
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Dual MIT/GPL")
    attributes = struct.pack("=IIQQ", _CLASSIFIER, len(program) // 8, _pointer(code), _pointer(licence))
    tail = struct.pack("=II16s", 0, 0, name.encode()[:15])
    try:
        return _bpf(_PROGRAM_LOAD, attributes + struct.pack("=IIQ", 0, 0, 0) + tail)
    except BpfError as error:
        if error.errno not in (errno.EACCES, errno.EINVAL):
            raise
        log = ctypes.create_string_buffer(_LOG_OCTETS)
        try:
            return _bpf(_PROGRAM_LOAD, attributes + struct.pack("=IIQ", 1, _LOG_OCTETS, _pointer(log)) + tail)
        except BpfError as again:
            words = log.value.decode(errors="replace").strip().splitlines()[-3:]
            raise BpfError(again.errno, "; ".join(words) or again.strerror) from None


def is_available() -> bool:
    """Whether this process may load a program for traffic control."""
    program = Assembler()
    program.end(ACT_OK)
    try:
        os.close(load_classifier("probe", program.octets()))
    except OSError:
        return False
    return True


def close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
