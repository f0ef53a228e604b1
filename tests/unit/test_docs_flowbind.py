"""docs/flowbind.md has every command, every request and every event."""

import ast
import re
from pathlib import Path

import pytest

from testbed.agent.command import main
from testbed.agent.requests import Request

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "flowbind.md").read_text()


def table(title: str) -> set[str]:
    """What stands in the first column of the table below a heading; "-sent" goes with the name before it."""
    rows = re.findall(r"^\| ([^|]+) \|", PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0], re.M)
    found: set[str] = set()
    for row in rows:
        names = [name.split(" ")[0] for name in re.findall(r"`([^`]+)`", row)]
        stems = names[:1] * len(names)
        found.update(names)
        for stem, name in zip(stems, names, strict=True):
            if name.startswith("-"):
                found.update(stem[: match.start()] + name for match in re.finditer("-", stem))
    return found


def events() -> set[str]:
    """The names of events that the code has as they are."""
    files = [path for layer in ("agent", "mobility") for path in (ROOT / "testbed" / layer).glob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    noting = [call for call in calls if call.func.attr in ("_note", "_happened", "record", "happened")]
    named = [call.args[0] for call in noting if call.args]
    return {name.value for name in named if isinstance(name, ast.Constant)}


def test_events_are_found():
    assert len(events()) > 30


@pytest.mark.parametrize("event", sorted(events()))
def test_every_event_is_there(event):
    assert event in table("Events"), "the table of events has no line for it"


def test_every_command_is_there(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    commands = re.findall(r"^    ([a-z-]+) ", capsys.readouterr().out, re.M)
    assert len(commands) > 10
    assert {*commands} <= table("Commands")


@pytest.mark.parametrize("kind", Request.__args__)
def test_every_request_is_there(kind):
    assert f"`{kind.__struct_config__.tag}`" in PAGE.partition("On the socket")[2]
