"""What a case of each kind takes: `SteeringParameters`, `LoadParameters`. Functions: `check_parameters`,
`with_whole_paths`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from testbed.agent.validation import validation_sentence
from testbed.emulation.link import BACKENDS as LINK_BACKENDS
from testbed.emulation.security import METHODS
from testbed.experiment.options import TUNNEL_BACKENDS
from testbed.experiment.profile import ProfileError, load_link, load_scenario

MOST_FLOW_BINDINGS, MOST_MOBILE_NODES, MAX_DISTANCE_MS = 160, 250, 1000.0
Distance = Annotated[float, Meta(ge=0, le=MAX_DISTANCE_MS)]


class _Parameters(Struct, forbid_unknown_fields=True, kw_only=True):
    """`pace`: all times of the scenario are multiplied by it."""

    links: Annotated[list[str], Meta(min_length=2)]
    pace: Annotated[float, Meta(gt=0, le=100)] = 1.0
    link_backend: Literal[tuple(LINK_BACKENDS)] = "auto"  # type: ignore[valid-type]
    tunnel_backend: Literal[TUNNEL_BACKENDS] = "auto"  # type: ignore[valid-type]
    security: Literal[METHODS] = METHODS[0]  # type: ignore[valid-type]


class SteeringParameters(_Parameters, kw_only=True):
    """The case of kind "steering": see `testbed.experiment.steering`."""

    strategy: str
    scenario: str
    ha_distance_ms: Distance = 0.0
    cn_distance_ms: Distance = 0.0
    mobile: Literal["node", "router"] = "node"


class LoadParameters(_Parameters, kw_only=True):
    """The case of kind "load": see `testbed.experiment.load`."""

    mobile_nodes: Annotated[int, Meta(ge=1, le=MOST_MOBILE_NODES)]
    flow_bindings: Annotated[int, Meta(ge=1, le=MOST_FLOW_BINDINGS)]


KINDS = {"steering": SteeringParameters, "load": LoadParameters}


def check_parameters(kind: str, parameters: Mapping[str, Any]) -> None:
    """Raise ProfileError, one sentence that names the key, for what no case of this kind can have."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise ProfileError(f"kind: there is no {kind!r}; there are {', '.join(KINDS)}.")
    try:
        checked = msgspec.convert(dict(parameters), KINDS[kind])
    except msgspec.ValidationError as error:
        words = validation_sentence(error, parameters, KINDS[kind])
        raise ProfileError(f"a case of kind {kind}: {words.rstrip('?')}.") from error
    for name in checked.links:
        load_link(name)
    if isinstance(checked, SteeringParameters):
        scenario, there = load_scenario(checked.scenario), len(checked.links)
        highest = max(max(step.network, step.to or 1) for step in scenario.step)
        if highest > there:
            raise ProfileError(
                f"the scenario {checked.scenario} has an access network {highest}: give as many link "
                f"profiles, not {there}."
            )


def with_whole_paths(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The same where files of one's own (strategies, profiles) are named as seen from anywhere: cases run in
    another folder."""

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(each) for each in value]
        is_file = isinstance(value, str) and value.endswith((".py", ".toml"))
        return str(Path(value).absolute()) if is_file else value

    return {name: whole(value) for name, value in parameters.items()}
