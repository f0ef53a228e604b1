"""Many results together. Classes: `Entry`, `Collection`. Functions: `read_collection`, `values_of`,
`text_of`."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from testbed.report.metric import Metric
from testbed.report.result import Result, ResultError, read_result

#: Parameters that are for the sake of time alone stand last in a name.
_FIRST = ("strategy", "scenario", "links")
#: Parameters that are numbers, in words.
_NUMBERS = {
    "ha_distance_ms": "home agent {} ms away", "cn_distance_ms": "correspondent {} ms away",
    "mobile_nodes": "{} mobile nodes", "flow_bindings": "{} flow bindings", "pace": "pace {}", "": "{}",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One result. `kind` and `parameters` are those of its case; `repetition` counts from 1."""

    path: Path
    result: Result
    kind: str
    parameters: Mapping[str, Any]
    repetition: int
    #: Parameters that are left out of the title, as all results that were read together share them.
    shared: frozenset[str] = frozenset()

    @property
    def group(self) -> str:
        """The same for all repetitions of a case, also of another series."""
        return json.dumps([self.kind, self.parameters], sort_keys=True)

    @property
    def title(self) -> str:
        """The case in words."""
        order = {name: place for place, name in enumerate(_FIRST)}
        shown = self.parameters.keys() - self.shared
        names = sorted(shown, key=lambda name: (order.get(name, len(order)), name))
        return ", ".join(text_of(self.parameters[name], name) for name in names) or self.kind

    @property
    def label(self) -> str:
        """The title, with the flows that the case could not carry."""
        left_out = self.result.metadata.get("not_carried")
        return f"{self.title} (without {', '.join(left_out)})" if left_out else self.title

    @property
    def order(self) -> list:
        """What entries are sorted by: the strategies' own order, numbers by size."""
        places = {name: place for place, name in enumerate(_FIRST)}
        names = sorted(self.parameters, key=lambda name: (places.get(name, len(places)), name))
        values = [self.parameters[name] for name in names if name != "strategy"]
        rank = self.result.metadata.get("rank", 0)
        return ["strategy" not in self.parameters, rank, str(self.parameters.get("strategy")), [
            (0, value, "") if isinstance(value, (int, float)) else (1, 0, str(value)) for value in values]]

    def fits(self, word: str) -> bool:
        """Whether a parameter has this value, or the named one (`name=value`)."""
        name, equals, value = word.rpartition("=")
        values = [self.parameters.get(name)] if equals else self.parameters.values()
        return value in map(_word_of, values)

    @property
    def trusted(self) -> bool:
        """Whether the machine was fast enough for it."""
        return not self.result.busy


@dataclass(slots=True)
class Collection:
    """Results, and what there is no result of: `skipped` and `failed` go by name, with the reason."""

    entries: list[Entry] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def all_groups(self) -> dict[str, list[Entry]]:
        """The repetitions of each case, in order."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.group, []).append(entry)
        return found

    def groups(self) -> dict[str, list[Entry]]:
        """The repetitions of each case on which its figures rest: those that can be trusted, if there are
        any."""
        return {group: [entry for entry in entries if entry.trusted] or entries
                for group, entries in self.all_groups().items()}  # fmt: skip

    def usable(self) -> list[Entry]:
        """The entries of `groups`."""
        return [entry for entries in self.groups().values() for entry in entries]

    def common(self) -> dict[str, Any]:
        """The parameters that all results share, where they are of several cases."""
        if len({entry.group for entry in self.entries}) < 2:
            return {}
        first = self.entries[0].parameters
        return {name: value for name, value in first.items()
                if all(entry.parameters.get(name) == value for entry in self.entries)}  # fmt: skip

    def values(self, parameter: str) -> list[Any]:
        """The values that a parameter takes, in the order of their first appearance."""
        seen = {json.dumps(entry.parameters[parameter]): entry.parameters[parameter]
                for entry in self.entries if parameter in entry.parameters}  # fmt: skip
        ranks = {entry.parameters.get(parameter): entry.result.metadata.get("rank", 0)
                 for entry in self.entries if parameter == "strategy"}  # fmt: skip
        return sorted(seen.values(), key=lambda value: ranks[value]) if ranks else list(seen.values())

    def select(self, words: Iterable[str]) -> "Collection":
        """The results whose parameters fit all these words: a value, or `name=value`; networks are joined by
        "+". Their titles leave out whatever they share."""
        words = list(words)
        chosen = [entry for entry in self.entries if all(map(entry.fits, words))]
        return Collection(_sorted(chosen, always=()), self.skipped, self.failed)


def values_of(entries: Iterable[Entry], metric: Metric) -> list[float]:
    """A metric of these results, as far as they have it."""
    return [value for entry in entries if (value := metric.of(entry.result)) is not None]


def text_of(value: Any, name: str = "") -> str:
    """A parameter's value in words."""
    if isinstance(value, list):
        return " + ".join(map(str, value))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"mobile {value}" if name == "mobile" else str(value)
    text = _NUMBERS.get(name, f"{name} {{}}").format(f"{value:g}")
    return text.removesuffix("s") if value == 1 and name in ("mobile_nodes", "flow_bindings") else text


def _word_of(value: Any) -> str:
    """A parameter's value in one word."""
    return "+".join(map(str, value)) if isinstance(value, list) else f"{value:g}" if isinstance(
        value, float) else str(value)  # fmt: skip


def read_collection(paths: Iterable[str | Path]) -> Collection:
    """Read result files, folders with one, and folders of series.

    Raises ResultError, one sentence: a path has no result at all, or one that cannot be read.
    """
    found = Collection()
    for path in map(Path, paths):
        files = [path] if path.is_file() else sorted(path.rglob("result.json"))
        if path.is_dir() and not files:
            raise ResultError(
                f"{path}: there is no result.json in it; give the folder that a run has written."
            )
        for file in files or [path]:
            found.entries.append(_entry(file))
        for series in sorted(path.rglob("series.json")) if path.is_dir() else []:
            _add_series(found, series)
    there = {entry.parameters.get("strategy") for entry in found.entries}
    found.skipped = {what: reason for what, reason in found.skipped.items() if what not in there}
    found.entries = _sorted(found.entries)
    return found


def _sorted(entries: list[Entry], always: Iterable[str] = _FIRST) -> list[Entry]:
    """By title, which has what these entries do not share, and these parameters `always`."""
    several = len({entry.group for entry in entries}) > 1
    first = entries[0].parameters if several else {}
    shared = frozenset(name for name in first if name not in always and all(
        entry.parameters.get(name) == first[name] for entry in entries))  # fmt: skip
    entries = [replace(entry, shared=shared) for entry in entries]
    return sorted(entries, key=lambda entry: (entry.order, entry.repetition))


def _entry(file: Path) -> Entry:
    result = read_result(file)
    case = result.metadata.get("case", {})
    parameters = {name: _by_stem(value) for name, value in case.get("parameters", {}).items()}
    return Entry(file, result, case.get("kind", result.experiment), parameters, case.get("repetition", 1))


def _by_stem(value: Any) -> Any:
    """Strategies and profiles that are files of somebody's go by the name of the file."""
    if isinstance(value, list):
        return [_by_stem(each) for each in value]
    return Path(value).stem if isinstance(value, str) and value.endswith((".py", ".toml")) else value


def _add_series(found: Collection, file: Path) -> None:
    try:
        document = json.loads(file.read_text())
        found.skipped |= document["skipped"]
        found.failed |= {
            one["key"]: one["reason"] for one in document["outcomes"] if one["state"] == "failed"
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultError(
            f"{file} is no file of a series ({error}): remove it, and give its cases."
        ) from None
