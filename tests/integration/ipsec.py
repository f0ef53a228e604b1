"""IPsec of tests' own making: keys, agents that have them, and ESP packets octet by octet.

Functions: `needed`, `tables`, `home_agent`, `mobile_node`, `registered`, `state`, `statistics`, `decrypted`,
`esp`, `protected`, `with_home_address`. Class: `Wire`.

What is computed here is computed apart from the kernel. ESP is made without encryption.
"""

import hashlib
import hmac
import struct
import subprocess
from ipaddress import IPv6Address

import pytest
from agent_network import HOME, HOME_ADDRESS, HOME_AGENT, MOBILE_NODE, Agent
from datapath_network import Capture, ipv6
from scapy.utils import PcapWriter
from signalling import checksummed

from testbed.datapath.protection import why_not

#: Name, SPI, authentication key, encryption key.
TO_HOME_AGENT = "to_home_agent", 0x1001, "11" * 32, "33" * 16
TO_MOBILE_NODE = "to_mobile_node", 0x1002, "22" * 32, "44" * 16
TUNNEL_TO_HOME_AGENT = "tunnel_to_home_agent", 0x1003, "55" * 32, "77" * 16
TUNNEL_TO_MOBILE_NODE = "tunnel_to_mobile_node", 0x1004, "66" * 32, "88" * 16
TRANSPORT = TO_HOME_AGENT, TO_MOBILE_NODE
TUNNEL = TUNNEL_TO_HOME_AGENT, TUNNEL_TO_MOBILE_NODE
OTHER_HOME = str(IPv6Address(HOME_ADDRESS) + 1)
_DESTINATION_OPTIONS, _ESP, _MOBILITY_HEADER, _ROUTING = 60, 50, 135, 43
_LINKTYPE_IPV6 = 229
_FIELDS = "mip6.mhtype", "mip6.bi.coa_ipv6", "mip6.acoa.acoa", "esp.icv_bad", "esp.icv_good"


def needed() -> None:
    """Skip the test where this kernel cannot protect signalling."""
    missing = why_not()
    if missing is not None:
        pytest.skip(missing)


def tables(encrypted: bool = True, other: int = 0, tunnel: bool = False) -> str:
    """What stands in a table [ipsec] or [[ipsec]]; with `other` SPIs."""
    lines = []
    for name, spi, key, encryption in (*TRANSPORT, *(TUNNEL if tunnel else ())):
        more = f', encryption_key = "{encryption}"' if encrypted else ""
        lines.append(f'{name} = {{ spi = {spi + other}, key = "{key}"{more} }}')
    return "\n".join(lines) + "\n"


def home_agent(network, folder, encrypted=True, tunnel=False, more="", **others):
    """That of the network, which has associations for two home addresses."""
    table = "".join(
        f'[[ipsec]]\nhome_address = "{home}"\n{tables(encrypted, other, tunnel)}'
        for home, other in ((HOME_ADDRESS, 0), (OTHER_HOME, 0x100))
    )
    return Agent(network.ha, folder, table + more, text=without_keys(HOME), **others)


def mobile_node(network, folder, encrypted=True, tunnel=False, more=""):
    table = f"[ipsec]\n{tables(encrypted, tunnel=tunnel)}{more}"
    return Agent(network.mn, folder, table, text=without_keys(MOBILE_NODE))


def without_keys(text):
    return "".join(line for line in text.splitlines(True) if not line.startswith("security"))


def state(*agents):
    """What the agents have, but for what time alone changes."""
    bindings = [agent.ask("bindings") for agent in agents]
    for binding in (binding for each in bindings for binding in each):
        binding.pop("remaining_s")
    return bindings, [agent.ask("flows") for agent in agents]


def statistics(node):
    """The kernel's counters of what IPsec has dropped."""
    lines = node.shell("cat /proc/thread-self/net/xfrm_stat").splitlines()
    return {name: int(value) for name, value in map(str.split, lines)}


class Wire:
    """What passes the access router: messages between mobile node and home agent, in the order of arrival."""

    def __init__(self, network):
        self.captures = [Capture(network.ar, name) for name in ("wlan", "cellular", "core")]

    def packets(self):
        found = [data for capture in self.captures for data in capture.packets()]
        return [data for data in found if data[6] in (_ROUTING, _DESTINATION_OPTIONS, _ESP, _MOBILITY_HEADER)]

    def close(self):
        for capture in self.captures:
            capture.close()


def decrypted(packets, path, fields=_FIELDS):
    """What tshark finds in the packets: for each, these fields."""
    with PcapWriter(str(path), linktype=_LINKTYPE_IPV6) as file:
        for packet in packets:
            file.write(packet)
    associations = []
    for _, spi, key, encryption in (*TRANSPORT, *TUNNEL):
        algorithms = f'"AES-CBC [RFC3602]","0x{encryption}","HMAC-SHA-256-128 [RFC4868]","0x{key}"'
        associations += ["-o", f'uat:esp_sa:"IPv6","*","*","{spi:#010x}",{algorithms}']
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=|", "-E", "occurrence=a"]
        + ["-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"]
        + associations + [part for field in fields for part in ("-e", field)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return [line.split("|") for line in done.stdout.splitlines()]


def esp(association: tuple, sequence: int, payload: bytes, following: int, key: str | None = None) -> bytes:
    """An ESP header around `payload`, which the protocol `following` is of; `key`: another one than the
    association's."""
    _, spi, right, _ = association
    padding = bytes(range(1, 1 + (-2 - len(payload)) % 4))
    data = struct.pack("!II", spi, sequence) + payload + padding + bytes((len(padding), following))
    return data + hmac.new(bytes.fromhex(key or right), data, hashlib.sha256).digest()[:16]


def protected(
    header: bytes,
    care_of_address: str,
    sequence: int,
    home_address: str = HOME_ADDRESS,
    key: str | None = None,
) -> bytes:
    """A whole packet from the mobile node to the home agent around a Mobility Header."""
    message = checksummed(header, home_address, HOME_AGENT)
    data = esp(TO_HOME_AGENT, sequence, message, _MOBILITY_HEADER, key)
    return with_home_address(data, care_of_address, home_address)


def with_home_address(data: bytes, care_of_address: str, home_address: str) -> bytes:
    """A whole packet to the home agent: Home Address option, then ESP."""
    options = bytes((_ESP, 2, 1, 2, 0, 0, 0xC9, 16)) + IPv6Address(home_address).packed
    return ipv6(care_of_address, HOME_AGENT, _DESTINATION_OPTIONS, options + data)
