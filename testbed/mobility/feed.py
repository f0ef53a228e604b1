"""Forwarding state as lines of JSON, for those that mirror it elsewhere (switches, for example).

Functions: `binding_to_json`, `binding_from_json`, `snapshot_line`, `change_line`. Classes: `FeedReader`,
`FeedUpdate`. Exception: `FeedError`. No I/O.

A feed starts with a snapshot, the complete state, and goes on with changes in their order. Serial
numbers count the changes: one that does not follow its predecessor tells that something got lost, and
that a new snapshot is needed::

    {"feed": "snapshot", "serial": 7, "bindings": [{"home_address": ..., "paths": [...], ...}, ...]}
    {"feed": "change", "serial": 8, "bindings": [{"home_address": ..., ...}], "removed":
    ["2001:db8:100::101"]}
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from testbed.mobility.forwarding import Action, FlowRule, HomeBinding, Path
from testbed.wire.error import ParseError
from testbed.wire.selector import SELECTORS, TrafficSelector


class FeedError(Exception):
    """A line is not of a feed, or does not follow the one before; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class FeedUpdate:
    """What a line says. complete: home addresses that are not named have no binding."""

    serial: int
    complete: bool
    changes: Mapping[IPv6Address, HomeBinding | None]


def binding_to_json(binding: HomeBinding) -> dict[str, Any]:
    """JSON-able; selectors are RFC 6088 octets in hexadecimal after the number of their format."""
    return {
        "home_address": str(binding.home_address),
        "prefixes": [str(prefix) for prefix in binding.prefixes],
        "default_bid": binding.default_bid,
        "paths": [
            {"bid": path.bid, "local": str(path.local), "remote": str(path.remote)} for path in binding.paths
        ],
        "rules": [
            {
                "fid": rule.fid,
                "priority": rule.priority,
                "action": int(rule.action),
                "bids": list(rule.bids),
                "selector": _selector_to_json(rule.selector),
            }
            for rule in binding.rules
        ],
    }


def binding_from_json(value: Any) -> HomeBinding:
    """The inverse. Raises FeedError that says what is wrong."""
    try:
        rules = tuple(
            FlowRule(
                _number(rule["fid"], 0xFFFF),
                _number(rule["priority"], 0xFFFF),
                _selector_from_json(rule["selector"]),
                Action(rule["action"]),
                tuple(_number(bid, 0xFFFF) for bid in rule["bids"]),
            )
            for rule in value["rules"]
        )
        paths = tuple(
            Path(_number(path["bid"], 0xFFFF), IPv6Address(path["local"]), IPv6Address(path["remote"]))
            for path in value["paths"]
        )
        default = value["default_bid"]
        return HomeBinding(
            IPv6Address(value["home_address"]),
            paths,
            None if default is None else _number(default, 0xFFFF),
            rules,
            tuple(IPv6Network(prefix) for prefix in value["prefixes"]),
        )
    except KeyError as error:
        raise FeedError(f"a binding has no {error}") from None
    except (TypeError, ValueError, AttributeError, ParseError) as error:
        raise FeedError(f"a binding cannot be read: {error}") from None


def snapshot_line(serial: int, bindings: Iterable[HomeBinding]) -> bytes:
    """The complete state after change number `serial`."""
    return _line({"feed": "snapshot", "serial": serial, "bindings": [binding_to_json(b) for b in bindings]})


def change_line(serial: int, changes: Mapping[IPv6Address, HomeBinding | None]) -> bytes:
    """What has changed at once; None: there is no binding any more."""
    return _line(
        {
            "feed": "change",
            "serial": serial,
            "bindings": [binding_to_json(b) for b in changes.values() if b is not None],
            "removed": [str(address) for address, binding in changes.items() if binding is None],
        }
    )


class FeedReader:
    """Reads a feed line by line and notices when a line is missing."""

    def __init__(self) -> None:
        self.serial: int | None = None

    def read(self, line: bytes) -> FeedUpdate:
        """What a line says. Raises FeedError; the reader is then of no use any more: connect again."""
        try:
            message = json.loads(line)
        except ValueError as error:
            raise FeedError(f"a line is not JSON: {error}") from None
        if not isinstance(message, dict) or message.get("feed") not in ("snapshot", "change"):
            raise FeedError("a line is neither a snapshot nor a change")
        serial = message.get("serial")
        if isinstance(serial, bool) or not isinstance(serial, int) or serial < 0:
            raise FeedError(f"a line has no serial number: {serial!r}")
        complete = message["feed"] == "snapshot"
        if not complete and (self.serial is None or serial != self.serial + 1):
            after = "without a snapshot" if self.serial is None else f"after {self.serial}"
            raise FeedError(f"change {serial} came {after}")
        self.serial = serial
        changes: dict[IPv6Address, HomeBinding | None] = {}
        bindings, removed = message.get("bindings"), message.get("removed", [])
        if not isinstance(bindings, list) or not isinstance(removed, list):
            raise FeedError("a line has no list of bindings")
        for value in bindings:
            binding = binding_from_json(value)
            changes[binding.home_address] = binding
        for text in removed:
            try:
                changes[IPv6Address(text)] = None
            except ValueError as error:
                raise FeedError(f"a removed home address cannot be read: {error}") from None
        return FeedUpdate(serial, complete, changes)


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _number(value: Any, limit: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
        raise ValueError(f"{value!r} is not a number from 0 to {limit}")
    return value


def _selector_to_json(selector: TrafficSelector | None) -> list[Any] | None:
    return None if selector is None else [selector.ts_format, bytes(selector).hex()]


def _selector_from_json(value: Any) -> TrafficSelector | None:
    if value is None:
        return None
    ts_format, octets = value
    if ts_format not in SELECTORS:
        raise ValueError(f"there is no traffic selector format {ts_format!r}")
    return SELECTORS[ts_format].parse(bytes.fromhex(octets))
