"""The emulated network: Mininet hosts that run the agents, the links between them, and their removal.

Modules: `agent` (an agent process and its configuration file), `link` (links with rate, delay, jitter, loss
and queue), `network` (the whole network), `node` (hosts and routers), `process` (waiting for and ending
processes).
"""

import contextlib
import sys
import warnings

if sys.version_info < (3, 12):
    # Mininet imports distutils. Where the standard library still has it, setuptools' stand-in only costs
    # 0.1 s of every start.
    with contextlib.suppress(ImportError, AttributeError):
        import _distutils_hack

        _distutils_hack.remove_shim()
    with warnings.catch_warnings():  # it is deprecated there; that is Mininet's business
        warnings.simplefilter("ignore", DeprecationWarning)
        import distutils.version  # noqa: F401
