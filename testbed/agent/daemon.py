"""The asyncio shell around a protocol role: it alone has a clock, sockets and a kernel.

Class: `Agent`. Exception: `AgentError`.

Everything that happens (a message, a timer, a change of a link, a command) is one call into the role,
followed by one `turn`: what the role wants is carried out in the order that its promises need.
"""

import asyncio
import logging
import time
from collections import Counter
from dataclasses import replace
from ipaddress import IPv6Address
from itertools import islice
from typing import Any

from testbed.agent import requests
from testbed.agent.configuration import AgentFile, socket_path
from testbed.agent.control_server import ControlServer
from testbed.agent.drops import Drops
from testbed.agent.events import EventLog
from testbed.agent.feed import Feed
from testbed.agent.mobility_socket import Datagram, MobilitySocket
from testbed.agent.neighbour_discovery import NeighbourDiscoverySocket
from testbed.agent.netlink import Change, LinkMonitor
from testbed.agent.protected_signalling import ProtectedSignalling
from testbed.agent.protected_socket import ProtectedSocket
from testbed.agent.requests import Request, RequestError
from testbed.agent.state import StateFile
from testbed.agent.step import Step
from testbed.agent.territory import Territory
from testbed.datapath.datapath import Datapath, DatapathConfiguration
from testbed.datapath.error import DatapathError
from testbed.datapath.mobile_network import IngressFilter, Unreachable
from testbed.datapath.optimisation import OptimisedRoutes, choose_carrier
from testbed.mobility.forwarding import HomeBinding, Pair, RouteOptimisation, Side
from testbed.mobility.registrar import Registrar
from testbed.mobility.role import Role, Transmission
from testbed.wire.codec import Codec
from testbed.wire.error import ParseError
from testbed.wire.packet import build_packet, parse_packet

logger = logging.getLogger(__name__)



class AgentError(Exception):
    """The agent cannot run; the text is one sentence with the remedy."""


class Agent:
    """A role on a node. Subclasses know what is particular to theirs.

    `counters` count messages: received, sent, malformed, dropped (by the role), not sent (no route and the
    like), flooded (not looked at: their sender sends too many bad ones), problems sent (ICMPv6 errors).
    Raises AgentError where this host has not what the configuration asks for.
    """

    side: Side
    role: Role

    def __init__(self, file: AgentFile) -> None:
        self.file = file
        self.started = time.monotonic()
        self.counters: Counter[str] = Counter(
            received=0, sent=0, malformed=0, dropped=0, not_sent=0, flooded=0, problems_sent=0
        )
        self.codec = Codec(file.dialect, require_alignment=True)
        try:
            self.events = EventLog(file.name, file.log.events)
        except OSError as error:
            raise AgentError(f"log.events: {file.log.events} cannot be written: {error.strerror}") from None
        self.state = StateFile(file.state)
        try:
            self.mobility_socket = self.make_mobility_socket()
            self.neighbours = NeighbourDiscoverySocket()
            self.monitor = LinkMonitor()
        except PermissionError:
            raise AgentError("an agent sends raw packets: start it as root (sudo)") from None
        self._drops = Drops(self.counters, self.events, self.mobility_socket.send, self.started)
        self._home_link = getattr(file, "home_interface", None)
        carrier = "none" if self.side is Side.ANCHOR else choose_carrier(file.datapath.route_carrier)
        self.routes = self.make_routes(carrier)
        by_kernel = carrier == "xfrm" or any(getattr(file, key, None) for key in ("ipsec", "map_ipsec"))
        self.datapath = self.make_datapath(kernel_mobility=by_kernel)
        self.feed = Feed()
        self.control = ControlServer(socket_path(file), self.handle, self.events, self.feed)
        #: What is exchanged under the protection of IPsec: None where that is not configured.
        self.protected: ProtectedSignalling | None = None
        #: What there is in the kernel for mobile networks: None where there are none.
        self.networks: IngressFilter | Unreachable | None = None
        self._steps: list[Step] = []
        self._within_turn: list[tuple[float, str, dict[str, Any]]] = []
        self._timer: asyncio.TimerHandle | None = None
        #: Nothing is changed in the kernel before it is ours.
        self.territory = Territory()
        self._saving: asyncio.Handle | None = None
        self._has_begun = False
        self._stopping = asyncio.Event()

    def make_mobility_socket(self) -> MobilitySocket:
        """What messages come in and go out by. Raises PermissionError."""
        return MobilitySocket()

    def make_datapath(self, kernel_mobility: bool) -> Datapath:
        """What carries tunnels out; see DatapathConfiguration."""
        return Datapath(
            self.side,
            DatapathConfiguration(
                self.file.datapath.tunnel_backend,
                self._home_link,
                self.tunnel_mtu(),
                kernel_mobility=kernel_mobility,
            ),
        )

    def tunnel_mtu(self) -> int:
        """What goes into a tunnel has at most so many octets."""
        return self.file.datapath.tunnel_mtu

    def make_routes(self, carrier: str) -> OptimisedRoutes | None:
        """What carries optimised routes out, None where there are none."""
        return None

    def route_failed(self, pair: Pair, reason: str, now: float) -> None:
        """The kernel does not optimise a route as the role wants."""
        self.role.datapath_failed(pair[0], reason, now)

    def prepare(self, now: float) -> None:
        """What the role wants is in place; what has been waiting for that is about to be sent."""
        self._keep(now)

    def links_changed(self, changes: list[tuple[str, Change]], now: float) -> None:
        """The kernel has reported changes of links, addresses or routers."""

    def bound(self, home_address: IPv6Address) -> None:
        """Forwarding for `home_address` is in place, for which there was none, or which somebody else has
        defended up to now."""

    def is_ours(self, address: IPv6Address) -> bool:
        """Whether packets to `address` are for this node."""
        return self.monitor.is_local(address)

    async def farewell(self) -> None:
        """What to tell others before the end."""

    def status(self) -> dict[str, Any]:
        """What `flowbind status` shows beside what all agents have."""
        return {}

    async def handle(self, request: Request) -> Any:
        """The result of a command of the control socket. Raises RequestError."""
        now = time.monotonic()
        if isinstance(request, requests.Status):
            return {
                "name": self.file.name,
                "role": self.file.__struct_config__.tag,
                "uptime_s": round(now - self.started, 3),
                "tunnel_backend": self.datapath.backend,
                **self.status(),
            }
        if isinstance(request, requests.Bindings):
            return self.role.bindings(now)
        if isinstance(request, requests.Cache) and isinstance(self.role, Registrar):
            return self._cache(self.role)
        if isinstance(request, requests.Counters):
            try:
                counters, others = self.datapath.counters(), self.datapath.totals()
            except DatapathError as error:
                raise RequestError(str(error)) from None
            flows = [
                {"home_address": str(address), "fid": fid, "packets": packets, "octets": octets}
                for (address, fid), (packets, octets) in counters.items()
            ]
            return {"flows": flows, "packets": others, "messages": dict(self.counters)}
        raise RequestError(
            f"{self.file.name} is a {self.file.__struct_config__.tag}: this is for the agent of a mobile node"
        )

    @staticmethod
    def _cache(role: Registrar) -> list[dict[str, Any]]:
        """The binding cache: bindings, each with the FIDs of its flow bindings."""
        flows = role.flows()
        return [
            {
                **binding,
                "flows": [
                    flow.fid
                    for home_address, flow in flows
                    if str(home_address) == binding["home_address"] and binding["bid"] in flow.bids
                ],
            }
            for binding in role.bindings(time.monotonic())
        ]

    async def run(self) -> None:
        """Serve until `stop` is called. Raises AgentError, ControlError, TerritoryError or DatapathError at
        the start."""
        loop = asyncio.get_running_loop()
        try:
            await self.control.start()
            self.territory.claim()
            self._restore(time.monotonic())
            wanted = self.role.forwarding()
            if self.protected is not None:
                self.protected.open()
                for sock in self.protected.sockets:
                    loop.add_reader(sock.fileno(), self._guarded, self._receive_protected, sock)
            self.datapath.reconcile(wanted)
            if self.protected is not None:
                self.protected.follow(wanted)
            self.feed.publish(wanted)
            self.role.changes()
            self._reconcile_routes()
            for home_address in wanted:
                self.bound(home_address)
            loop.add_reader(self.mobility_socket.fileno(), self._guarded, self._receive)
            loop.add_reader(self.monitor.fileno(), self._guarded, self._read_links)
            if self.networks is not None:
                self.networks.install()
            self._has_begun = True
            self._save()
            self.begin(time.monotonic())
            print("ready", flush=True)
            await self._stopping.wait()
            await self.farewell()
        finally:
            await self._close(loop)

    def _reconcile_routes(self) -> None:
        """Optimised routes of an earlier life: taken up, or removed."""
        if self.routes is None:
            return
        self.role.optimisation_changes()
        wanted = self.role.optimisations()
        try:
            self.routes.reconcile(wanted)
            if not wanted and not self.routes.correspondent:
                self.routes.close()
        except DatapathError as error:
            if self.side is not Side.MOBILE:
                raise
            logger.info("routes cannot be optimised here: %s", error)

    def begin(self, now: float) -> None:
        """The agent is set up: look at where it is."""
        self.turn(now)

    def stop(self) -> None:
        """End in good order."""
        self._stopping.set()

    async def _close(self, loop: asyncio.AbstractEventLoop) -> None:
        for handle in (self._timer, self._saving):
            if handle is not None:
                handle.cancel()
        if self._has_begun:
            self._save()
        self.state.close()
        for source in (self.mobility_socket, self.monitor, self.neighbours):
            loop.remove_reader(source.fileno())
            source.close()
        for sock in self.protected.sockets if self.protected else ():
            loop.remove_reader(sock.fileno())
        await self.control.close()
        if self.territory.is_ours:
            self._leave_kernel()
        self.territory.close()
        self.events.close()

    def _leave_kernel(self) -> None:
        """Remove all that is ours."""
        for part in (self.routes, self.networks, self.protected, self.datapath):
            try:
                if part is not None:
                    part.close()
            except DatapathError as error:
                logger.error("%s", error)

    def _guarded(self, callback: Any, *arguments: Any) -> None:
        """A defect met by one message or report must not end the service to all others."""
        try:
            callback(*arguments)
        except Exception:
            logger.exception("failed; going on")
            self.events.record("internal-error", time.monotonic())
            self.events.flush()

    def turn(self, now: float, received: float | None = None) -> None:
        """Carry out what the role wants after a call into it at `now`, and what has been collected before.
        `received`: when the kernel got the message that the call was about."""
        self._collect(now, received)
        steps, self._steps = self._steps, []
        held = [transmission for step in steps for transmission in step.held]
        held = self._apply(self.role.changes(), held, now)
        held = self._optimise(self.role.optimisation_changes(), held, now)
        self.prepare(now)
        instants = iter([self._send(transmission) for transmission in held])
        for step in steps:
            step.sent += islice(instants, len(step.held))
        steps[-1].sent += instants
        steps[-1].events += self.role.events()
        self._record(steps)
        self._arm()
        self.events.flush()

    def _collect(self, now: float, received: float | None) -> None:
        """Take what the role wants after a call into it, and send at once what need not wait for the
        datapath. The rest is carried out by the next `turn`, together with that of other calls."""
        transmissions = self.role.transmissions()
        sent = [self._send(transmission) for transmission in transmissions if not transmission.after_datapath]
        held = [transmission for transmission in transmissions if transmission.after_datapath]
        self._steps.append(Step(now, received, sent, held, self.role.events()))

    def _put_on_the_wire(self, data: bytes, transmission: Transmission) -> None:
        """Send the octets of a transmission. Raises OSError or DatapathError."""
        packet, hardware, interface = (
            transmission.packet, transmission.link_layer_address, transmission.interface
        )  # fmt: skip
        if hardware:
            interface = interface or self._home_link
        if self.protected is not None and self.protected.covers(packet):
            return self.protected.send(packet, data, interface, hardware or None)
        if hardware:
            return self.mobility_socket.send_on_link(data, interface, hardware)
        self.mobility_socket.send(data, packet.source, packet.destination, transmission.interface)

    def _send(self, transmission: Transmission) -> float:
        """Send a packet, return when. What cannot be sent is lost, as on any link: timers mend it."""
        packet, now = transmission.packet, time.monotonic()
        try:
            data = build_packet(packet, self.codec)
            now = time.monotonic()
            self._put_on_the_wire(data, transmission)
            self.counters["sent"] += 1
        except (OSError, ValueError, DatapathError) as error:
            self.counters["not_sent"] += 1
            reason = error.strerror if isinstance(error, OSError) else str(error)
            logger.warning("%s to %s not sent: %s", type(packet.message).__name__, packet.destination, reason)
            self._happened("message-not-sent", destination=str(packet.destination), reason=reason)
        return now

    def _apply(
        self, changes: dict[IPv6Address, HomeBinding | None], held: list[Transmission], now: float
    ) -> list[Transmission]:
        """Bring the kernel to what is wanted; returns what is to be sent now, out of `held`."""
        changes = {a: wanted for a, wanted in changes.items() if wanted != self.feed.bindings.get(a)}
        if not changes:
            return held
        begun = time.monotonic()
        try:
            self._change_kernel(changes)
        except DatapathError as error:
            if len(changes) > 1:  # what cannot be done for one must not be to the cost of others
                return self._apply_each(changes, held, now)
            logger.error("%s", error)
            self.role.hold(held)  # what they promise is not so: refusals are made of them
            for home_address in changes:
                self.role.datapath_failed(home_address, str(error), now)
            return self.role.transmissions()
        took_ms = round((time.monotonic() - begun) * 1000, 3)
        before = {home_address: self.feed.bindings.get(home_address) for home_address in changes}
        self.feed.publish(changes)
        self._happened("datapath-ready", home_addresses=[str(a) for a in changes], took_ms=took_ms)
        for home_address, wanted in changes.items():
            old = before[home_address]
            if wanted is not None and (old is None or old.defended != wanted.defended):
                self.bound(home_address)
        return held

    def _apply_each(
        self, changes: dict[IPv6Address, HomeBinding | None], held: list[Transmission], now: float
    ) -> list[Transmission]:
        """The same, one home address after the other."""
        for home_address, wanted in changes.items():
            about = [
                home_address in (transmission.packet.routing_address, transmission.packet.destination)
                for transmission in held
            ]
            its = [transmission for transmission, its in zip(held, about, strict=True) if its]
            answers = iter(self._apply({home_address: wanted}, its, now))
            held = [next(answers) if its else other for other, its in zip(held, about, strict=True)]
        return held

    def _change_kernel(self, changes: dict[IPv6Address, HomeBinding | None]) -> None:
        """Apply changes. If the kernel is not as we left it (somebody flushed the ruleset, say), put all of
        it right instead. Raises DatapathError."""
        try:
            self.datapath.apply(changes)
        except DatapathError as error:
            if len(changes) > 1:
                raise
            repairs = self.datapath.reconcile(self.role.forwarding())
            logger.warning("the kernel's state was not ours any more (%s): %d repairs", error, repairs)
            self._happened("datapath-repaired", reason=str(error), repairs=repairs)
        if self.protected is not None:
            self.protected.follow(changes)

    def _optimise(
        self, changes: dict[Pair, RouteOptimisation | None], held: list[Transmission], now: float
    ) -> list[Transmission]:
        """The same for optimised routes."""
        if not changes or self.routes is None:
            return held
        begun = time.monotonic()
        try:
            self.routes.apply(changes)
        except DatapathError as error:
            logger.error("%s", error)
            self.role.hold(held)
            for pair in changes:
                self.route_failed(pair, str(error), now)
            return self.role.transmissions()
        took_ms = round((time.monotonic() - begun) * 1000, 3)
        pairs = [[str(address) for address in pair] for pair in changes]
        self._happened("routes-optimised", pairs=pairs, took_ms=took_ms)
        return held

    def _happened(self, name: str, **fields: Any) -> None:
        """Something has happened right now, within a turn."""
        self._within_turn.append((time.monotonic(), name, fields))

    def _record(self, steps: list[Step]) -> None:
        """Record a turn's events at the times when they happened."""
        happened, self._within_turn = self._within_turn, []
        for step in steps:
            happened += step.happened()
        for t, name, fields in sorted(happened, key=lambda item: item[0]):
            if name == "message-dropped":
                self._drops.count("dropped", t, **fields)
            else:
                self.events.record(name, t, **fields)

    def _arm(self) -> None:
        """One timer for the next thing that the role has to do."""
        when = self.role.timer()
        if self._timer is not None:
            if when is not None and self._timer.when() == when:
                return
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = None if when is None else loop.call_at(when, self._guarded, self._handle_timer)

    def _handle_timer(self) -> None:
        self._timer = None
        now = time.monotonic()
        self.role.handle_timer(now)
        self.turn(now)

    def _receive_protected(self, sock: ProtectedSocket) -> None:
        for datagram in sock.receive():
            self._guarded(Agent._take, self, datagram)

    def _receive(self) -> None:
        for datagram in self.mobility_socket.receive():
            self._guarded(self._take, datagram)

    def _take(self, datagram: Datagram) -> None:
        data = datagram.data
        if len(data) >= 40 and not self.is_ours(IPv6Address(data[24:40])):
            return  # passing through: we are its router
        self.counters["received"] += 1
        now = time.monotonic()
        if self._drops.floods(data, now):
            return
        try:
            packet = parse_packet(data, self.codec)
        except ParseError as error:
            return self._drops.malformed(data, error, now)
        if datagram.protected:
            packet = replace(packet, protected=True)
        self.role.receive(packet, datagram.interface, now)
        self.received(now, datagram.received)

    def received(self, now: float, received: float) -> None:
        """The role has taken a message that the kernel got at `received`."""
        self.turn(now, received)

    def _read_links(self) -> None:
        now = time.monotonic()
        changes = self.monitor.read()
        if changes:
            self.links_changed(changes, now)

    def _keep(self, now: float) -> None:
        """Save what the role promises, before it is told to anybody."""
        if not self.file.state:
            return
        change = self.role.unsaved(now)
        if change is None:
            return
        if self.protected is not None:
            change["ipsec"] = self.protected.snapshot()
        if not self.state.append(change):
            self._save()
        elif self.state.is_long and self._saving is None:
            self._saving = asyncio.get_running_loop().call_soon(self._guarded, self._save)

    def _save(self) -> None:
        """Save everything."""
        self._saving = None
        snapshot = self.role.snapshot(time.monotonic())
        if self.protected is not None:
            snapshot["ipsec"] = self.protected.snapshot()
        self.state.save(snapshot)

    def _restore(self, now: float) -> None:
        saved = self.state.load(now)
        try:
            for snapshot, saved_at in saved:
                if self.protected is not None and "ipsec" in snapshot:
                    self.protected.restore(snapshot["ipsec"])
                self.role.restore(snapshot, saved_at, now)
        except ValueError as error:
            return self.state.reject(str(error))
        if saved:
            logger.info("took up the state of %s, %.1f s old", self.file.state, now - saved[-1][1])
