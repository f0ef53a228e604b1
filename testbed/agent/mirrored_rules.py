"""`flowbind rules`: flow bindings beside the switch rules that mirror them, with the counters of both.

Functions: `add_rules_command`, `find_controller`, `join`. The controller is found by --controller,
$FLOWBIND_CONTROLLER_SOCKET, or as the only one with a control socket in /run/flowbind.
"""

import argparse
import glob
import json
import os
from collections.abc import Iterable
from typing import Any

from testbed.agent.control import SOCKET_FOLDER, Client, ControlError
from testbed.agent.presentation import table

SOCKET_VARIABLE = "FLOWBIND_CONTROLLER_SOCKET"
#: How control sockets of controllers end; those of agents end in ".sock".
SUFFIX = ".control"


def add_rules_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to a parser's commands."""
    words = "the flow bindings, and the switch rules that mirror them"
    parser = commands.add_parser("rules", help=words, description=words + ".", parents=[common])
    parser.add_argument("--controller", metavar="PATH", help="the controller's control socket")
    parser.add_argument("-v", "--verbose", action="store_true", help="each rule with its match and actions")
    parser.set_defaults(run=_rules)


def find_controller(path: str | None = None) -> str:
    """The control socket of the controller. Raises ControlError if there is none, or a choice."""
    path = path or os.environ.get(SOCKET_VARIABLE)
    if path:
        return path
    found = sorted(glob.glob(f"{SOCKET_FOLDER}/*{SUFFIX}"))
    if len(found) != 1:
        what = f"several controllers run here: {', '.join(found)}" if found else "no controller runs here"
        raise ControlError(f"{what}; choose one with --controller or ${SOCKET_VARIABLE}")
    return found[0]


def join(
    flows: Iterable[dict[str, Any]], counters: Iterable[dict[str, Any]], homes: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """One dictionary a flow binding: what the agent says of it, and what the controller says.

    `flows` and `counters` are the agent's, `homes` is the controller's answer to `rules`.
    """
    counted = {(item["home_address"], item["fid"]): item for item in counters}
    mirrored = {(home["home_address"], flow["fid"]): flow for home in homes for flow in home["flows"]}
    joined = []
    for flow in flows:
        key = flow["home_address"], flow["fid"]
        counter = counted.get(key, {"packets": 0, "octets": 0})
        there = mirrored.get(key)
        unknown = {"mirrored": False, "reason": "the controller does not know it", "rules": []}
        mirror = there or {**unknown, "packets": 0, "octets": 0}
        joined.append(
            {
                **{name: flow[name] for name in ("home_address", "fid", "priority", "action", "bids")},
                "description": flow["description"],
                "mirrored": mirror["mirrored"],
                "reason": mirror["reason"],
                "agent": {"packets": counter["packets"], "octets": counter["octets"]},
                "switches": {"packets": mirror["packets"], "octets": mirror["octets"]},
                "rules": mirror["rules"],
            }
        )
    return joined


def _rules(client: Client, options: argparse.Namespace) -> None:
    with Client(find_controller(options.controller)) as controller:
        homes = controller.request("rules")
    flows = join(client.request("flows"), client.request("counters")["flows"], homes)
    if options.json:
        print(json.dumps(flows, indent=2))
        return
    titles = (
        "home address",
        "FID",
        "priority",
        "action",
        "packets",
        "by",
        "agent's",
        "switches'",
        "rules",
        "",
    )
    rows = [
        [
            flow["home_address"],
            flow["fid"],
            flow["priority"],
            flow["action"],
            flow["description"],
            "switches" if flow["mirrored"] else "home agent",
            flow["agent"]["packets"],
            flow["switches"]["packets"],
            len(flow["rules"]),
            flow["reason"] or "",
        ]
        for flow in flows
    ]
    print(*table(titles, rows), sep="\n")
    if options.verbose:
        titles = ("FID", "switch", "priority", "packets", "match", "actions")
        keys = ("switch", "priority", "packets", "match", "actions")
        rules = [[flow["fid"], *(rule[key] for key in keys)] for flow in flows for rule in flow["rules"]]
        print()
        print(*table(titles, rows=rules), sep="\n")
