"""Which tests run on which of the testbed's backends: what docs/kernels.md is made from.

Tests of a backend carry `@pytest.mark.backend("tunnel", "ip6tnl")`; fixtures that try each backend of a kind
take `params=backends("tunnel")`. Those of the backends in `DISTRIBUTION` need what a distribution's kernel
has and others may not: they get the mark `distribution_kernel` by that, and `./run tests` runs them there.

Functions: `backends`. The rest are pytest's hooks; this file is a plugin of `tests/conftest.py`.
"""

import os

import pytest

#: Kind, name, and what has to be in the kernel; in the order of the table.
BACKENDS = {
    ("tunnel", "ip6tnl"): "ip6_tunnel",
    ("tunnel", "seg6"): "IPV6_SEG6_LWTUNNEL",
    ("link", "netem"): "sch_netem",
    ("link", "wire"): "tun",
    ("link", "veth"): "veth",
    ("route optimisation", "bpf"): "BPF",
    ("route optimisation", "xfrm"): "IPV6_MIP6",
    ("route optimisation", "tun"): "tun",
    ("switch", "kernel"): "openvswitch",
    ("switch", "user"): "tun",
    ("signalling", "ESP"): "esp6",
}
DISTRIBUTION = {
    ("tunnel", "ip6tnl"),
    ("link", "netem"),
    ("route optimisation", "xfrm"),
    ("switch", "kernel"),
    ("signalling", "ESP"),
}


def backends(kind: str, *names: str) -> list:
    """Parameters for a fixture: all backends of that kind, or those named."""
    return [
        pytest.param(name, marks=pytest.mark.backend(kind, name))
        for of, name in BACKENDS
        if of == kind and name in (names or (name,))
    ]


def of(item: pytest.Item) -> set[tuple[str, str]]:
    """The backends of a test. Raises KeyError for one that is not known."""
    found = {mark.args for mark in item.iter_markers("backend")}
    for backend in found:
        BACKENDS[backend]
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # Results in a file (--junitxml) say of which kernel they are: each, as workers hand on no others.
        item.user_properties.append(("kernel", os.uname().release))
        for kind, name in sorted(of(item)):
            item.user_properties.append(("backend", f"{kind}: {name}"))
            if (kind, name) in DISTRIBUTION:
                item.add_marker(pytest.mark.distribution_kernel)
