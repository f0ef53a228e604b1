"""What parsing raises. Class: `ParseError`."""


class ParseError(ValueError):
    """Received octets are not what they should be; the only exception that parsing raises.

    `reason` is a sentence for people. `pointer` is None where the packet is to be discarded silently; else an
    ICMPv6 Parameter Problem with `code` is due (RFC 4443 §3.4) and `pointer` is the offset in octets of the
    field at fault, from the start of whatever was parsed (RFC 6275 §9.2).
    """

    def __init__(self, reason: str, pointer: int | None = None, code: int = 0):
        super().__init__(reason)
        self.reason = reason
        self.pointer = pointer
        self.code = code
