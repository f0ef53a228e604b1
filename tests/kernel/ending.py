"""What is known of tests whose machine had to be ended by force. Function: `not_ended`."""

from pathlib import Path

from debian import Unavailable
from time_limit import FAILED, RUNNING


def not_ended(end_file: Path, seconds: float) -> int:
    """The exit status of tests that were given this `end_file` and this much time: what had failed by then is
    a failure. Raises Unavailable where nothing had."""
    under_way, failed = (_told(end_file.with_name(name)) for name in (RUNNING, FAILED))
    where = f" (the last test that it began: {under_way})" if under_way else ""
    reason = f"it has not come to an end within {seconds:.0f} s{where}"
    if not failed:
        raise Unavailable(reason)
    print(f"Ended by force: {reason}. By then these had failed:\n{failed}")
    return 1


def _told(file: Path) -> str:
    return file.read_text().strip() if file.exists() else ""
