"""The Ryu app that mirrors flow bindings into switch rules. Class: `FlowBindingMirror`.

`python -m controllers.runner` starts it; `ryu-manager controllers.app` would do, too: $FLOWBIND_FABRIC
names the description of the switches, $FLOWBIND_CONTROLLER_SOCKET the control socket ("" for none), and
$FLOWBIND_CONTROLLER_EVENTS a file for events, one JSON object a line.

It only translates between the mirror, which decides, and the Ryu API. All of it runs in one thread; a green
thread is only interrupted where it waits.
"""

import json
import os
import time
from collections.abc import Callable
from typing import Any

from controllers import openflow
from controllers.ryu_api import VERSION, App, handler, hub, ofp_event, ofproto

from controllers.control import ControlServer  # isort: skip  (sockets are patched by now)
from controllers.fabric import load  # isort: skip
from controllers.feed_client import FeedClient  # isort: skip
from controllers.mirror import Mirror  # isort: skip
from controllers.report import rules_report, status_report  # isort: skip
from controllers.switch import Commit, Read  # isort: skip
from testbed.mobility.feed import FeedUpdate  # isort: skip

FABRIC_VARIABLE = "FLOWBIND_FABRIC"
SOCKET_VARIABLE = "FLOWBIND_CONTROLLER_SOCKET"
EVENTS_VARIABLE = "FLOWBIND_CONTROLLER_EVENTS"
#: How long the command `rules` waits for fresh counters; seconds.
COUNTERS_TIMEOUT_S = 1.0
POLL_S = 0.005

MAIN, DEAD = handler.MAIN_DISPATCHER, handler.DEAD_DISPATCHER


class _Connection:
    """A connected switch and the questions to it that are open."""

    def __init__(self, datapath: Any) -> None:
        self.datapath = datapath
        self.commit: Commit | None = None
        self.xids: set[int] = set()
        self.commit_xid = -1
        self.reason = ""
        self.flows: list[Any] | None = None
        self.groups: list[Any] | None = None
        self.flows_xid = self.groups_xid = -1


class FlowBindingMirror(App):
    """Bindings of agents in, OpenFlow 1.3 rules out."""

    OFP_VERSIONS = [ofproto.OFP_VERSION]

    def __init__(self, *arguments: Any, **contexts: Any) -> None:
        super().__init__(*arguments, **contexts)
        self.mirror = Mirror(load(os.environ[FABRIC_VARIABLE]))
        self._connections: dict[int, _Connection] = {}
        self._carrying_out = False
        self._settled = True
        self._sent = {"messages": 0, "octets": 0}
        events = os.environ.get(EVENTS_VARIABLE)
        self._events = open(events, "a", buffering=1) if events else None  # noqa: SIM115  open until the end
        self._feeds = [self._feed_client(path) for path in self.mirror.fabric.feeds]
        path = os.environ.get(SOCKET_VARIABLE)
        commands = {"rules": self._rules, "status": self._status}
        self._control = ControlServer(path, commands, hub.spawn) if path else None

    def start(self) -> None:
        super().start()
        for feed in self._feeds:
            hub.spawn(feed.run)
        if self._control:
            hub.spawn(self._control.run)
        hub.spawn(self._tick)

    def withdraw(self) -> None:
        """Remove all rules, and wait until the switches have been told."""
        # what is under way, in another thread perhaps, would be installed after we have left
        self._carry_out_until(lambda: all(s.is_quiet for s in self.mirror.switches.values()), 2.0)
        self.mirror.withdraw()
        self._carry_out_until(lambda: not any(c.commit for c in self._connections.values()), 2.0)
        if self._control:
            self._control.close()

    def _feed_client(self, path: str) -> FeedClient:
        def updated(update: FeedUpdate) -> None:
            addresses = [str(address) for address in update.changes]
            self._record("bindings-received", feed=path, serial=update.serial, home_addresses=addresses)
            self.mirror.feed_update(path, update, time.monotonic())
            self._carry_out()

        def lost() -> None:
            self.mirror.feed_lost(path, time.monotonic())
            self._carry_out()

        return FeedClient(path, updated, lost, hub.sleep)

    def _tick(self) -> None:
        while True:
            hub.sleep(self.mirror.interval_s)
            try:
                self.mirror.tick(time.monotonic())
                self._carry_out()
            except Exception:  # a defect must not close the gates of everybody
                self.logger.exception("failed; going on")

    def _status(self) -> dict[str, Any]:
        feeds = {feed.path: feed.connected for feed in self._feeds}
        return status_report(self.mirror, VERSION, feeds) | {"sent": self._sent}

    def _rules(self) -> list[dict[str, Any]]:
        asked = time.monotonic()
        self.mirror.refresh(asked)
        self._carry_out()
        while (
            any(switch.read_at < asked for switch in self.mirror.switches.values())
            and time.monotonic() < asked + COUNTERS_TIMEOUT_S
        ):
            hub.sleep(POLL_S)
        return rules_report(self.mirror)

    def _record(self, event: str, **fields: Any) -> None:
        if self._events:
            line = {"t": time.monotonic(), "node": "controller", "event": event, **fields}
            self._events.write(json.dumps(line) + "\n")

    def _carry_out_until(self, done: Callable[[], bool], seconds: float) -> None:
        """Send what the mirror wants sent until that is done, but no longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._carry_out()
            if not self._carrying_out and done():
                return
            hub.sleep(POLL_S)

    def _carry_out(self) -> None:
        """Send what the mirror wants sent. Sending may wait; what others want meanwhile is sent
        afterwards."""
        if self._carrying_out:
            return
        self._carrying_out = True
        try:
            while outputs := self.mirror.outputs():
                for output in outputs:
                    connection = self._connections.get(output.switch)
                    if connection is None:
                        continue
                    if isinstance(output, Commit):
                        self._commit(connection, output)
                    elif isinstance(output, Read):
                        self._read(connection)
                    else:
                        for rule in output.rules:
                            self._send(connection, openflow.put_rule(connection.datapath, rule))
        finally:
            self._carrying_out = False
        settled = all(switch.is_quiet for switch in self.mirror.switches.values())
        if settled and not self._settled:
            self._record("rules-ready")
        self._settled = settled

    def _commit(self, connection: _Connection, commit: Commit) -> None:
        datapath = connection.datapath
        changes = [openflow.put_group(datapath, group) for group in commit.new_groups]
        changes += [openflow.delete_rule(datapath, rule) for rule in commit.old_rules]
        changes += [openflow.put_rule(datapath, rule) for rule in commit.new_rules]
        changes += [openflow.delete_group(datapath, group) for group in commit.old_groups]
        messages = openflow.bundle(datapath, commit.number, changes)
        connection.commit, connection.reason = commit, ""
        connection.xids = {datapath.set_xid(message) for message in messages}
        connection.commit_xid = messages[-1].xid
        for message in messages:
            self._send(connection, message)

    def _read(self, connection: _Connection) -> None:
        flows, groups = (
            openflow.flow_request(connection.datapath),
            openflow.group_request(connection.datapath),
        )
        connection.flows_xid = connection.datapath.set_xid(flows)
        connection.groups_xid = connection.datapath.set_xid(groups)
        connection.flows, connection.groups = [], []
        self._send(connection, flows)
        self._send(connection, groups)

    def _send(self, connection: _Connection, message: Any) -> None:
        connection.datapath.send_msg(message)
        self._sent["messages"] += 1
        self._sent["octets"] += len(message.buf)

    @handler.set_ev_cls(ofp_event.EventOFPStateChange, [MAIN, DEAD])
    def _state_changed(self, event: Any) -> None:
        datapath = event.datapath
        if datapath.id is None:
            return
        now = time.monotonic()
        if event.state == MAIN:
            self.logger.info("switch %#x has connected", datapath.id)
            self._connections[datapath.id] = _Connection(datapath)
            ports = dict(openflow.port_of(port) for port in datapath.ports.values())
            self.mirror.switch_up(datapath.id, ports, now)
        elif datapath.id in self._connections and self._connections[datapath.id].datapath is datapath:
            self.logger.warning("switch %#x has gone", datapath.id)
            del self._connections[datapath.id]
            self.mirror.switch_down(datapath.id, now)
        self._carry_out()

    @handler.set_ev_cls(ofp_event.EventOFPPortStatus, MAIN)
    def _port_changed(self, event: Any) -> None:
        message = event.msg
        name, port = openflow.port_of(message.desc)
        gone = message.reason == ofproto.OFPPR_DELETE
        self.mirror.port_changed(message.datapath.id, name, None if gone else port, time.monotonic())
        self._carry_out()

    @handler.set_ev_cls(ofp_event.EventOFPFlowStatsReply, MAIN)
    def _flows_read(self, event: Any) -> None:
        connection = self._connection(event)
        if connection and event.msg.xid == connection.flows_xid:
            connection.flows += event.msg.body
            if not event.msg.flags & ofproto.OFPMPF_REPLY_MORE:
                connection.flows_xid = -1
                self._tables_read(connection)

    @handler.set_ev_cls(ofp_event.EventOFPGroupDescStatsReply, MAIN)
    def _groups_read(self, event: Any) -> None:
        connection = self._connection(event)
        if connection and event.msg.xid == connection.groups_xid:
            connection.groups += event.msg.body
            if not event.msg.flags & ofproto.OFPMPF_REPLY_MORE:
                connection.groups_xid = -1
                self._tables_read(connection)

    def _tables_read(self, connection: _Connection) -> None:
        if connection.flows_xid != -1 or connection.groups_xid != -1:
            return
        rules, counters = [], {}
        for entry in connection.flows:
            rule = openflow.rule_of(entry)
            if rule is not None:
                rules.append(rule)
                counters[rule.key] = entry.packet_count, entry.byte_count
        groups = [group for group in map(openflow.group_of, connection.groups) if group]
        connection.flows = connection.groups = None
        self.mirror.switch_tables(connection.datapath.id, rules, groups, counters, time.monotonic())
        self._carry_out()

    @handler.set_ev_cls(ofp_event.EventONFBundleCtrlMsg, MAIN)
    def _bundle_answered(self, event: Any) -> None:
        connection, message = self._connection(event), event.msg
        if connection and connection.commit and message.type == ofproto.ONF_BCT_COMMIT_REPLY:
            if message.xid == connection.commit_xid:
                commit, connection.commit = connection.commit, None
                self.mirror.committed(commit.switch, commit.number, time.monotonic())
                self._carry_out()

    @handler.set_ev_cls(ofp_event.EventOFPErrorMsg, MAIN)
    def _error(self, event: Any) -> None:
        connection, message = self._connection(event), event.msg
        reason = openflow.error_in_words(message)
        if connection is None or connection.commit is None or message.xid not in connection.xids:
            self.logger.warning("switch %#x: %s", message.datapath.id or 0, reason)
            return
        connection.reason = connection.reason or reason  # the first says why, those after it follow from it
        if message.xid == connection.commit_xid:
            commit, connection.commit = connection.commit, None
            self.mirror.refused(commit.switch, commit.number, connection.reason, time.monotonic())
            self._carry_out()

    def _connection(self, event: Any) -> _Connection | None:
        datapath = event.msg.datapath
        connection = self._connections.get(datapath.id)
        return connection if connection and connection.datapath is datapath else None
