"""Debian's own kernels, fetched into a folder: the machine's packages, /boot and apt lists stay as they are.

Class: `Kernel`. Function: `fetch`. Exception: `Unavailable`.
"""

import lzma
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
#: What of a kernel's modules a machine of ours can need: no drivers but those of networks and of QEMU.
WANTED = ("arch", "crypto", "fs/9p", "fs/netfs", "fs/fscache", "fs/overlayfs", "lib", "net",
          "drivers/char/virtio*", "drivers/net/[!a-z]*", "drivers/net/*.ko*", "drivers/net/vxlan",
          "drivers/net/ipvlan", "drivers/virtio")  # fmt: skip


class Unavailable(Exception):
    """There is no such machine to be had here; the text says why, in one line."""


@dataclass(frozen=True)
class Kernel:
    """A kernel on the disk: `release` as `uname -r` tells it; `folder` has lib/modules in it."""

    suite: str
    release: str
    folder: Path

    @property
    def image(self) -> Path:
        return self.folder / "vmlinux"

    @property
    def modules(self) -> Path:
        return self.folder / "lib" / "modules" / self.release


def fetch(suite: str, folder: Path) -> Kernel:
    """The kernel of that Debian release ("bookworm"), from `folder` if it was fetched before.

    Raises Unavailable. Some 100 MB are transferred, and half of that stays.
    """
    folder = folder / suite
    complete = folder / ".complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        try:
            package = _download(suite, folder)
            _unpack(package, folder)
        except (OSError, subprocess.CalledProcessError) as error:
            told = getattr(error, "stderr", "") or str(error)
            raise Unavailable(f"no kernel of Debian {suite} ({told.strip().splitlines()[-1]})") from error
        complete.touch()
    (modules,) = (folder / "lib" / "modules").iterdir()
    return Kernel(suite, modules.name, folder)


def _download(suite: str, folder: Path) -> Path:
    """The package of the kernel, by an apt that knows nothing but this suite."""
    for needed in ("lists/partial", "cache/archives/partial"):
        (folder / "apt" / needed).mkdir(parents=True)
    sources = folder / "apt" / "sources.list"
    signed = f" [signed-by={KEYRING}]" if KEYRING.exists() else ""
    sources.write_text(f"deb{signed} {_mirror()} {suite} main\n")
    options = {
        "Dir::State::Lists": folder / "apt/lists",
        "Dir::State::Status": "/dev/null",
        "Dir::Cache": folder / "apt/cache",
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }

    def apt(command: str, *arguments: str) -> str:
        settings = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return _run(command, "-q", *settings, *arguments, cwd=folder)

    apt("apt-get", "update", "--error-on=any")
    depends = apt("apt-cache", "depends", "linux-image-amd64")
    package = next(line.split()[1] for line in depends.splitlines() if "Depends: linux-image-" in line)
    apt("apt-get", "download", package)
    return next(folder.glob("*.deb"))


def _mirror() -> str:
    """Where this machine has its Debian packages from, if it is a Debian."""
    known = _run("apt-get", "indextargets", "--format", "$(REPO_URI)").split()
    return next((uri for uri in known if uri.rstrip("/").endswith("/debian")), MIRROR)


def _unpack(package: Path, folder: Path) -> None:
    patterns = ["./boot/vmlinuz-*"]
    for prefix in ("./lib/modules/*", "./usr/lib/modules/*"):  # Debian 12, 13
        patterns += [f"{prefix}/modules.*", *(f"{prefix}/kernel/{wanted}" for wanted in WANTED)]
    files = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE)
    # that a pattern finds nothing is no failure: there is one too many for either release
    subprocess.run(["tar", "-x", "-C", str(folder), "--wildcards", "--no-wildcards-match-slash", *patterns],
                   stdin=files.stdout, stderr=subprocess.DEVNULL, check=False)  # fmt: skip
    files.stdout.close()
    files.wait()
    if (folder / "usr/lib").exists():
        (folder / "usr/lib").rename(folder / "lib")
    (image,) = (folder / "boot").iterdir()
    (modules,) = (folder / "lib" / "modules").iterdir()
    _run("depmod", "-b", str(folder), modules.name)
    (folder / "vmlinux").write_bytes(unpacked(image.read_bytes()))
    for rest in ("boot", "usr", "apt"):
        shutil.rmtree(folder / rest, ignore_errors=True)
    package.unlink()


def unpacked(image: bytes) -> bytes:
    """The kernel that an image has in it, for the emulated processor need not unpack it then."""
    start = image.find(b"\xfd7zXZ\0")
    if start < 0:
        return image
    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(image[start:])


def _run(*command: str, **options) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout
