"""The files that a machine starts with, in its memory. Classes: `Archive`. Functions: `needed_modules`."""

import lzma
import stat
from pathlib import Path

#: busybox wants to be one of these to be their command
_DIRECTORY, _FILE = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755


class Archive:
    """A cpio archive ("newc"), as kernels take one."""

    def __init__(self) -> None:
        self._octets = bytearray()
        self._entries = 0

    def folder(self, name: str) -> None:
        self._add(name, _DIRECTORY, b"")

    def file(self, name: str, content: bytes) -> None:
        self._add(name, _FILE, content)

    def __bytes__(self) -> bytes:
        whole = Archive()
        whole._octets += self._octets
        whole._add("TRAILER!!!", 0, b"")
        return bytes(whole._octets)

    def _add(self, name: str, mode: int, content: bytes) -> None:
        self._entries += 1
        path = name.encode() + b"\0"
        fields = (self._entries, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        self._octets += b"070701" + b"".join(b"%08X" % field for field in fields) + path
        self._pad()
        self._octets += content
        self._pad()

    def _pad(self) -> None:
        self._octets += bytes(-len(self._octets) % 4)


def needed_modules(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The files of these modules, what they need before them. `folder`: lib/modules/RELEASE."""
    needs: dict[str, list[str]] = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        file, _, others = line.partition(":")
        needs[file] = others.split()
    by_name = {Path(file).name.partition(".")[0]: file for file in needs}
    found: list[str] = []
    for name in names:
        if name not in by_name:
            continue  # built in
        file = by_name[name]
        # depmod tells the nearest first
        found += [one for one in (*reversed(needs[file]), file) if one not in found]
    return [folder / file for file in found]


def module(path: Path) -> bytes:
    """A module's octets, unpacked: busybox may not know how."""
    octets = path.read_bytes()
    return lzma.decompress(octets) if path.suffix == ".xz" else octets
