"""Python's search for cyclic garbage, in a daemon with much state. Function: `collect_rarely`."""

import gc

#: Objects that must have been made, and be there still, before Python looks for cyclic garbage among them.
COLLECT_AFTER = 20_000


def collect_rarely() -> None:
    """What is there by now stays, messages leave hardly any cycles behind, and to look through the state of
    thousands of mobile nodes takes tens of milliseconds."""
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 100)
