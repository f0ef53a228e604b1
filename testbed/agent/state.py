"""What survives a restart of the agent: the role's snapshot in a file.

Class: `StateFile`.

The file is replaced as a whole by renaming, so that a reader sees the old state or the new one, never half of
one. It is written after the messages that a change brings about have been sent: an agent that is killed
between the two forgets the change, which its peers mend as they mend a lost message. It is not forced to the
disk: it survives the end of the agent at any moment, not the loss of power.
"""

import logging
import os
import time
from typing import Any

import msgspec

logger = logging.getLogger(__name__)

FORMAT = 1


class StateFile:
    """The file `path`; "" keeps nothing. Times in it are on the real-time clock, which a reboot keeps."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._failed = False

    def load(self, now: float) -> tuple[dict[str, Any], float] | None:
        """The saved snapshot and when it was taken, on the monotonic clock that reads `now`; None if there
        is none. A file that is not a saved state is reported, and kept beside the new one."""
        if not self.path:
            return None
        try:
            with open(self.path, "rb") as file:
                saved = msgspec.json.decode(file.read())
            if saved["format"] != FORMAT:
                raise ValueError(f"format {saved['format']}")
            age = max(0.0, time.time() - float(saved["saved_at"]))
            return dict(saved["snapshot"]), now - age
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.error("state cannot be read from %s: %s; starting afresh", self.path, error.strerror)
        except (ValueError, KeyError, TypeError) as error:
            self.reject(f"{error!r}")
        return None

    def reject(self, why: str) -> None:
        """Put aside a state that cannot be used."""
        aside = self.path + ".rejected"
        logger.error("%s is not a saved state (%s); moved to %s, starting afresh", self.path, why, aside)
        try:
            os.replace(self.path, aside)
        except OSError as error:
            logger.error("%s cannot be moved: %s", self.path, error.strerror)

    def save(self, snapshot: dict[str, Any]) -> None:
        """Replace the file. Failing that, say so once and leave the old one."""
        if not self.path:
            return
        data = msgspec.json.encode({"format": FORMAT, "saved_at": time.time(), "snapshot": snapshot})
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
            if not self._failed:
                logger.error("state cannot be saved to %s: %s; going on", self.path, error.strerror)
            self._failed = True
        else:
            self._failed = False
