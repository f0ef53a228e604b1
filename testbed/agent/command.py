"""The `flowbind` command: what a person says to an agent.

Functions: `main`. It needs neither root (beyond access to the socket) nor the rest of the testbed.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from testbed.agent.control import Client, ControlError, Refused
from testbed.agent.mirrored_rules import add_rules_command
from testbed.agent.presentation import event_line, in_words, table

_SELECTOR_OPTIONS = {
    "source_address": "address, prefix or range of the correspondent node",
    "destination_address": "address, prefix or range of the mobile node",
    "source_port": "port or range of the correspondent node, e.g. 22 or 5000-5999",
    "destination_port": "port or range of the mobile node",
    "next_header": "tcp, udp, icmpv6, ... or a number or range",
    "traffic_class": "number or range",
    "flow_label": "number or range",
    "spi": "number or range",
    "protocol": "of IPv4: tcp, udp, ... or a number or range",
    "dscp": "of IPv4: number or range",
}

EXAMPLES = """\
examples:
  flowbind bindings                     which care-of addresses are registered
  flowbind flow add 3 --to wlan --next-header tcp --source-port 22 --priority 10
                                        ssh by way of the interface "wlan"
  flowbind flow replace 3 --to cellular
                                        move it to another path
  flowbind flow add 5 --action n-cast --to wlan,cellular --next-header udp --source-port 5004
                                        every packet on both paths
  flowbind flow add 7 --action discard --source-address 2001:db8:bad::/48
  flowbind flow remove 3
  flowbind events -f                    watch what happens
  flowbind counters --json              for programs

Selectors describe packets on their way from the correspondent node to the mobile node (RFC 6088): the
source port of an ssh session is 22. The other direction takes the same path.
The agent is found by --socket, $FLOWBIND_SOCKET, or as the only one in /run/flowbind."""

FLOW_EXAMPLES = """\
FID is a number that you choose; of overlapping flow bindings, the one with the lowest priority number wins.
With no selector option a flow binding is for everything. --to takes BIDs or interface names."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 (done), 1 (the agent refuses) or 2 (wrong usage, no agent)."""
    options = _parser().parse_args(arguments)
    try:
        with Client(options.socket, timeout_s=options.timeout + 5) as client:
            options.run(client, options)
            sys.stdout.flush()
    except Refused as error:
        print(f"flowbind: {error}", file=sys.stderr)
        return 1
    except ControlError as error:
        print(f"flowbind: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read us has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


class _Parser(argparse.ArgumentParser):
    """Errors are one sentence and the way to more; exit status 2."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message} (--help explains it)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="flowbind",
        description="Look at and change the flow bindings of a mobile node, look at those of a home agent.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[_common(socket=None, json=False, timeout=5.0)],
    )
    common = _common(socket=argparse.SUPPRESS, json=argparse.SUPPRESS, timeout=argparse.SUPPRESS)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, run, words in (
        ("status", _status, "what this agent is, and how it stands"),
        ("bindings", _bindings, "the bindings: BIDs, care-of addresses, lifetimes"),
        ("cache", _cache, "the binding cache: the mobile nodes that are registered with this node"),
        ("flows", _flows, "the flow bindings, in the order in which they are tried"),
        ("counters", _counters, "packets and octets of each flow binding, messages sent and received"),
        ("deregister", _deregister, "remove all bindings of the mobile node"),
    ):
        commands.add_parser(name, help=words, description=words, parents=[common]).set_defaults(run=run)
    add_rules_command(commands, common)
    _add_flow_commands(commands, common)
    _add_route_commands(commands, common)
    _add_prefix_command(commands, common)
    _add_prefer_command(commands, common)
    words = "what has happened"
    events = commands.add_parser("events", help=words, description=words, parents=[common])
    events.add_argument("-f", "--follow", action="store_true", help="and what happens, until Ctrl-C")
    events.add_argument("-n", "--last", type=_whole, metavar="N", default=20, help="only the last N (20)")
    events.set_defaults(run=_events)
    return parser


def _common(**defaults: Any) -> argparse.ArgumentParser:
    """The options that may stand before and after the command."""
    common = argparse.ArgumentParser(add_help=False)
    words = "the agent's control socket"
    common.add_argument("--socket", metavar="PATH", default=defaults["socket"], help=words)
    common.add_argument("--json", action="store_true", default=defaults["json"], help="print JSON")
    words = "how long to wait for the home agent's answer, in seconds (5)"
    common.add_argument("--timeout", type=_seconds, metavar="S", default=defaults["timeout"], help=words)
    return common


def _add_flow_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    words = "add, replace or remove a flow binding"
    flow = commands.add_parser("flow", help=words, description=words).add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    for name, words in (
        ("add", "bind a new flow"),
        ("replace", "change a flow binding; what is not given stays"),
        ("remove", "remove a flow binding: its packets take the next that matches, or the default path"),
    ):
        epilog = FLOW_EXAMPLES if name == "add" else None
        parser = flow.add_parser(name, help=words, description=words, epilog=epilog, parents=[common])
        parser.add_argument("fid", type=_whole, metavar="FID", help="flow identifier, 1 to 65535")
        parser.set_defaults(run=_flow, operation=name)
        if name == "remove":
            continue
        parser.add_argument("--to", metavar="BID[,BID...]", help="BIDs or interface names")
        parser.add_argument("--priority", type=_whole, metavar="N", help="0 to 255, the lowest wins (10)")
        parser.add_argument("--action", metavar="ACTION", help="forward (default), discard or n-cast")
        selector = parser.add_argument_group("selector", "packets from the correspondent to the mobile node")
        for key, meaning in _SELECTOR_OPTIONS.items():
            selector.add_argument(f"--{key.replace('_', '-')}", dest=key, metavar="X", help=meaning)


def _add_route_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    words = "exchange packets with a correspondent node directly, not through the home agent"
    parser = commands.add_parser("optimise", help=words, description=words, parents=[common])
    parser.add_argument("address", metavar="ADDRESS", help="of a node that runs a correspondent node's agent")
    parser.add_argument("--stop", action="store_true", help="go through the home agent again")
    parser.set_defaults(run=_optimise)
    words = "the correspondent nodes to which the route is optimised"
    commands.add_parser("routes", help=words, description=words, parents=[common]).set_defaults(run=_routes)


def _add_prefer_command(commands: Any, common: argparse.ArgumentParser) -> None:
    words = "without multiple care-of addresses: use that of this interface while it has one"
    parser = commands.add_parser("prefer", help=words, description=words, parents=[common])
    parser.add_argument("interface", metavar="INTERFACE", nargs="?", help="none: by priority again")
    parser.set_defaults(run=_prefer)


def _add_prefix_command(commands: Any, common: argparse.ArgumentParser) -> None:
    words = "give a prefix of the home link new lifetimes, at a home agent; mobile nodes are told in time"
    parser = commands.add_parser("home-prefix", help=words, description=words, parents=[common])
    parser.add_argument("prefix", metavar="PREFIX", help="such as 2001:db8:100::/64; a new one is added")
    parser.add_argument("--valid", type=float, metavar="S", help="seconds; without end if not given")
    parser.add_argument("--preferred", type=float, metavar="S", help="seconds; without end if not given")
    parser.set_defaults(run=_home_prefix)


def _home_prefix(client: Client, options: argparse.Namespace) -> None:
    lifetimes = {"valid_s": options.valid, "preferred_s": options.preferred}
    prefixes = client.request("home-prefix", prefix=options.prefix, **lifetimes)
    if options.json:
        return _print_json(prefixes)
    rows = [(each["prefix"], each["valid_s"], each["preferred_s"]) for each in prefixes]
    print("\n".join(table(("home prefix", "valid (s)", "preferred (s)"), rows)))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0, up to 3600")
    return value


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _status(client: Client, options: argparse.Namespace) -> None:
    status = client.request("status")
    if options.json:
        return _print_json(status)
    interfaces = status.pop("interfaces", [])
    width = max(map(len, status)) + 2
    for key, value in status.items():
        print(f"{key.replace('_', ' '):{width}}{in_words(value)}")
    if interfaces:
        print()
        keys = ("name", "bid", "priority", "link", "care_of_address", "gateway")
        titles = ("interface", "BID", "priority", "link", "care-of address", "router")
        print(*table(titles, [[interface[key] for key in keys] for interface in interfaces]), sep="\n")


def _bindings(client: Client, options: argparse.Namespace) -> None:
    bindings = client.request("bindings")
    if options.json:
        return _print_json(bindings)
    rows = [
        [
            b["home_address"],
            b["bid"],
            b.get("interface"),
            b["registered"] if "registered" in b else b["care_of_address"],
            b["priority"],
            None if b["remaining_s"] is None else f"{b['remaining_s']:.0f} s",
            _binding_state(b),
        ]
        for b in bindings
    ]
    titles = ("home address", "BID", "interface", "care-of address", "priority", "expires in", "")
    print(*table(titles, rows), sep="\n")


def _binding_state(binding: dict[str, Any]) -> str:
    words = [
        "default" if binding["default"] else "",
        "on the home link" if binding["on_home_link"] else "",
        "" if binding["remaining_s"] is not None else "not registered",
    ]
    return ", ".join(word for word in words if word)


def _cache(client: Client, options: argparse.Namespace) -> None:
    cache = client.request("cache")
    if options.json:
        return _print_json(cache)
    rows = [
        [
            b["home_address"],
            b["bid"],
            b["care_of_address"],
            b["priority"],
            f"{b['remaining_s']:.0f} s",
            ", ".join(map(str, b["flows"])),
            "default" if b["default"] else "",
        ]
        for b in cache
    ]
    titles = ("home address", "BID", "care-of address", "priority", "expires in", "flows", "")
    print(*table(titles, rows), sep="\n")


def _flows(client: Client, options: argparse.Namespace) -> None:
    flows = client.request("flows")
    if options.json:
        return _print_json(flows)
    rows = [
        [f["home_address"], f["fid"], f["priority"], f["action"], _to(f), f["description"], f["state"]]
        for f in flows
    ]
    titles = ("home address", "FID", "priority", "action", "to", "packets", "state")
    print(*table(titles, rows), sep="\n")


def _to(flow: dict[str, Any]) -> str:
    if flow["action"] == "discard":
        return "nowhere"
    names = flow.get("interfaces") or [""] * len(flow["bids"])
    return ", ".join(
        f"{bid} ({name})" if name else str(bid) for bid, name in zip(flow["bids"], names, strict=True)
    )


def _counters(client: Client, options: argparse.Namespace) -> None:
    counters = client.request("counters")
    if options.json:
        return _print_json(counters)
    rows = [
        [c["home_address"], "default" if c["fid"] is None else c["fid"], c["packets"], c["octets"]]
        for c in counters["flows"]
    ]
    print(*table(("home address", "FID", "packets", "octets"), rows), sep="\n")
    print()
    packets = (f"{key.replace('_', ' ')} {value}" for key, value in counters["packets"].items())
    print("packets: " + ", ".join(packets))
    messages = (f"{key.replace('_', ' ')} {value}" for key, value in counters["messages"].items())
    print("messages: " + ", ".join(messages))


def _flow(client: Client, options: argparse.Namespace) -> None:
    arguments = {"fid": options.fid, "timeout_s": options.timeout}
    if options.operation != "remove":
        arguments |= {key: getattr(options, key) for key in ("priority", "action", *_SELECTOR_OPTIONS)}
        if options.to is not None:
            arguments["bids"] = [word.strip() for word in options.to.split(",")]
    flow = client.request(f"flow-{options.operation}", **arguments)
    if options.json:
        return _print_json(flow)
    if flow["state"] == "removed":
        print(f"flow binding {flow['fid']} removed")
    else:
        print(f"flow binding {flow['fid']}: {flow['action']} {flow['description']} to {_to(flow)}")


def _deregister(client: Client, options: argparse.Namespace) -> None:
    result = client.request("deregister", timeout_s=options.timeout)
    if options.json:
        return _print_json(result)
    print("all bindings removed")


def _events(client: Client, options: argparse.Namespace) -> None:
    events = client.events(options.last) if options.follow else client.request("events", last=options.last)
    for event in events:
        print(json.dumps(event) if options.json else event_line(event), flush=options.follow)


def _prefer(client: Client, options: argparse.Namespace) -> None:
    answer = client.request("prefer", interface=options.interface)
    if options.json:
        return _print_json(answer)
    print(f"{answer['preferred']} is preferred" if answer["preferred"] else "interfaces by their priority")


def _optimise(client: Client, options: argparse.Namespace) -> None:
    arguments = {"address": options.address, "stop": options.stop, "timeout_s": options.timeout}
    route = client.request("optimise", **arguments)
    if options.json:
        return _print_json(route)
    words = "goes straight" if route["optimised"] else "goes through the home agent"
    print(f"the route to {route['correspondent']} {words}")


def _routes(client: Client, options: argparse.Namespace) -> None:
    routes = client.request("routes")
    if options.json:
        return _print_json(routes)
    rows = [
        [
            route["correspondent"],
            binding["bid"],
            binding["registered"] or binding["care_of_address"],
            None if binding["remaining_s"] is None else f"{binding['remaining_s']:.0f} s",
            ", ".join(str(f["fid"]) for f in route["flows"] if binding["bid"] in f["bids"]),
            "" if binding["registered"] else "not registered",
        ]
        for route in routes
        for binding in route["bindings"]
    ]
    titles = ("correspondent", "BID", "care-of address", "expires in", "flows", "")
    print(*table(titles, rows), sep="\n")
