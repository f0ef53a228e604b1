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


def answered(node, destination, *options, count=3, patience_s=10):
    """Whether each of `count` pings of a node is answered, within `patience_s` seconds; the first that is not
    is the last. `options` of ping.

    One at a time: of several, ping waits for the last one no longer than two round trips, or the interval.
    """
    ping = f"ping -6 -c1 -W{patience_s} {' '.join(options)} {destination} >/dev/null"
    script = f"for number in $(seq {count}); do {ping} || exit 0; done; echo answered"
    return node.execute("sh", "-c", script) == "answered\n"


def events(network, node, name, since=0.0):
    """What a node has recorded under this name since the test began (`network.test_began`), or later."""
    since = max(since, network.test_began)
    recorded = read_events([network.log_directory / "events.jsonl"])
    return [e for e in recorded if e["node"] == node and e["event"] == name and e["t"] > since]
