"""What integration tests share."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from backend import backends

pytest.register_assert_rewrite("datapath_bed", "machine")

from agent_network import OPTIMISED, Agent, AgentNetwork  # noqa: E402
from datapath_bed import Bed  # noqa: E402
from datapath_network import needed  # noqa: E402
from ipv6_ready_mobile_node import Correspondent  # noqa: E402
from machine import assert_untouched, snapshot  # noqa: E402

from testbed.datapath.error import DatapathError  # noqa: E402
from testbed.datapath.optimisation import choose_carrier  # noqa: E402


@pytest.fixture
def nobody() -> int:
    """The number of a user without rights, who can read the project at least."""
    user = 65534
    if subprocess.run(["test", "-r", str(Path(__file__))], user=user).returncode:
        pytest.skip("nobody else may read the project's folder")
    return user


@pytest.fixture
def untouched():
    """The machine is the same after the test as before."""
    # What other programs do in /tmp meanwhile does not matter: it is the test's own.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/tmp"], check=True)
    try:
        before = snapshot()
        yield
        assert_untouched(before)
    finally:
        subprocess.run(["umount", "--lazy", "/tmp"], check=True)


@pytest.fixture(scope="module", params=backends("tunnel"))
def bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    """Of each tunnel backend."""
    bed = Bed(needed(request.param))
    yield bed
    bed.close()


@pytest.fixture(params=backends("route optimisation"))
def carrier(request: pytest.FixtureRequest) -> str:
    """Each way to put in the headers of route optimisation that this kernel has."""
    try:
        choose_carrier(request.param)
    except DatapathError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentNetwork]:
    """A mobile node, a home agent, a correspondent node. Files about other networks have one of their own."""
    network = AgentNetwork(tmp_path_factory.mktemp("network"))
    network.add_correspondent()
    yield network
    network.close()


@pytest.fixture
def cn(network: AgentNetwork) -> Iterator[Correspondent]:
    """A tester in the correspondent node's place. Files in which it is an agent have one of their own."""
    cn = Correspondent(network)
    yield cn
    cn.close()


@pytest.fixture
def home(network: AgentNetwork, tmp_path: Path) -> Iterator[Agent]:
    """The home agent's agent."""
    with Agent(network.ha, tmp_path) as ha:
        yield ha


@pytest.fixture
def mn(network: AgentNetwork, tmp_path: Path, home: Agent, cn: Correspondent) -> Iterator[Agent]:
    """The mobile node's agent, which optimises its route to the correspondent node."""
    with Agent(network.mn, tmp_path, OPTIMISED) as mn:
        yield mn
