"""The interface of strategies. Classes: `Strategy`, and what it is given and answers: `Flow`, `Link`,
`Event`, `Binding`; `Carrier`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow as its application describes it.

    rate_bps: what it sends, bit/s; None: as much as TCP gets. real_time: late packets are worth nothing.
    network: the number (from 1) of the access network that suits this application, by the user's choice.
    """

    name: str
    protocol: str
    port: int
    rate_bps: float | None
    real_time: bool
    network: int


@dataclass(frozen=True, slots=True)
class Link:
    """An access network as the mobile node sees it.

    number: from 1, also the BID of its care-of address; the first is the preferred one. bandwidth_mbit:
    nominal. up: it has a care-of address. leaving: its loss has been announced (a link layer's trigger).
    round_trip_ms and loss (0 to 1): measured to the home agent; None unless the strategy asks for
    measurements.
    """

    number: int
    name: str
    bandwidth_mbit: float
    up: bool = True
    leaving: bool = False
    round_trip_ms: float | None = None
    loss: float | None = None

    @property
    def usable(self) -> bool:
        """Whether it can carry flows, now and in the near future."""
        return self.up and not self.leaving


@dataclass(frozen=True, slots=True)
class Event:
    """Why the strategy is asked, and when (s). name: "start", "announced", "link-down", "link-up" (`link` is
    the number), or "tick", which comes about five times a second."""

    name: str
    at_s: float
    link: int | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """The access networks (numbers) that carry a flow: one; several for n-cast; none to discard it."""

    networks: tuple[int, ...]


class Carrier(Enum):
    """How packets get to the mobile node: what has to be set up for a strategy."""

    HOME_AGENT = "tunnels from the home agent, one a care-of address"
    ONE_CARE_OF_ADDRESS = "a tunnel from the home agent to the only care-of address"
    PLAIN = "plain routing to one care-of address, without Mobile IPv6"
    SPRAYED = "tunnels from the home agent, packets of a flow in turns over all of them"
    MULTIPATH_TCP = "the kernel's Multipath TCP between care-of addresses, without Mobile IPv6"
    CORRESPONDENT = "the correspondent node sends to the care-of addresses"
    ANCHOR_POINT = "tunnels from an anchor point near the access networks"
    SWITCHES = "switches that steer by themselves"


class Strategy:
    """Answers which flow takes which access network. Subclass it, give it a `name`, write `decide`.

    One object lives as long as one run, so it may remember things. `carrier`: what it runs on. `protocols`:
    the flows that it can carry. `measures`: whether links' round trips and losses are to be measured for it.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    carrier: ClassVar[Carrier] = Carrier.HOME_AGENT
    protocols: ClassVar[frozenset[str]] = frozenset({"tcp", "udp"})
    measures: ClassVar[bool] = False

    def missing(self) -> str | None:
        """What this machine, or the testbed, lacks for it: a sentence; None if nothing."""
        return None

    def decide(self, flows: Sequence[Flow], links: Sequence[Link], event: Event) -> Mapping[str, Binding]:
        """The binding of each flow by its name; a flow left out takes the default path, the first network.

        Asked at each event; only differences to the answer before become messages. When a link is lost
        without a word, flows follow by their BID, which the mobile node binds to another care-of address by
        itself: a strategy has to answer nothing new.
        """
        raise NotImplementedError


def by_number(links: Sequence[Link]) -> dict[int, Link]:
    """The links by their numbers."""
    return {link.number: link for link in links}


def refuge(links: Sequence[Link], leaving: int) -> int:
    """Where flows of a link that is being left go: the usable link of most bandwidth, or where they are."""
    others = [link for link in links if link.usable and link.number != leaving]
    return max(others, key=lambda link: link.bandwidth_mbit).number if others else leaving
