"""The one exception of this package: `DatapathError`."""


class DatapathError(Exception):
    """The kernel refused what was wanted, and is as it was before; the text is one sentence."""
