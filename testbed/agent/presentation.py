"""Flow bindings and statuses for people and programs, and the tables that the command prints.

Functions: `flow_to_json`, `status_in_words`, `in_words`, `table`, `event_line`.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command needs none of the protocol to print tables
    from testbed.mobility.binding import FlowBinding


def flow_to_json(home_address: IPv6Address, flow: "FlowBinding") -> dict[str, Any]:
    """A flow binding with the keys of the configuration file, and its selector in words."""
    from testbed.agent.selector_text import describe, selector_texts

    return {
        "home_address": str(home_address),
        "fid": flow.fid,
        "priority": flow.priority,
        "action": flow.action.name.lower().replace("_", "-"),
        "bids": list(flow.bids),
        "selector": selector_texts(flow.selector),
        "description": describe(flow.selector),
    }


def status_in_words(status: int, of_flow: bool = False) -> str:
    """A status as its specification names it, for example "FID already in use (status 135)"."""
    from testbed.wire.flow import FlowStatus
    from testbed.wire.message import Status

    try:
        name = (FlowStatus if of_flow else Status)(status).name
    except ValueError:
        return f"status {status}"
    words = name.lower().split("_")
    words = [word.upper() if word in ("fid", "bid", "mcoa", "spi") else word for word in words]
    return f"{' '.join(words)} (status {status})"


def in_words(value: Any) -> str:
    """A value of an agent's answer: "yes", "no", "-" for none, what a list or an object has behind commas."""
    if isinstance(value, list):
        return ", ".join(map(in_words, value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {in_words(part)}" for key, part in value.items())
    return "-" if value is None else "yes" if value is True else "no" if value is False else str(value)


def table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of a table whose columns are as wide as what is in them; numbers to the right."""
    rows = [["-" if cell is None else cell for cell in row] for row in rows]
    texts = [list(titles), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in texts) for column in range(len(titles))]
    right = [bool(rows) and all(isinstance(row[c], int | float) for row in rows) for c in range(len(titles))]
    return [
        "  ".join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in texts
    ]


def event_line(event: dict[str, Any]) -> str:
    """An event on one line: time, node, name, and the other fields as key=value."""
    fields = {key: value for key, value in event.items() if key not in ("t", "node", "event")}
    words = [f"{key}={_value(value)}" for key, value in fields.items()]
    return " ".join([f"{event['t']:14.6f}", event["node"], event["event"], *words])


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_value, value)) + "]"
    return str(value)
