"""A machine in software emulation with a kernel of our choice. Class: `Guest`.

It has this machine's files, read-only, with its own writes in memory, one processor and no network. The
project is as it was at the start, whatever is changed meanwhile. What comes back is the output, the exit
status, and what the command writes to the folders that are shared.

Time in it is counted in instructions (QEMU's icount): the processor does 10⁹ a second whatever this machine
is doing meanwhile. How long something takes in there does not depend on how busy it is out here.
"""

import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from archive import Archive, module, needed_modules
from debian import Kernel, Unavailable

#: Debian packages with what is needed here, by command.
PACKAGES = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static", "depmod": "kmod"}

_HERE = Path(__file__).parent
_PROJECT = _HERE.parents[1]
_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
# Emulation does "rep movsb" byte by byte and ends a block at stac and clac: without the processor features
# that make the kernel use them, TCP is three times as fast.
_PROCESSOR = "max,-erms,-fsrm,-smap,-la57"
_COMMAND_LINE = ("console=ttyS0", "quiet", "oops=panic", "panic=-1", "nowatchdog", "audit=0", "edd=off",
                 "mitigations=off", "cryptomgr.notests", "random.trust_cpu=on")  # fmt: skip


class Guest:
    """`shared`: folders that the machine may write to. Use it in a `with` block: that ends it."""

    def __init__(self, kernel: Kernel, shared: Sequence[Path] = (), memory_mib: int = 1536) -> None:
        self._kernel = kernel
        self._shared = shared
        self._memory_mib = memory_mib  # taken as it is used
        self._process: subprocess.Popen | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="kernel-"))
        self._exchange = self._folder / "exchange"
        self._exchange.mkdir()

    @property
    def end_file(self) -> Path:
        """A file to make when the command is to come to an end; for the command, it is `end_file_inside`."""
        return self._exchange / "end"

    end_file_inside = Path("/run/kernel/end")

    def __enter__(self) -> "Guest":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        """Start the machine and the command in it, as root. Output goes to this program's standard output."""
        self._prepare(command, folder, environment)
        with (self._folder / "errors").open("w") as stream:
            self._process = subprocess.Popen(self._qemu(), stdin=subprocess.DEVNULL, stderr=stream)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """The command's exit status, None if it has not ended within the time.

        Raises Unavailable if QEMU does not run, RuntimeError with the end of the console if it has died.
        """
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        status = self._exchange / "status"
        if status.exists():
            return int(status.read_text())
        if not (self._exchange / "alive").exists():
            told = (self._folder / "errors").read_text().strip().splitlines() or self._console(1)
            raise Unavailable(f"QEMU does not run it ({told[-1] if told else 'without a word'})")
        raise RuntimeError("the machine has died; the end of its console:\n" + "\n".join(self._console(40)))

    def _console(self, lines: int) -> list[str]:
        path = self._folder / "console"
        return path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []

    def _prepare(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        settings = [f"{name}={value}" for name, value in environment.items()]
        (self._exchange / "command.sh").write_text(
            f"cd {shlex.quote(str(folder))} && exec env -i {shlex.join([*settings, *command])}\n"
        )
        (self._exchange / "modules").write_text(f"{self._kernel.modules.parent}\n")
        (self._exchange / "project").write_text(f"{_PROJECT}\n")
        (self._exchange / "shared").write_text(
            "".join(f"shared{number} {path}\n" for number, path in enumerate(self._shared))
        )
        shutil.copy(_HERE / "session.sh", self._exchange)
        with tarfile.open(self._exchange / "project.tar", "w") as project:
            for path in sorted(_PROJECT.iterdir()):
                if not path.name.startswith(".") and path not in self._shared:
                    project.add(path)
        archive = Archive()
        for name in ("bin", "dev", "modules"):
            archive.folder(name)
        archive.file("init", (_HERE / "init.sh").read_bytes())
        archive.file("bin/busybox", Path(shutil.which("busybox")).read_bytes())
        for number, path in enumerate(needed_modules(self._kernel.modules, _MODULES)):
            archive.file(f"modules/{number:03}", module(path))
        (self._folder / "initrd").write_bytes(bytes(archive))

    def _qemu(self) -> list[str]:
        def share(tag: str, path: Path, readonly: str = "off") -> list[str]:
            settings = f"local,id={tag},path={path},readonly={readonly},security_model=passthrough"
            return ["-fsdev", f"{settings},multidevs=remap",
                    "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]  # fmt: skip

        shares = [*share("root", Path("/"), "on"), *share("exchange", self._exchange)]
        for number, path in enumerate(self._shared):
            shares += share(f"shared{number}", path)
        return [
            *("setpriv", "--pdeathsig", "KILL"),
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-machine", "q35", "-accel", "tcg,thread=single,tb-size=256", "-cpu", _PROCESSOR, "-smp", "1"),
            *("-icount", "shift=0,sleep=on,align=off", "-m", str(self._memory_mib)),
            *("-kernel", str(self._kernel.image), "-initrd", str(self._folder / "initrd")),
            *("-append", " ".join(_COMMAND_LINE), "-serial", f"file:{self._folder / 'console'}"),
            *("-chardev", "stdio,id=output,signal=off", "-serial", "chardev:output"),
            *shares,
        ]
