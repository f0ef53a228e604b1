"""The agent of a correspondent node. Classes: `CorrespondentNodeAgent`, `NoTunnels`."""

import asyncio
import time
from collections.abc import Mapping
from ipaddress import IPv6Address
from typing import Any

from testbed.agent import requests
from testbed.agent.complaints import Complaints
from testbed.agent.configuration import CorrespondentNodeFile, policy
from testbed.agent.daemon import Agent
from testbed.agent.icmp_errors import IcmpErrorSocket
from testbed.agent.presentation import flow_to_json
from testbed.agent.requests import Request
from testbed.datapath.optimisation import OptimisedRoutes
from testbed.mobility.correspondent_node import CorrespondentNode, CorrespondentNodeConfiguration
from testbed.mobility.forwarding import HomeBinding, Side


class NoTunnels:
    """The datapath of a node that has no tunnels."""

    backend = "none"

    def apply(self, changes: Mapping[IPv6Address, HomeBinding | None]) -> None:
        """Nothing is ever wanted."""

    def reconcile(self, complete: Mapping[IPv6Address, HomeBinding]) -> int:
        return 0

    def counters(self) -> dict[tuple[IPv6Address, int | None], tuple[int, int]]:
        return {}

    def totals(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        """There is nothing to remove."""


class CorrespondentNodeAgent(Agent):
    """Lets mobile nodes register with this host, so that packets to them go straight."""

    side = Side.CORRESPONDENT
    file: CorrespondentNodeFile
    role: CorrespondentNode

    def __init__(self, file: CorrespondentNodeFile) -> None:
        super().__init__(file)
        configuration = CorrespondentNodeConfiguration(
            file.max_lifetime_s,
            policy(file),
            file.max_tests_per_s,
            file.max_tests_per_sender_per_s,
            file.max_refusals_per_s,
            file.max_refusals_per_sender_per_s,
            file.dialect,
        )
        self.role = CorrespondentNode(configuration, self.started, self.codec)
        self._complaints = Complaints(self.role, self.monitor.is_local, self.counters)
        self._icmp_errors = IcmpErrorSocket()

    def make_datapath(self, kernel_mobility: bool) -> NoTunnels:
        return NoTunnels()

    def make_routes(self, carrier: str) -> OptimisedRoutes:
        return OptimisedRoutes(self.side, carrier=carrier)

    def begin(self, now: float) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self.routes.reports().fileno(), self._guarded, self._read_rejected)
        loop.add_reader(self._icmp_errors.fileno(), self._guarded, self._read_icmp_errors)
        super().begin(now)

    async def farewell(self) -> None:
        loop = asyncio.get_running_loop()
        for source in (self.routes.reports(), self._icmp_errors):
            loop.remove_reader(source.fileno())
        self._icmp_errors.close()

    def _read_icmp_errors(self) -> None:
        now = time.monotonic()
        for error in self._icmp_errors.receive():
            self._complaints.error(error, now)
        self.turn(now)

    def _read_rejected(self) -> None:
        now = time.monotonic()
        self._complaints.read_rejected(self.routes.reports(), now)
        self.turn(now)

    def status(self) -> dict[str, Any]:
        return {"mobile_nodes": len(self.role.optimisations()), "carrier": self.routes.carrier}

    async def handle(self, request: Request) -> Any:
        if isinstance(request, requests.Flows):
            return [
                {**flow_to_json(home_address, flow), "state": "registered"}
                for home_address, flow in self.role.flows()
            ]
        return await super().handle(request)
