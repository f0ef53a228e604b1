"""Which code a figure is from."""

import hashlib
import shutil
import subprocess

import pytest

from testbed.measure.checkout import CODE, commit, digest, named


class Checkout:
    """A small repository with something in each place that has code."""

    def __init__(self, folder):
        self.folder = folder
        for name in CODE:
            file = folder / name if "." in name else folder / name / "deep" / "module.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(name)
        (folder / "experiments" / "deep.py").write_text("sorted between a folder's name and what is in it")
        (folder / "experiments" / "deep.py").chmod(0o755)
        (folder / "page.md").write_text("no code")
        self.git("init", "--quiet")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "first")

    def git(self, *arguments):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(self.folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    @property
    def head(self):
        return self.git("rev-parse", "HEAD").strip()


@pytest.fixture
def checkout(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("needs git")
    return Checkout(tmp_path)


def test_a_page_that_has_changed_leaves_the_code_as_it_is(checkout):
    (checkout.folder / "page.md").write_text("new figures")
    assert commit(checkout.folder) == checkout.head


@pytest.mark.parametrize("changed", ["testbed/deep/module.py", "testbed/new.py", "setup.py"])
def test_changed_and_new_code_are_told(checkout, changed):
    before = digest(checkout.folder)
    (checkout.folder / changed).write_text("other")
    assert commit(checkout.folder) == checkout.head + "+"
    assert digest(checkout.folder) != before


def test_the_digest_is_that_of_the_commit_that_the_code_becomes(checkout):
    (checkout.folder / "profiles" / "new.toml").write_text("x")
    cached = checkout.folder / "testbed" / "__pycache__" / "module.cpython-311.pyc"
    cached.parent.mkdir()
    cached.write_bytes(b"compiled")
    before = digest(checkout.folder)
    checkout.git("add", "profiles")
    checkout.git("commit", "--quiet", "--message", "second")
    listed = checkout.git("ls-tree", "-r", "HEAD", "--", *CODE)
    assert digest(checkout.folder) == before == hashlib.sha256(listed.encode()).hexdigest()


@pytest.mark.parametrize("packed", [False, True])
def test_without_git_the_commit_is_known_and_changes_are_not(checkout, monkeypatch, packed):
    if packed:
        checkout.git("pack-refs", "--all")
    head = checkout.head
    monkeypatch.setenv("PATH", "/nowhere")
    assert commit(checkout.folder) == head + "?"


def test_outside_of_git_there_is_no_commit(tmp_path):
    assert commit(tmp_path) is None


@pytest.mark.parametrize(
    "metadata, words",
    [
        ({"commit": "0123456789abcdef"}, "0123456789"),
        ({"commit": "0123456789abcdef", "code": "fedcba9876543210"}, "0123456789"),
        (
            {"commit": "0123456789abcdef+", "code": "fedcba9876543210"},
            "0123456789 with code that is not committed (fedcba9876)",
        ),
        ({"commit": "0123456789abcdef+"}, "0123456789 with code that is not committed"),
        (
            {"commit": "0123456789abcdef?", "code": "fedcba9876543210"},
            "0123456789 perhaps with changes (fedcba9876)",
        ),
        ({"commit": None, "code": "fedcba9876543210"}, "unknown (fedcba9876)"),
        ({}, "unknown"),
    ],
)
def test_what_a_page_says(metadata, words):
    assert named(metadata) == words
