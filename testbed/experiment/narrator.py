"""What a person sees while an experiment runs. Class: `Narrator`."""

import sys
import textwrap
import time
from typing import TextIO

WIDTH = 96


class Narrator:
    """Tells, on `stream`, what is being done and why. On a terminal a line counts the seconds of a wait."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
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
        self._write(textwrap.fill(why, WIDTH, initial_indent=" " * 10, subsequent_indent=" " * 10) + "\n")

    def note(self, text: str) -> None:
        """Something that has just happened."""
        self._write(f"          > {text}\n")

    def progress(self, text: str) -> None:
        """A line that the next one overwrites; nothing where the stream is a file."""
        if self._terminal:
            self._write(f"\r          {text[: WIDTH - 12]:{WIDTH - 12}}")

    def progress_done(self) -> None:
        """Clear the line of `progress`."""
        if self._terminal:
            self._write("\r" + " " * (WIDTH - 1) + "\r")

    def _write(self, text: str) -> None:
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(text.encode(encoding, "replace").decode(encoding))
        self._stream.flush()
