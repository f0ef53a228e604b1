"""What the user of a mobile node asks its agent for, by the control socket.

Class: `MobileNodeCommands`.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from testbed.agent import requests
from testbed.agent.configuration import (
    MobileNodeFile,
    action_of,
    check_flow,
    flow_binding,
    resolve_bids,
    resolve_interface,
    selector_keys,
)
from testbed.agent.events import EventLog
from testbed.agent.presentation import flow_to_json, status_in_words
from testbed.agent.requests import Request, RequestError
from testbed.agent.selector_text import parse_selector
from testbed.mobility.binding import FlowBinding
from testbed.mobility.mobile_node import MobileNode


class MobileNodeCommands:
    """Asks the role `mobile`, and waits for what others say to it.

    `turn(now)` carries out what the role wants; `events` tells what happens then.
    """

    def __init__(
        self,
        file: MobileNodeFile,
        mobile: MobileNode,
        events: EventLog,
        turn: Callable[[float], None],
    ) -> None:
        self._file = file
        self._mobile = mobile
        self._events = events
        self._turn = turn

    async def handle(self, request: Request) -> Any:
        """The answer to a request, NotImplemented if it is none of these. Raises RequestError."""
        try:
            if isinstance(request, (requests.FlowAdd, requests.FlowReplace, requests.FlowRemove)):
                return await self._change(request.fid, self._operation(request), request.timeout_s)
        except ValueError as error:  # of the command, or FlowError
            raise RequestError(str(error)) from None
        if isinstance(request, requests.Flows):
            return [self._flow(listed) for listed in self._mobile.flows()]
        if isinstance(request, requests.Routes):
            return self._routes()
        if isinstance(request, requests.Prefer):
            return self._prefer(request)
        if isinstance(request, requests.Optimise):
            return await self._optimise_route(request)
        if isinstance(request, requests.Deregister):
            if not await self.deregister(request.timeout_s):
                raise RequestError(f"the home agent has not answered within {request.timeout_s:g} s")
            return {"registered": self._mobile.registered}
        return NotImplemented

    def _routes(self) -> list[dict[str, Any]]:
        return [
            {**route, "flows": [self._flow(listed) for listed in route["flows"]]}
            for route in self._mobile.optimiser.describe(time.monotonic())
        ]

    def _prefer(self, request: requests.Prefer) -> dict[str, Any]:
        """Change the interface whose care-of address is used; the home agent is told at once."""
        try:
            name = request.interface and resolve_interface(request.interface, self._file.interface)
            self._mobile.prefer(name, time.monotonic())
        except ValueError as error:
            raise RequestError(str(error)) from None
        self._turn(time.monotonic())
        return {"preferred": name}

    async def _optimise_route(self, request: requests.Optimise) -> dict[str, Any]:
        """Change the route to a correspondent node and wait for its answer."""
        peer = str(request.address)
        if request.stop:
            if not self._mobile.stop_optimising(request.address, time.monotonic()):
                raise RequestError(f"the route to {peer} is not optimised")
            self._turn(time.monotonic())
            return {"correspondent": peer, "optimised": False}
        if request.address in (self._mobile.home_agent, self._file.home_address):
            raise RequestError(f"address: expected that of a correspondent node, not {peer}")
        failed = (
            "return-routability-failed",
            "registration-refused",
            "mobility-header-unsupported",
            "datapath-failed",
        )

        def answered(event: dict[str, Any]) -> bool:
            about = event.get("peer", peer) == peer
            return about and event["event"] in ("routes-optimised", *failed)

        self._mobile.optimise(request.address, time.monotonic())
        registration = self._mobile.optimiser.correspondents[request.address]
        event = None if registration.known_to_peer else await self._turn_until(answered, request.timeout_s)
        if not registration.known_to_peer or registration.left:
            why = f" ({event['event']})" if event else ""
            raise RequestError(
                f"{peer} has not agreed within {request.timeout_s:g} s{why}: its packets go through the "
                "home agent; asking again"
            )
        return next(route for route in self._routes() if route["correspondent"] == peer)

    def _operation(
        self, request: requests.FlowAdd | requests.FlowReplace | requests.FlowRemove
    ) -> Callable[[], None]:
        """What the role is to do. Raises ValueError, one sentence."""
        now = time.monotonic()
        if isinstance(request, requests.FlowRemove):
            return lambda: self._mobile.remove_flow(request.fid, now)
        if isinstance(request, requests.FlowReplace):
            flow = self._replacement(request)
            return lambda: self._mobile.replace_flow(flow, now)
        flow = flow_binding(request, self._file.interface)
        return lambda: self._mobile.add_flow(flow, now)

    def _flow(self, listed: dict[str, Any]) -> dict[str, Any]:
        names = {interface.bid: interface.name for interface in self._file.interface}
        flow: FlowBinding = listed["flow"]
        return {
            **flow_to_json(self._file.home_address, flow),
            "interfaces": [names.get(bid, "?") for bid in flow.bids],
            "state": listed["state"],
        }

    def _find(self, fid: int) -> dict[str, Any] | None:
        return next((listed for listed in self._mobile.flows() if listed["flow"].fid == fid), None)

    def _replacement(self, request: requests.FlowReplace) -> FlowBinding:
        listed = self._find(request.fid)
        if listed is None:
            raise ValueError(f"there is no flow binding with FID {request.fid}")
        flow: FlowBinding = listed["flow"]
        texts = selector_keys(request)
        flow = replace(
            flow,
            priority=flow.priority if request.priority is None else request.priority,
            action=flow.action if request.action is None else action_of(request.action),
            bids=flow.bids if request.bids is None else resolve_bids(request.bids, self._file.interface),
            selector=parse_selector(texts) if texts else flow.selector,
        )
        check_flow(flow)
        return flow

    async def _change(self, fid: int, change: Callable[[], None], timeout_s: float) -> dict[str, Any]:
        """Make a change of a flow binding and wait for the answer, which is the result: the home agent's, or
        the anchor point's where flow bindings are registered with one."""
        refusals: list[int] = []

        def answered(event: dict[str, Any]) -> bool:
            asked = str(self._mobile.flow_registration.peer)
            if event.get("peer", asked) != asked:
                return False  # a correspondent node's answer
            if event["event"] == "registration-refused":
                refusals.append(event["status"])
            if event["event"] == "flow-bindings-unsupported":
                return True
            if event["event"] != "flow-changed" or event["fid"] != fid:
                return False
            listed = self._find(fid)
            return not event["accepted"] or listed is None or listed["state"] == "registered"

        change()
        event = await self._turn_until(answered, timeout_s)
        who = "the anchor point" if self._mobile.flow_registration.local else "the home agent"
        if event is None:
            why = f"; it refused the registration: {status_in_words(refusals[-1])}" if refusals else ""
            raise RequestError(f"{who} has not agreed within {timeout_s:g} s{why}; asking again")
        if event["event"] == "flow-bindings-unsupported":
            raise RequestError(f"{who} does not support flow bindings")
        if not event["accepted"]:
            words = status_in_words(event["status"], of_flow=True)
            raise RequestError(f"{who} refused flow binding {fid}: {words}")
        listed = self._find(fid)
        return self._flow(listed) if listed else {"fid": fid, "state": "removed"}

    async def deregister(self, timeout_s: float) -> bool:
        """Remove all bindings; returns whether the home agent has acknowledged that in time."""
        if not self._mobile.deregistered:
            self._mobile.deregister(time.monotonic())
            await self._turn_until(lambda event: self._mobile.deregistered, timeout_s)
        return self._mobile.deregistered

    async def _turn_until(
        self, matches: Callable[[dict[str, Any]], bool], timeout_s: float
    ) -> dict[str, Any] | None:
        """Carry out what the role wants; returns the event that `matches`, None if none does in time."""
        found = asyncio.get_running_loop().create_future()

        def listen(event: dict[str, Any], line: bytes) -> None:
            if not found.done() and matches(event):
                found.set_result(event)

        self._events.listeners.add(listen)
        try:
            self._turn(time.monotonic())
            return await asyncio.wait_for(found, timeout_s)
        except asyncio.TimeoutError:
            return None
        finally:
            self._events.listeners.discard(listen)
