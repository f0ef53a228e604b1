"""The commands that a control socket takes, each a class with its arguments.

Type: `Request`. Function: `parse_request`. Exception: `RequestError`.
"""

from ipaddress import IPv6Address, IPv6Network
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from testbed.agent.configuration import ActionName, Flow, FlowPriority, Number16, SelectorKeys, Table
from testbed.agent.validation import decode_address, validation_sentence

#: How long a change of flow bindings may wait for the home agent, by default.
ANSWER_TIMEOUT_S = 5.0
Timeout = Annotated[float, Meta(gt=0, le=3600)]


class RequestError(Exception):
    """A command cannot be carried out; the text is one sentence for the one who gave it."""


class Status(Table, tag_field="command", tag="status"):
    """What this agent is and how it stands."""


class Bindings(Table, tag_field="command", tag="bindings"):
    """The bindings, one BID each."""


class Cache(Table, tag_field="command", tag="cache"):
    """The binding cache: who is registered here, each binding with its flow bindings."""


class Flows(Table, tag_field="command", tag="flows"):
    """The flow bindings."""


class Counters(Table, tag_field="command", tag="counters"):
    """Packets and octets of each flow binding, and messages sent, received and dropped."""


class Events(Table, tag_field="command", tag="events"):
    """The `last` events; with `follow`, what happens from then on as well, one line each."""

    last: Annotated[int, Meta(ge=0)] = 1000
    follow: bool = False


class FeedRequest(Table, tag_field="command", tag="feed"):
    """The forwarding state, and its changes as they happen (see `testbed.mobility.feed`)."""


class FlowAdd(Flow, tag_field="command", tag="flow-add"):
    """Bind a new flow, and wait until the home agent has answered."""

    timeout_s: Timeout = ANSWER_TIMEOUT_S


class FlowReplace(SelectorKeys, tag_field="command", tag="flow-replace"):
    """Change a flow binding; what is left out stays. Selector keys replace the whole selector."""

    fid: Number16
    bids: list[int | str] | None = None
    priority: FlowPriority | None = None
    action: ActionName | None = None
    timeout_s: Timeout = ANSWER_TIMEOUT_S


class FlowRemove(Table, tag_field="command", tag="flow-remove"):
    """Remove a flow binding."""

    fid: Number16
    timeout_s: Timeout = ANSWER_TIMEOUT_S


class HomePrefix(Table, tag_field="command", tag="home-prefix"):
    """Give a prefix of the home link new lifetimes, in seconds (None: no end); the prefixes there are."""

    prefix: IPv6Network
    valid_s: Annotated[float, Meta(ge=0)] | None = None
    preferred_s: Annotated[float, Meta(ge=0)] | None = None


class Deregister(Table, tag_field="command", tag="deregister"):
    """Remove all bindings of the mobile node; its agent goes on without."""

    timeout_s: Timeout = ANSWER_TIMEOUT_S


class Prefer(Table, tag_field="command", tag="prefer"):
    """Without multiple care-of addresses: use that of this interface while it has one; None: by priority."""

    interface: str | None = None


class Optimise(Table, tag_field="command", tag="optimise"):
    """Optimise the route to a correspondent node, and wait until it has agreed; `stop`: no longer."""

    address: IPv6Address
    stop: bool = False
    timeout_s: Timeout = ANSWER_TIMEOUT_S


class Routes(Table, tag_field="command", tag="routes"):
    """The correspondent nodes to which the route is, or is to be, optimised."""


Request: TypeAlias = (
    Status
    | Bindings
    | Flows
    | Counters
    | Events
    | FeedRequest
    | FlowAdd
    | FlowReplace
    | FlowRemove
    | Deregister
    | HomePrefix
    | Prefer
    | Optimise
    | Routes
    | Cache
)
_COMMANDS = [kind.__struct_config__.tag for kind in Request.__args__]


def parse_request(line: bytes) -> Request:
    """The command in one line of JSON. Raises RequestError."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"expected one JSON object a line: {error}") from None
    if not isinstance(value, dict) or "command" not in value:
        raise RequestError('expected a JSON object with the key "command"')
    if value["command"] not in _COMMANDS:
        raise RequestError(f"there is no command {value['command']!r}; known are {', '.join(_COMMANDS)}")
    try:
        return msgspec.convert(value, Request, dec_hook=decode_address)
    except msgspec.ValidationError as error:
        raise RequestError(validation_sentence(error, value, Request)) from None
