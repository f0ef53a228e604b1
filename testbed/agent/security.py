"""The keys that agents protect their messages with (RFC 4285, RFC 3776).

Functions: `security_association`, `esp`, `readable_by_others`, `time_of_day`.
"""

import os
import stat
import time
from collections.abc import Iterable

from testbed.datapath.xfrm import AUTHENTICATION_KEY_OCTETS, ENCRYPTION_KEY_OCTETS, Esp
from testbed.mobility.authentication import KEY_OCTETS, SecurityAssociation


def security_association(spi: int, key: str, key_file: str, window_s: float) -> SecurityAssociation:
    """An association with the key `key`, in hexadecimal, or the one that the file `key_file` holds.

    Raises ValueError, "name: what was expected"; the text does not show the key.
    """
    octets = _octets("key", key, key_file, (KEY_OCTETS,))
    try:
        return SecurityAssociation(spi, octets, window_s)
    except ValueError as error:
        field, _, words = str(error).partition(" ")
        raise ValueError(f"{field}: {words}") from None


def esp(spi: int, key: str, key_file: str, encryption_key: str, encryption_key_file: str) -> Esp:
    """An IPsec security association: the same, with an encryption key if there is one."""
    authentication = _octets("key", key, key_file, (AUTHENTICATION_KEY_OCTETS,))
    encryption = b""
    if encryption_key or encryption_key_file:
        encryption = _octets(
            "encryption_key", encryption_key, encryption_key_file, ENCRYPTION_KEY_OCTETS
        )
    return Esp(spi, authentication, encryption)


def _octets(name: str, text: str, path: str, lengths: tuple[int, ...]) -> bytes:
    """The octets in `text` or in the file at `path`; they must have one of these lengths."""
    if bool(text) == bool(path):
        raise ValueError(f"{name}: expected either this or {name}_file")
    given = name if text else f"{name}_file"
    if path:
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                text = file.read()
        except OSError as error:
            raise ValueError(f"{given}: {path} cannot be read: {error.strerror}") from None
    try:
        octets = bytes.fromhex(text.strip())
    except ValueError:
        octets = b""
    if len(octets) not in lengths:
        digits = " or ".join(str(2 * length) for length in lengths)
        where = f" in {path}" if path else ""
        raise ValueError(f"{given}: expected {digits} hexadecimal digits{where}")
    return octets


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
