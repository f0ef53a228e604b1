"""Strategies by name. Functions: `strategy_names`, `find_strategy`, `all_strategies`, `ask`. Exception:
`StrategyError`.

Every subclass of `Strategy` with a name in a module of this package is known; one in another file goes by the
path of that file.
"""

import difflib
import importlib
import importlib.util
import pkgutil
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import testbed.strategy as package
from testbed.strategy.strategy import Binding, Carrier, Event, Flow, Link, Strategy

#: The order in which they are shown: references outside Mobile IPv6 first, then what costs ever more.
ORDER = (
    "none", "mptcp", "per-packet", "single", "static", "balanced", "adaptive", "ncast-handover",
    "ncast-always", "route-optimised", "anchored", "mirrored",
)  # fmt: skip


class StrategyError(Exception):
    """There is no such strategy; the text is one sentence with the remedy."""


def all_strategies() -> dict[str, type[Strategy]]:
    """Those of this package, by name."""
    found: dict[str, type[Strategy]] = {}
    for module in pkgutil.iter_modules(package.__path__):
        found |= _strategies(importlib.import_module(f"{package.__name__}.{module.name}"))
    order = {name: place for place, name in enumerate(ORDER)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


def strategy_names() -> list[str]:
    """The names of this package's strategies, in the order in which they are shown."""
    return list(all_strategies())


def find_strategy(name: str) -> type[Strategy]:
    """The strategy of that name, or the only one in the file `name`. Raises StrategyError."""
    if name.endswith(".py"):
        return _load(Path(name))
    known = all_strategies()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}."
        raise StrategyError(
            f"there is no strategy {name!r}: {hint} One of your own goes by its file, as in mine.py."
        )
    return known[name]


def _load(path: Path) -> type[Strategy]:
    spec = importlib.util.spec_from_file_location(f"strategy_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except OSError as error:
        raise StrategyError(f"{path} cannot be read: {error.strerror}.") from error
    except (Exception, SystemExit) as error:  # whatever its author has written
        raise StrategyError(f"{path} cannot be loaded: {type(error).__name__}: {error}.") from error
    found = list(_strategies(module).values())
    if len(found) != 1:
        raise StrategyError(
            f"{path} has {len(found)} strategies: expected one subclass of Strategy with a name."
        )
    if found[0].decide is Strategy.decide and found[0].carrier is Carrier.HOME_AGENT:
        raise StrategyError(f"{path}: the strategy {found[0].name} has no decide(self, flows, links, event).")
    return found[0]


def ask(strategy: Strategy, flows: Sequence[Flow], links: Sequence[Link], event: Event) -> dict[str, Binding]:
    """What it decides. Raises StrategyError for an answer that cannot be meant, and for its own errors."""
    try:
        answer = dict(strategy.decide(flows, links, event))
    except Exception as error:  # whatever its author has written
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise StrategyError(
            f"{strategy.name}: decide fails at {event.name!r}: {type(error).__name__}: {error} "
            f"({place.filename}, line {place.lineno})."
        ) from error
    known, numbers = {flow.name for flow in flows}, {link.number for link in links}
    for name, binding in answer.items():
        if name not in known:
            there = ", ".join(sorted(known))
            raise StrategyError(f"{strategy.name}: decide answers a flow {name!r}: there are {there}.")
        if not isinstance(binding, Binding) or not set(binding.networks) <= numbers:
            there = ", ".join(map(str, sorted(numbers)))
            raise StrategyError(
                f"{strategy.name}: decide answers {binding!r} for {name}: expected Binding((...)) with "
                f"numbers of links, of which there are {there}."
            )
    return answer


def _strategies(module: ModuleType) -> dict[str, type[Strategy]]:
    return {
        entry.name: entry
        for entry in vars(module).values()
        if isinstance(entry, type) and issubclass(entry, Strategy) and entry.name
        and entry.__module__ == module.__name__
    }  # fmt: skip
