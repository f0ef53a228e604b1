"""How a Binding Update ends that is not accepted at once. Exceptions: `Refused`, `Held`."""

from testbed.wire.message import Status


class Refused(Exception):
    """The Binding Update as a whole is refused with `status`."""

    def __init__(self, status: Status) -> None:
        super().__init__(status)
        self.status = status


class Held(Exception):
    """The Binding Update is answered later."""
