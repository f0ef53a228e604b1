"""Profiles: links, traffic and scenarios as data files (`profiles/*/*.toml`), validated.

Classes: `LinkProfile`, `TrafficProfile`, `ScenarioProfile` and their parts. Functions: `load_link`,
`load_traffic`, `load_scenario`, `read_tables`, `profile_names`, `access_networks`. Exception: `ProfileError`.

A profile goes by its name in the folder `profiles`, or by the path of a file.
"""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from testbed.agent.validation import ConfigurationError, read_toml, validation_sentence
from testbed.emulation.link import LinkParameters
from testbed.experiment.trace import Trace, TraceError, read_trace
from topologies.multihome import AccessNetwork

FOLDER = Path(__file__).resolve().parents[2] / "profiles"

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Number = Annotated[int, Meta(ge=1, le=8)]
Name = Annotated[str, Meta(pattern="^[a-z][a-z0-9-]{0,30}$")]
Seconds = Annotated[float, Meta(ge=0, le=3600)]

Tables = TypeVar("Tables")


class ProfileError(Exception):
    """A profile cannot be used; the text is one sentence that names file and key."""


class _Table(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    pass


class LinkDirection(_Table, kw_only=True):
    """What a link does to packets; units are in the names, as in `LinkParameters`."""

    bandwidth_mbit: Positive
    delay_ms: NotNegative
    jitter_ms: NotNegative = 0.0
    loss_percent: Percent = 0.0
    queue_packets: Annotated[int, Meta(ge=1)] = 100

    def parameters(self, seed: int | None = None) -> LinkParameters:
        return LinkParameters(
            self.bandwidth_mbit, self.delay_ms, self.jitter_ms, self.loss_percent, self.queue_packets, seed
        )


class LinkProfile(LinkDirection, kw_only=True):
    """An access link; the figures are those of the direction to the mobile node, and of the other one unless
    `uplink` says otherwise. `interface` names it in the network. `trace`: a recording of rate and loss,
    played again and again while traffic runs; a path relative to this file."""

    summary: str
    source: str = ""
    interface: Annotated[str, Meta(pattern="^[a-z][a-z0-9]{0,6}$")]
    uplink: LinkDirection | None = None
    trace: str | None = None

    def recording(self, folder: Path) -> Trace | None:
        """The trace, if there is one. Raises TraceError."""
        return read_trace(folder / self.trace) if self.trace else None


class FlowProfile(_Table, kw_only=True):
    """One flow. kind "udp": `per_second` packets of `size` octets; "interactive": as many records each way;
    "web": pages of `page_size` octets; "bulk": TCP at `rate_bps`, 0 for as fast as it goes. `network`: that
    of the user's choice for this application."""

    name: Name
    kind: Literal["udp", "interactive", "web", "bulk"]
    port: Port
    network: Number
    per_second: Positive = 50.0
    size: Annotated[int, Meta(ge=24, le=1400)] = 172
    page_size: Annotated[int, Meta(ge=24)] = 60_000
    rate_bps: Annotated[int, Meta(ge=0)] = 0
    real_time: bool = False

    @property
    def protocol(self) -> str:
        return "udp" if self.kind == "udp" else "tcp"

    @property
    def offered_bps(self) -> float | None:
        """What its application offers, bit/s of payload; None: as much as TCP gets."""
        if self.kind == "bulk":
            return float(self.rate_bps) or None
        return 8 * self.per_second * (self.page_size if self.kind == "web" else self.size)


class TrafficProfile(_Table, kw_only=True):
    """Flows that run side by side; names and ports are unique."""

    summary: str
    flow: Annotated[list[FlowProfile], Meta(min_length=1)]


class Goal(_Table, kw_only=True):
    """What every flow is to get while things happen, for a ✓ in the matrix."""

    interruption_ms: Positive
    lost_percent: Percent = 100.0


class Step(_Table, kw_only=True):
    """Something that happens to access network `network`, and how long it is watched, in seconds.

    "announce": its loss is announced, as a link layer can; "link-down", "link-up"; "change": other figures,
    those left out stay; "restore": its own figures again; "move": to the access router of network `to` (its
    own: a new point of attachment in the same network).
    """

    event: Literal["announce", "link-down", "link-up", "change", "restore", "move"]
    network: Number = 1
    seconds: Seconds
    to: Number | None = None
    bandwidth_mbit: Positive | None = None
    delay_ms: NotNegative | None = None
    jitter_ms: NotNegative | None = None
    loss_percent: Percent | None = None

    def changes(self) -> dict[str, float]:
        """The fields of the link that change."""
        names = ("bandwidth_mbit", "delay_ms", "jitter_ms", "loss_percent")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class ScenarioProfile(_Table, kw_only=True):
    """What happens: `baseline_s` seconds of nothing, then the steps, under the traffic of that name."""

    summary: str
    traffic: str
    baseline_s: Annotated[float, Meta(ge=1, le=3600)] = 3.0
    goal: Goal
    step: Annotated[list[Step], Meta(min_length=1)]


def load_link(name: str) -> LinkProfile:
    """The link profile of that name. Raises ProfileError."""
    path = _find("links", name)
    profile = read_tables(path, LinkProfile)
    try:
        profile.parameters()
        if profile.uplink:
            profile.uplink.parameters()
        profile.recording(path.parent)
    except (ValueError, TraceError) as error:
        raise ProfileError(f"{path}: {error}.") from error
    return profile


def link_trace(name: str) -> Trace | None:
    """The recording of a link profile, if it has one. Raises ProfileError."""
    path = _find("links", name)
    try:
        return read_tables(path, LinkProfile).recording(path.parent)
    except TraceError as error:
        raise ProfileError(f"{path}: {error}.") from error


def load_traffic(name: str) -> TrafficProfile:
    """The traffic profile of that name. Raises ProfileError."""
    path = _find("traffic", name)
    profile = read_tables(path, TrafficProfile)
    for key in ("name", "port"):
        values = [getattr(flow, key) for flow in profile.flow]
        for index, value in enumerate(values):
            if value in values[:index]:
                raise ProfileError(f"{path}: flow[{index}].{key}: {value!r} is used already.")
    return profile


def load_scenario(name: str) -> ScenarioProfile:
    """The scenario of that name. Raises ProfileError."""
    path = _find("scenarios", name)
    profile = read_tables(path, ScenarioProfile)
    for index, step in enumerate(profile.step):
        if (step.event == "move") != (step.to is not None):
            raise ProfileError(f"{path}: step[{index}].to: goes with the event move, and only with that one.")
        if (step.event == "change") != bool(step.changes()):
            raise ProfileError(
                f"{path}: step[{index}]: the event change, and only that one, takes bandwidth_mbit, "
                "delay_ms, jitter_ms or loss_percent."
            )
    load_traffic(profile.traffic)
    return profile


def profile_names(kind: str) -> list[str]:
    """The profiles of a kind: "links", "traffic" or "scenarios"."""
    return sorted(path.stem for path in (FOLDER / kind).glob("*.toml"))


def access_networks(profiles: Sequence[LinkProfile]) -> list[AccessNetwork]:
    """Access networks with these links; the second of a kind is called `wlan2`."""
    made: list[AccessNetwork] = []
    for profile in profiles:
        taken = sum(re.sub(r"\d$", "", one.name) == profile.interface for one in made)
        name = profile.interface + (str(taken + 1) if taken else "")
        made.append(
            AccessNetwork(
                name,
                profile.bandwidth_mbit,
                profile.delay_ms,
                profile.jitter_ms,
                profile.loss_percent,
                profile.queue_packets,
            )
        )
    return made


def _find(kind: str, name: str) -> Path:
    if name.endswith(".toml"):
        return Path(name)
    path = FOLDER / kind / f"{name}.toml"
    if not path.is_file():
        known = profile_names(kind)
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}."
        word = {"links": "link profile", "traffic": "traffic profile", "scenarios": "scenario"}[kind]
        raise ProfileError(f"there is no {word} {name!r}: {hint} A file of your own goes by its path.")
    return path


def read_tables(path: str | Path, kind: type[Tables]) -> Tables:
    """The file as `kind`. Raises ProfileError, one sentence that names file and key."""
    try:
        tables = read_toml(path)
        return msgspec.convert(tables, kind)
    except ConfigurationError as error:
        raise ProfileError(f"{error}.") from error
    except msgspec.ValidationError as error:
        words = validation_sentence(error, tables, kind).rstrip("?")
        raise ProfileError(f"{path}: {words}.") from error
