"""What tests in the network of topologies/hierarchical.py see of it. Functions: `settled`, `counted`,
`carried`."""

from topologies.hierarchical import REGIONS

HOME_ADDRESS, CORRESPONDENT = "2001:db8:100::100", "2001:db8:300::2"


def settled(network, anchor="map1", node="mn"):
    """The mobile node is registered with this anchor point and with the home agent; its care-of addresses."""
    mn, ha = network[node].agent, network["ha"].agent
    status, bindings = mn.ask("status"), mn.ask("bindings")
    if status.get("anchor_point") != str(REGIONS[anchor][1]) or not status["registered"]:
        return None
    if not all(b["registered"] == b["care_of_address"] is not None for b in bindings):
        return None
    if not all(flow["state"] == "registered" for flow in mn.ask("flows")):
        return None
    if [b["care_of_address"] for b in ha.ask("bindings")] != [status["regional_address"]]:
        return None
    return {b["bid"]: b["registered"] for b in bindings}


def counted(agent, address):
    return {c["fid"]: c["packets"] for c in agent.ask("counters")["flows"] if c["home_address"] == address}


_SERVE = """
import socket
with socket.create_server(("::", 7000), family=socket.AF_INET6) as server:
    print("listening", flush=True)
    connection, _ = server.accept()
    received = 0
    while data := connection.recv(65536):
        received += len(data)
    print(received)
"""
_SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], 7000), timeout=20) as connection:
    connection.sendall(bytes(4_000_000))
"""


def carried(network, sender, receiver):
    """How many octets arrive, in words, of 4 MB that one of "mn" and "cn" sends to the other by TCP."""
    destination = {"mn": HOME_ADDRESS, "cn": CORRESPONDENT}[receiver]
    server = network[receiver].popen(["python", "-c", _SERVE], text=True)
    assert server.stdout.readline() == "listening\n"
    network[sender].execute("python", "-c", _SEND, destination)
    return server.communicate(timeout=30)[0]
