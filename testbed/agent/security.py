"""The keys that agents authenticate Binding Updates and Acknowledgements with (RFC 4285).

Functions: `security_association`, `readable_by_others`, `time_of_day`.
"""

import os
import stat
import time
from collections.abc import Iterable

from testbed.mobility.authentication import KEY_OCTETS, SecurityAssociation


def security_association(spi: int, key: str, key_file: str, window_s: float) -> SecurityAssociation:
    """An association with the key `key`, in hexadecimal, or the one that the file `key_file` holds.

    Raises ValueError, "name: what was expected"; the text does not show the key.
    """
    if bool(key) == bool(key_file):
        raise ValueError("key: expected either this or key_file")
    name = "key" if key else "key_file"
    if key_file:
        try:
            with open(key_file, encoding="ascii", errors="replace") as file:
                key = file.read()
        except OSError as error:
            raise ValueError(f"key_file: {key_file} cannot be read: {error.strerror}") from None
    try:
        octets = bytes.fromhex(key.strip())
    except ValueError:
        octets = b""
    if len(octets) != KEY_OCTETS:
        where = f" in {key_file}" if key_file else ""
        raise ValueError(f"{name}: expected {2 * KEY_OCTETS} hexadecimal digits{where}")
    try:
        return SecurityAssociation(spi, octets, window_s)
    except ValueError as error:
        field, _, words = str(error).partition(" ")
        raise ValueError(f"{field}: {words}") from None


def readable_by_others(paths: Iterable[str]) -> list[str]:
    """Those of the files that any user may read, which is not what keys are for."""
    found = []
    for path in paths:
        try:
            if os.stat(path).st_mode & stat.S_IROTH:
                found.append(path)
        except OSError:
            continue  # whoever opens it will say so
    return found


def time_of_day(now: float) -> float:
    """A time on the agents' monotonic clock as seconds since 1970."""
    return time.time() + (now - time.monotonic())
