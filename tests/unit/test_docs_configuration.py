"""docs/configuration.md has every key that an agent takes, with its default."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from testbed.agent import configuration

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
NAMED = {word for code in re.findall(r"`([^`]+)`", PAGE) for word in re.findall(r"\w+", code)}
#: The cells of the column "default" in the lines of each key.
DEFAULTS: dict[str, list[str]] = {}
for key, default in re.findall(r"^\| ([^|]+) \| ([^|]*)\|", PAGE, re.M):
    for word in re.findall(r"`(?:\[+\w+\]+ )?(\w+)`", key):
        DEFAULTS.setdefault(word, []).append(default)

FIELDS = {
    f"{table.__name__}.{field.name}": field
    for table in vars(configuration).values()
    if isinstance(table, type) and issubclass(table, configuration.Table)
    for field in msgspec.structs.fields(table)
}


@pytest.mark.parametrize("name", FIELDS)
def test_every_key_is_there_with_its_default(name):
    field = FIELDS[name]
    assert field.name in NAMED
    lines = DEFAULTS.get(field.name)
    if lines and isinstance(field.default, bool | int | float | str) and field.default != "":
        assert any(f"`{json.dumps(field.default)}`" in line for line in lines), lines


def test_the_page_is_read():
    assert DEFAULTS["tunnel_mtu"] == ["`1460` "]
