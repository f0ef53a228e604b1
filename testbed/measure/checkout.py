"""Which code was measured, so that anyone can find it again. Functions: `commit`, `digest`, `named`,
`output`."""

import hashlib
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

#: What a figure can depend on; pages and tests are none of it.
CODE = ("constraints.txt", "controllers", "experiments", "profiles", "setup.py", "testbed", "topologies")
_PROJECT = Path(__file__).resolve().parents[2]
#: So many digits are shown.
_SHOWN = 10
_UNSURE = {"+": "with code that is not committed", "?": "perhaps with changes"}


def commit(project: Path = _PROJECT) -> str | None:
    """The commit of this checkout, "+" behind it if its code differs from that, new files included, "?" if
    that cannot be told (git is not installed); None outside git."""
    git = ["git", "-c", f"safe.directory={project}", "-C", str(project)]
    head = output([*git, "rev-parse", "HEAD"])
    if not head:
        return _commit_without_git(project)
    changed = output([*git, "status", "--porcelain", "--untracked-files=all", "--", *CODE])
    return head.strip() + ("+" if changed and changed.strip() else "")


def digest(project: Path = _PROJECT) -> str:
    """SHA-256 of the code as it is, committed or not, in hexadecimal digits.

    It is that of what `git ls-tree -r COMMIT -- ` and the names in CODE prints for a commit with this code.
    """
    files = {path.relative_to(project).as_posix().encode(): path for path in _files(project)}
    found = hashlib.sha256()
    for name, path in sorted(files.items()):
        found.update(f"{_mode(path)} blob {_blob(path)}\t".encode() + name + b"\n")
    return found.hexdigest()


def named(metadata: Mapping[str, object]) -> str:
    """The code of a result or benchmark in a few words: the commit, if the code is that of it."""
    known, code = metadata.get("commit"), metadata.get("code")
    words = str(known)[:_SHOWN] if known else "unknown"
    if known and str(known)[-1] not in _UNSURE:
        return words
    if known:
        words += " " + _UNSURE[str(known)[-1]]
    return f"{words} ({str(code)[:_SHOWN]})" if code else words


def _files(project: Path) -> Iterator[Path]:
    for name in CODE:
        top = project / name
        for path in [top] if top.is_file() else top.rglob("*"):
            if "__pycache__" not in path.parts and (path.is_file() or path.is_symlink()):
                yield path


def _mode(path: Path) -> str:
    mode = path.lstat().st_mode
    return "120000" if stat.S_ISLNK(mode) else "100755" if mode & stat.S_IXUSR else "100644"


def _blob(path: Path) -> str:
    content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _commit_without_git(project: Path) -> str | None:
    """The commit from git's own files."""
    try:
        head = (project / ".git/HEAD").read_text().strip()
        if head.startswith("ref: "):
            reference = head.removeprefix("ref: ")
            loose = project / ".git" / reference
            packed = project / ".git/packed-refs"
            head = loose.read_text().strip() if loose.exists() else next(
                line.split()[0] for line in packed.read_text().splitlines() if line.endswith(" " + reference))
    except (OSError, StopIteration):
        return None
    return head + "?"


def output(command: list[str]) -> str | None:
    """What a program says; None if it is not there, fails, or takes more than 10 s."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
