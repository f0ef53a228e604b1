"""What survives the end of the agent: the role's snapshot in a file, and what has changed since in another.

Class: `StateFile`.

The snapshot is replaced as a whole by renaming, so that a reader sees the old state or the new one, never
half of one. What a role promises is added to the other file before the promise is sent: an agent that is
killed at any moment has told nobody anything that its next life does not know. Neither is forced to the disk:
that holds for the end of the agent, not for the loss of power.
"""

import io
import logging
import os
import time
from typing import Any

import msgspec

logger = logging.getLogger(__name__)

FORMAT = 1
#: The changes are to be replaced by a new snapshot when they take so many octets, and this many times as
#: much as the last one.
MIN_CHANGES_OCTETS, CHANGES_TO_SNAPSHOT = 1 << 18, 2


class StateFile:
    """The file `path`, with the changes in `path`.changes; "" keeps nothing. Times in them are on the
    real-time clock, which a reboot keeps."""

    def __init__(self, path: str) -> None:
        self.path = path
        #: What has been said of a disk that fails, and still holds.
        self._said = ""
        self._changes: io.FileIO | None = None
        self._saved_at: float | None = None
        self._octets = self._most = 0

    @property
    def _changes_path(self) -> str:
        return f"{self.path}.changes"

    def load(self, now: float) -> list[tuple[dict[str, Any], float]]:
        """The saved snapshot and then the changes, each with when it was taken, on the monotonic clock that
        reads `now`; nothing if there is none. A file that is not a saved state is reported, and kept beside
        the new one."""
        if not self.path:
            return []
        since = now - time.time()
        try:
            with open(self.path, "rb") as file:
                saved = msgspec.json.decode(file.read())
            if saved["format"] != FORMAT:
                raise ValueError(f"format {saved['format']}")
            saved_at = float(saved["saved_at"])
            found = [(dict(saved["snapshot"]), saved_at), *self._load_changes(saved_at)]
            return [(snapshot, min(now, taken_at + since)) for snapshot, taken_at in found]
        except FileNotFoundError:
            return []
        except OSError as error:
            logger.error("state cannot be read from %s: %s; starting afresh", self.path, error.strerror)
        except (ValueError, KeyError, TypeError) as error:
            self.reject(f"{error!r}")
        return []

    def _load_changes(self, saved_at: float) -> list[tuple[dict[str, Any], float]]:
        """Those that follow the snapshot of this time. The last one may be cut off: the agent was killed, or
        the disk was full, and nobody has been told."""
        try:
            with open(self._changes_path, "rb") as file:
                first, *lines = file.read().split(b"\n")[:-1] or [b"{}"]
        except FileNotFoundError:
            return []
        except OSError as error:
            logger.error("changes of the state cannot be read from %s: %s; going on without them",
                         self._changes_path, error.strerror)  # fmt: skip
            return []
        if msgspec.json.decode(first).get("follows") != saved_at:
            return []
        changes = [msgspec.json.decode(line) for line in lines]
        return [(dict(change["snapshot"]), float(change["saved_at"])) for change in changes]

    def reject(self, why: str) -> None:
        """Put aside a state that cannot be used."""
        aside = self.path + ".rejected"
        logger.error("%s is not a saved state (%s); moved to %s, starting afresh", self.path, why, aside)
        try:
            os.replace(self.path, aside)
        except OSError as error:
            logger.error("%s cannot be moved: %s", self.path, error.strerror)

    def save(self, snapshot: dict[str, Any]) -> None:
        """Replace everything. Failing that, say so once and leave the old file."""
        if not self.path:
            return
        now = time.time()
        data = msgspec.json.encode({"format": FORMAT, "saved_at": now, "snapshot": snapshot})
        temporary = f"{self.path}.{os.getpid()}"
        try:
            try:
                os.makedirs(os.path.dirname(temporary) or ".", exist_ok=True)
                with open(temporary, "wb") as file:
                    file.write(data)
                os.replace(temporary, self.path)
            except OSError:
                if os.path.exists(temporary):
                    os.unlink(temporary)
                raise
        except OSError as error:
            return self._fail(f"state cannot be saved to {self.path}", error)
        self._saved_at, self._octets = now, 0
        self._most = max(MIN_CHANGES_OCTETS, CHANGES_TO_SNAPSHOT * len(data))
        self.close()
        try:
            os.unlink(self._changes_path)
        except FileNotFoundError:
            pass
        except OSError as error:  # they follow another snapshot: nobody reads them any more
            return self._fail(f"{self._changes_path} cannot be removed", error)
        self._said = ""

    def append(self, change: dict[str, Any]) -> bool:
        """Add part of a snapshot, which replaces what there is of the same. False: it is not kept, and
        everything has to be saved anew."""
        if self._saved_at is None:
            return False
        data = msgspec.json.encode({"saved_at": time.time(), "snapshot": change}) + b"\n"
        try:
            if self._changes is None:
                self._changes = open(self._changes_path, "wb", buffering=0)
                data = msgspec.json.encode({"follows": self._saved_at}) + b"\n" + data
            if self._changes.write(data) != len(data):
                raise OSError(0, "no room for all of it")
        except OSError as error:
            self._fail(f"state cannot be saved to {self.path}", error)
            self.close()
            self._saved_at = None  # what is half there must not be followed by anything
            return False
        self._octets += len(data)
        return True

    @property
    def is_long(self) -> bool:
        """Whether there are so many changes that everything should be saved anew."""
        return self._octets > self._most

    def close(self) -> None:
        """Add nothing for now."""
        changes, self._changes = self._changes, None
        if changes is not None:
            try:
                changes.close()
            except OSError as error:
                self._fail(f"{self._changes_path} cannot be closed", error)

    def _fail(self, what: str, error: OSError) -> None:
        sentence = f"{what}: {error.strerror}; going on"
        if sentence != self._said:
            logger.error("%s", sentence)
        self._said = sentence
