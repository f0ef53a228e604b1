"""What a person sees while an experiment runs. Class: `Narrator`."""

import shutil
import sys
import textwrap
import time
from typing import TextIO

MAX_WIDTH = 96


class Narrator:
    """Tells, on `stream`, what is being done and why. On a terminal a line counts the seconds of a wait."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._width = min(shutil.get_terminal_size().columns, MAX_WIDTH)
        self._started = time.monotonic()
        self._step = 0

    def say(self, text: str = "") -> None:
        """A paragraph, as it is."""
        self._write(text + "\n")

    def step(self, title: str, why: str) -> None:
        """The next step of the scenario, with a sentence or two on why it is there."""
        self._step += 1
        elapsed = time.monotonic() - self._started
        self._write(f"\n[{elapsed:5.1f} s] {self._step}. {title}\n")
        indent = " " * 10
        self._write(textwrap.fill(why, self._width, initial_indent=indent, subsequent_indent=indent) + "\n")

    def note(self, text: str) -> None:
        """Something that has just happened."""
        self._write(f"          > {text}\n")

    def progress(self, text: str) -> None:
        """A line that the next one overwrites; nothing where the stream is a file."""
        if self._terminal:
            room = self._width - 12
            self._write(f"\r          {text[:room]:{room}}")

    def progress_done(self) -> None:
        """Clear the line of `progress`."""
        if self._terminal:
            self._write("\r" + " " * (self._width - 1) + "\r")

    def _write(self, text: str) -> None:
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(text.encode(encoding, "replace").decode(encoding))
        self._stream.flush()
