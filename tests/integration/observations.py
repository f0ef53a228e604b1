"""What tests see of agents and of emulated networks. Functions: `registered`, `bound`, `answered`, `events`.

An agent is whatever has `ask`; a node and a network are those of the emulation.
"""

from testbed.measure.events import read_events


def registered(mn):
    """Whether all that a mobile node wants has been acknowledged: each BID's care-of address, each flow."""
    bindings, flows = mn.ask("bindings"), mn.ask("flows")
    return all(b["registered"] == b["care_of_address"] is not None for b in bindings) and all(
        flow["state"] == "registered" for flow in flows
    )


def bound(receiver):
    """The care-of address of each BID in a binding cache."""
    return {b["bid"]: b["care_of_address"] for b in receiver.ask("bindings")}


def answered(node, destination, *arguments):
    """Whether all of three pings of a node are answered; `arguments` of ping come last, and count."""
    command = f"ping -6 -c3 -i0.1 -W2 {' '.join(arguments)} {destination}"
    return " 0% packet loss" in node.execute("sh", "-c", f"{command} || true")


def events(network, node, name, since=0.0):
    """What a node has recorded under this name since the test began (`network.test_began`), or later."""
    since = max(since, network.test_began)
    recorded = read_events([network.log_directory / "events.jsonl"])
    return [e for e in recorded if e["node"] == node and e["event"] == name and e["t"] > since]
