"""Private namespaces for a whole program, so that any end of it leaves nothing on the machine.

`isolate()` splits the calling program in two. The *outer* process waits, forwards signals and hands on the
exit status. The program itself goes on in fresh pid, network, mount, IPC and UTS namespaces, below a tiny
init (process 1 there) that adopts and reaps orphans::

    shell -- outer process | -- init (process 1) -- the program -- nodes, agents, traffic, ...
             the machine   |    private namespaces

When the program ends, the init ends; when process 1 of a pid namespace ends, the kernel kills every other
process in it; and namespaces without processes vanish with their links, bridges, routes and nftables rules.
The init asks the kernel to be killed with the outer process: `kill -9` of that one removes everything, too.

Inside, `/run` is private (what stood there stays visible), temporary files go to a folder in it, and `/proc`
and `/sys` show the private namespaces. All other folders are the machine's: results written to an output
folder stay. A folder directly below `/run` must exist before `isolate()` to be kept.

Functions: `isolate`. Also a command: `python -m testbed.isolation COMMAND [ARGUMENT...]`.
Exception: `IsolationError`.
"""

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
import sys
import tempfile
import time

#: Private folder for control sockets, configurations, process ids; the same path in every isolated program.
PRIVATE_DIRECTORY = "/run/flowbind"

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000, 0x04000000, 0x08000000, 0x20000000, 0x40000000)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = (
    0x1, 0x2, 0x4, 0x8, 0x20, 0x1000, 0x2000, 0x4000, 0x40000)
PR_SET_PDEATHSIG = 1
SI_KERNEL = 0x80
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1

#: What the outer process and the init hand on to the program.
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
#: Two SIGINTs within this time are one request: Ctrl-C may reach the program directly and by forwarding.
SAME_REQUEST_S = 0.2
#: Entries of /run that tools write to: the machine's own stay out of reach of the isolated program.
HIDDEN_IN_RUN = {"flowbind", "netns", "openvswitch", "xtables.lock"}
#: Kernel-wide settings (Mininet changes some at its start): read-only inside. /proc/sys/net is per namespace.
KERNEL_WIDE = ("/proc/sys/fs", "/proc/sys/kernel", "/proc/sys/vm")

libc = ctypes.CDLL(None, use_errno=True)


class IsolationError(Exception):
    """The namespaces cannot be had here; the text is one sentence with the remedy."""


def isolate() -> None:
    """Continue the calling program in private namespaces; returns there only.

    Call it once, early, from the main thread, while the process has no other thread. In the outer process it
    does not return: that one ends with the program's exit status (128 + N where signal N ended it). Where
    namespaces cannot be had, prints one sentence to standard error and exits with status 2.

    In the program, the first SIGTERM or SIGHUP raises SystemExit and SIGINT raises KeyboardInterrupt, so that
    `with` and `finally` blocks run.
    """
    try:
        _isolate()
    except IsolationError as error:
        print(f"flowbind: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _isolate() -> None:
    if os.geteuid() != 0:
        raise IsolationError("this needs root, to make network namespaces: start it again with sudo.")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or both processes would write what is still buffered
    alive, outer_end = os.pipe()
    failure, failure_end = os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (*FORWARDED, signal.SIGCHLD))
    try:
        _call(libc.unshare, CLONE_NEWPID)
    except OSError as error:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise IsolationError(_refused("a process namespace", error)) from error
    init = os.fork()
    if init:
        os.close(alive)
        os.close(failure_end)
        with os.fdopen(failure) as reader:
            sentence = reader.read()  # empty, and at its end, once the namespaces are ready
        status = _wait_for(init)
        if sentence:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            raise IsolationError(sentence)
        os._exit(status)

    os.close(outer_end)
    os.close(failure)
    try:
        _die_with_the_outer_process(alive)
        _enter_namespaces()
    except (OSError, IsolationError) as error:
        sentence = str(error) if isinstance(error, IsolationError) else _refused("private mounts", error)
        os.write(failure_end, sentence.encode())
        os._exit(2)
    os.close(failure_end)
    program = os.fork()
    if program:
        os._exit(_wait_for(program))
    _handle_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _wait_for(child: int) -> int:
    """Forward signals to `child`, reap whatever ends, return the exit status of `child` for a shell."""
    while True:
        received = signal.sigwaitinfo((*FORWARDED, signal.SIGCHLD))
        if received.si_signo == signal.SIGCHLD:
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return 1
                if pid == child:
                    code = os.waitstatus_to_exitcode(status)
                    return code if code >= 0 else 128 - code
                if pid == 0:
                    break
        elif received.si_code != SI_KERNEL:  # the terminal's own went to the whole process group already
            os.kill(child, received.si_signo)


def _die_with_the_outer_process(alive: int) -> None:
    """Be killed when the parent dies. `alive` reads as ended if it died before we could ask for that."""
    libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), *(ctypes.c_ulong(0),) * 3)
    os.set_blocking(alive, False)
    try:
        if os.read(alive, 1) == b"":
            os._exit(128 + signal.SIGKILL)
    except BlockingIOError:
        pass
    os.close(alive)


def _enter_namespaces() -> None:
    try:
        _call(libc.unshare, CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS)
    except OSError as error:
        raise IsolationError(_refused("network and mount namespaces", error)) from error
    _make_mounts_private()
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    try:
        _mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError:
        pass  # some containers forbid it; nothing here depends on /sys showing this network namespace
    for path in KERNEL_WIDE:
        _mount(path, path, None, MS_BIND)
        _mount(None, path, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _make_run_private()
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="tmp.", dir="/run")
    socket.sethostname("flowbind")
    _set_loopback_up()


def _make_mounts_private() -> None:
    """No mount of ours may propagate to the machine, and a chroot becomes the root of the namespace.

    Whoever joins a mount namespace (Mininet does for each command) gets its root, not the chroot that its
    other processes are in.
    """
    here, root = os.getcwd(), os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    with open("/proc/self/ns/mnt") as namespace:
        _call(libc.setns, namespace.fileno(), CLONE_NEWNS)  # to its root
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    root_of_namespace = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    if _place(root) != _place(root_of_namespace):
        path = os.readlink(f"/proc/self/fd/{root}")
        if not os.path.ismount(path):
            _mount(path, path, None, MS_BIND | MS_REC)
        os.chdir(path)
        _mount(".", "/", None, MS_MOVE)
        os.chroot(".")
    os.close(root_of_namespace)
    os.close(root)
    os.chdir(here)


def _place(directory: int) -> tuple:
    """What an open folder is, and in which mount it is seen."""
    status = os.fstat(directory)
    with open(f"/proc/self/fdinfo/{directory}") as lines:
        mount = next(line for line in lines if line.startswith("mnt_id:"))
    return status.st_dev, status.st_ino, mount


def _make_run_private() -> None:
    """A fresh tmpfs on /run in which the entries that stood there are visible under their names."""
    os.makedirs("/run", exist_ok=True)
    before = os.open("/run", os.O_RDONLY | os.O_DIRECTORY)
    _mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for entry in sorted(set(os.listdir(before)) - HIDDEN_IN_RUN):
        source, target = f"/proc/self/fd/{before}/{entry}", f"/run/{entry}"
        if os.path.islink(source):
            os.symlink(os.readlink(source), target)
            continue
        if os.path.isdir(source):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        try:
            _mount(source, target, None, MS_BIND | MS_REC)
        except OSError:
            pass  # a name that vanished meanwhile
    os.close(before)
    os.mkdir(PRIVATE_DIRECTORY, 0o755)


def _set_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def _handle_signals() -> None:
    """Turn what asks the program to stop into exceptions, once for what was asked once."""
    last = 0.0

    def stop(number, frame):
        nonlocal last
        before, last = last, time.monotonic()
        if last - before < SAME_REQUEST_S:
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def _call(function, *arguments) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _mount(source, target, kind, flags, data=None) -> None:
    _call(libc.mount, *(value and value.encode() for value in (source, target, kind)),
          ctypes.c_ulong(flags), data and data.encode())


def _refused(what: str, error: OSError) -> str:
    if error.errno == errno.EINVAL:
        return f"this kernel has no support for {what} (CONFIG_NAMESPACES): a kernel with it is needed."
    if error.errno == errno.ENOSPC:
        return f"the kernel's limit refuses {what}: raise the limits in /proc/sys/user/."
    return (f"the system refuses {what} ({error.strerror}): in a container, start that with --privileged"
            " (or with --cap-add ALL and without seccomp and AppArmor profiles).")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m testbed.isolation COMMAND [ARGUMENT...]")
    isolate()
    for inherited in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(inherited, signal.SIG_DFL)
    try:
        os.execvp(sys.argv[1], sys.argv[1:])
    except OSError as problem:
        print(f"flowbind: cannot start {sys.argv[1]}: {problem.strerror}.", file=sys.stderr)
        sys.exit(127)
