"""The emulated network: Mininet hosts that run the agents, the links between them, and their removal.

Modules: `network` and `switched_network` (the whole network), `node` (hosts and routers), `agent` (an agent
process and its configuration file), `security` (what mobile nodes and home agents share), `process` (waiting
for and ending processes), `mn` (Mininet's own command).

Links, with rate, delay, jitter, loss and queue: `link`, `link_parameters`, `link_device`; by the kernel
`link_veth` and `netem`; in userspace `link_wire`, `wire_process`, `wire` and `wire_direction`; `link_probe`
measures them. Switches: `openvswitch`, `controller`, `ethernet_offload`.
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
