"""What a machine in emulation starts with: its modules in order, and a kernel that need not be unpacked."""

import lzma
import struct
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "kernel"))

from archive import Archive, module, needed_modules  # noqa: E402
from debian import unpacked  # noqa: E402


def test_modules_come_after_what_they_need(tmp_path):
    (tmp_path / "modules.dep").write_text(
        "fs/9p.ko: net/9pnet.ko fs/netfs.ko\nnet/9pnet.ko:\nfs/netfs.ko:\n"
        "net/9pnet_virtio.ko.xz: net/9pnet.ko\nnet/other.ko:\n"
    )
    found = [path.name for path in needed_modules(tmp_path, ("9pnet_virtio", "9p", "built_in"))]
    assert sorted(found) == ["9p.ko", "9pnet.ko", "9pnet_virtio.ko.xz", "netfs.ko"]
    assert found.index("9pnet.ko") < found.index("9pnet_virtio.ko.xz")
    assert max(found.index("9pnet.ko"), found.index("netfs.ko")) < found.index("9p.ko")


def test_modules_are_unpacked(tmp_path):
    (tmp_path / "a.ko").write_bytes(b"octets")
    (tmp_path / "b.ko.xz").write_bytes(lzma.compress(b"octets"))
    assert module(tmp_path / "a.ko") == module(tmp_path / "b.ko.xz") == b"octets"


@pytest.mark.parametrize("image, kernel", [
    (b"loader" + lzma.compress(b"kernel") + b"signature", b"kernel"),
    (b"packed in another way", b"packed in another way"),
])
def test_kernels_are_unpacked(image, kernel):
    assert unpacked(image) == kernel


def test_archive():
    """Its entries as the kernel's documentation describes them (driver-api/early-userspace/buffer-format)."""
    archive = Archive()
    archive.folder("bin")
    archive.file("bin/x", b"12345")
    octets, found, offset = bytes(archive), {}, 0
    while offset < len(octets):
        assert octets[offset : offset + 6] == b"070701"
        fields = [int(octets[offset + 6 + 8 * n : offset + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        start = offset + 110 + name_size
        name = struct.unpack(f"{name_size - 1}sx", octets[offset + 110 : start])[0].decode()
        start += -start % 4
        found[name] = oct(mode), octets[start : start + size]
        offset = start + size + -size % 4
    assert found == {"bin": ("0o40755", b""), "bin/x": ("0o100755", b"12345"), "TRAILER!!!": ("0o0", b"")}
