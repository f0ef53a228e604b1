"""The configuration file of an agent: what is taken, and the sentence for what is not."""

from ipaddress import IPv6Address, IPv6Network

import pytest

from testbed.agent.configuration import (
    ConfigurationError,
    HomeAgentFile,
    MobileNodeFile,
    association,
    check,
    flow_binding,
    has_keys,
    load,
    mobile_network,
    policy,
    socket_path,
)
from testbed.agent.ipsec_tables import ipsec_keys, map_keys
from testbed.agent.security import readable_by_others
from testbed.datapath.xfrm import Esp
from testbed.mobility.authentication import SecurityAssociation
from testbed.mobility.binding import FlowBinding
from testbed.mobility.forwarding import Action
from testbed.wire.selector import IPv6TrafficSelector

KEY = bytes(range(16))
MOBILE_NODE = {
    "role": "mobile-node",
    "name": "mn",
    "home_address": "2001:db8:100::100",
    "home_agent": "2001:db8:100::1",
    "interface": [
        {"name": "mn-wlan", "bid": 1, "priority": 20},
        {"name": "mn-cellular", "bid": 2, "priority": 10},
    ],
    "security": {"spi": 1000, "key": KEY.hex()},
}
HOME_AGENT = {
    "role": "home-agent",
    "name": "ha",
    "address": "2001:db8:100::1",
    "home_interface": "home0",
    "home_prefixes": ["2001:db8:100::/64"],
    "security_association": [{"home_address": "2001:db8:100::100", "spi": 1000, "key": KEY.hex()}],
}


def test_a_mobile_node_needs_few_keys():
    file = check(MOBILE_NODE)
    assert isinstance(file, MobileNodeFile)
    assert file.home_address == IPv6Address("2001:db8:100::100")
    interfaces = [(interface.name, interface.bid, interface.priority) for interface in file.interface]
    assert interfaces == [("mn-wlan", 1, 20), ("mn-cellular", 2, 10)]
    assert (file.lifetime_s, file.flow, file.datapath.tunnel_backend) == (60, [], "auto")
    assert socket_path(file) == "/run/flowbind/mn.sock"


def test_every_role_has_a_dialect():
    anchor = {
        "role": "anchor-point",
        "name": "map1",
        "address": "2001:db8:500::1",
        "regional_interface": "region0",
        "regional_prefixes": ["2001:db8:500::/64"],
        "accept_unauthenticated": True,
    }
    for tables in (MOBILE_NODE, HOME_AGENT, anchor, {"role": "correspondent-node", "name": "cn"}):
        assert check(tables).dialect == "draft"
        assert check({**tables, "dialect": "rfc6089"}).dialect == "rfc6089"
        with pytest.raises(ConfigurationError, match=r"^dialect: .*rfc"):
            check({**tables, "dialect": "rfc4242"})


def test_a_mobile_router_and_its_home_agent():
    table = {"prefixes": ["2001:db8:1000::/64"], "interfaces": ["lan0"], "mode": "implicit"}
    file = check({**MOBILE_NODE, "mobile_network": table})
    prefixes = (IPv6Network("2001:db8:1000::/64"),)
    assert mobile_network(file) == {
        "prefixes": prefixes,
        "explicit_prefixes": False,
        "prefix_fall_back": False,
    }
    router = {"home_address": "2001:db8:100::100", "prefixes": ["2001:db8:1000::/64"]}
    file = check({**HOME_AGENT, "mobile_router": [router]})
    assert file.mobile_router[0].prefixes == list(prefixes)


def test_keys(tmp_path):
    file = check(MOBILE_NODE)
    assert association(file.security) == SecurityAssociation(1000, KEY)
    path = tmp_path / "key"
    path.write_text(f"{KEY.hex().upper()}\n")
    table = {"spi": 256, "key_file": str(path), "window_s": 10}
    file = check({**MOBILE_NODE, "security": table})
    assert association(file.security) == SecurityAssociation(256, KEY, 10)
    without = {key: value for key, value in MOBILE_NODE.items() if key != "security"}
    assert check({**without, "accept_unauthenticated": True}).security is None
    without = {key: value for key, value in HOME_AGENT.items() if key != "security_association"}
    assert check({**without, "accept_unauthenticated": True}).security_association == []
    assert readable_by_others([str(path), "/missing"]) == [str(path)]
    path.chmod(0o640)
    assert readable_by_others([str(path)]) == []


SECRET = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (None, "security: is missing; expected the home agent's key (or accept_unauthenticated = true"),
        ({"key": SECRET}, "security.spi: is missing"),
        ({"spi": 255, "key": SECRET}, "security.spi: expected at least 256, not 255"),
        ({"spi": 256}, "security.key: expected either this or key_file"),
        ({"spi": 256, "key": SECRET, "key_file": "x"}, "security.key: expected either this or key_file"),
        ({"spi": 256, "key": SECRET + "00"}, "security.key: expected 32 hexadecimal digits"),
        ({"spi": 256, "key": SECRET[:-1] + "x"}, "security.key: expected 32 hexadecimal digits"),
        ({"spi": 256, "key_file": "/missing"}, "security.key_file: /missing cannot be read: No such file"),
        ({"spi": 256, "key": SECRET, "window_s": 3}, "security.window_s: must be more than 3 seconds, not 3"),
    ],
)
def test_a_wrong_key_is_told_but_not_shown(table, sentence):
    tables = {key: value for key, value in MOBILE_NODE.items() if key != "security"}
    with pytest.raises(ConfigurationError) as error:
        check(tables | ({} if table is None else {"security": table}))
    assert str(error.value).startswith(sentence)
    assert SECRET[:-1] not in str(error.value)


def test_home_agents_keys_are_checked():
    (table,) = HOME_AGENT["security_association"]
    with pytest.raises(ConfigurationError, match=r"association\[1\].home_address: .* is used already"):
        check({**HOME_AGENT, "security_association": [table, table]})
    with pytest.raises(ConfigurationError, match=r"security_association\[0\].key: expected 32"):
        check({**HOME_AGENT, "security_association": [{**table, "key": "00"}]})
    with pytest.raises(ConfigurationError, match="security_association: is missing; expected a key for each"):
        check({**HOME_AGENT, "security_association": []})


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"mobile_network": {}}, "mobile_network.prefixes: is missing"),
        ({"mobile_network": {"prefixes": []}}, "mobile_network.prefixes: expected at least one"),
        (
            {"mobile_network": {"prefixes": ["2001:db8:100::/64"]}},
            "mobile_network.prefixes[0]: expected a prefix without the home agent, not 2001:db8:100::/64",
        ),
        (
            {"mobile_network": {"prefixes": ["2001:db8:9::/64"], "interfaces": ["mn-wlan"]}},
            "mobile_network.interfaces[0]: 'mn-wlan' is an interface to access networks",
        ),
    ],
)
def test_a_wrong_mobile_network(tables, sentence):
    with pytest.raises(ConfigurationError) as error:
        check({**MOBILE_NODE, **tables})
    assert str(error.value) == sentence


@pytest.mark.parametrize("more", [{"flow": [{"fid": 1, "bids": [1]}]}, {"hierarchical": True}])
def test_one_care_of_address_has_no_flow_bindings(more):
    file = check({**MOBILE_NODE, "multiple_care_of_addresses": False})
    assert not file.multiple_care_of_addresses and check(MOBILE_NODE).multiple_care_of_addresses
    (key,) = more
    with pytest.raises(ConfigurationError, match=f"^{key}: does not go with multiple_care_of_addresses"):
        check({**MOBILE_NODE, "multiple_care_of_addresses": False, **more})


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        ({"hierarchical": True, "accept_unauthenticated": True}, "hierarchical"),
        ({"mobile_network": {"prefixes": ["2001:db8:9::/64"]}}, "mobile_network"),
        ({"multiple_care_of_addresses": False}, "multiple_care_of_addresses = false"),
    ],
)
def test_what_simultaneous_attachment_does_not_go_with(tables, key):
    assert check({**MOBILE_NODE, "returning_home": "simultaneous"}).returning_home == "simultaneous"
    with pytest.raises(ConfigurationError) as error:
        check({**MOBILE_NODE, "returning_home": "simultaneous", **tables})
    assert str(error.value) == f'returning_home: "simultaneous" does not go with {key}'


def test_a_mobile_router_has_one_entry_in_the_prefix_table():
    router = {"home_address": "2001:db8:100::100", "prefixes": ["2001:db8:1000::/64"]}
    with pytest.raises(ConfigurationError, match=r"^mobile_router\[1\].home_address: '2001:db8:100::100' is"):
        check({**HOME_AGENT, "mobile_router": [router, router]})


def test_a_home_agent_and_its_policy():
    file = check({**HOME_AGENT, "policy": {"n_cast": False, "max_flows": 5}, "control": {"socket": "/tmp/x"}})
    assert isinstance(file, HomeAgentFile)
    assert file.home_prefixes == [IPv6Network("2001:db8:100::/64")]
    assert (policy(file).n_cast, policy(file).discard, policy(file).max_flows) == (False, True, 5)
    assert socket_path(file) == "/tmp/x"


@pytest.mark.requirement("RFC 5648 §5.1: the BID MUST be unique for a home address")
def test_bids_are_unique():
    with pytest.raises(ConfigurationError, match=r"interface\[1\].bid: 1 is used already"):
        check(changed(MOBILE_NODE, interface=[INTERFACE, {"name": "b", "bid": 1, "priority": 5}]))


@pytest.mark.requirement("draft §6.1.1: an n-cast names another care-of address than that of the message")
def test_an_n_cast_has_two_bids_at_least():
    with pytest.raises(ConfigurationError, match="expected at least two for n-cast"):
        check(changed(MOBILE_NODE, flow=[{"fid": 1, "bids": [1], "action": "n-cast"}]))


@pytest.mark.parametrize("bids", [[1], ["mn-wlan"], ["wlan"], ["1"]])
def test_a_flow_names_its_path_by_number_or_interface(bids):
    table = {"fid": 3, "bids": bids, "priority": 7, "source_port": 22, "next_header": "tcp"}
    file = check({**MOBILE_NODE, "flow": [table]})
    assert flow_binding(file.flow[0], file.interface) == FlowBinding(
        3, 7, Action.FORWARD, (1,), IPv6TrafficSelector(source_port=(22, 22), next_header=(6, 6))
    )


def test_a_flow_without_selector_is_for_everything():
    file = check({**MOBILE_NODE, "flow": [{"fid": 3, "bids": [1, 2], "action": "n-cast"}]})
    assert flow_binding(file.flow[0], file.interface) == FlowBinding(3, 10, Action.N_CAST, (1, 2), None)


def test_a_discarded_flow_belongs_to_the_preferred_binding():
    file = check({**MOBILE_NODE, "flow": [{"fid": 3, "action": "discard"}]})
    assert flow_binding(file.flow[0], file.interface).bids == (2,)


def changed(base, **keys):
    return {key: value for key, value in {**base, **keys}.items() if value is not None}


INTERFACE = MOBILE_NODE["interface"][0]


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        (
            {},
            'role: is missing; expected "mobile-node", "home-agent", "anchor-point" or "correspondent-node"',
        ),
        (
            changed(MOBILE_NODE, role="router"),
            "role: 'router' is not known; expected one of mobile-node, home-agent, anchor-point, "
            "correspondent-node",
        ),
        (changed(MOBILE_NODE, home_agent=None), "home_agent: is missing"),
        (
            changed(MOBILE_NODE, home_adress="::1"),
            "home_adress: is not a known key; did you mean home_address?",
        ),
        (
            changed(MOBILE_NODE, home_address="2001:db8"),
            "home_address: expected an IPv6 address, not '2001:db8'",
        ),
        (changed(MOBILE_NODE, home_address=7), "home_address: expected an IPv6 address in quotes, not 7"),
        (
            changed(MOBILE_NODE, home_address="fe80::1"),
            "home_address: expected a global unicast address, not fe80::1",
        ),
        (
            changed(MOBILE_NODE, home_address="2001:db8:100::1"),
            "home_address: expected another address than that of the home agent",
        ),
        (changed(MOBILE_NODE, name="a/b"), "name: expected a name of letters, digits and _.-, not 'a/b'"),
        (changed(MOBILE_NODE, lifetime_s="60"), "lifetime_s: expected a number, not text"),
        (changed(MOBILE_NODE, lifetime_s=61), "lifetime_s: expected a multiple of 4, not 61"),
        (changed(MOBILE_NODE, lifetime_s=0), "lifetime_s: expected at least 4, not 0"),
        (changed(MOBILE_NODE, interface=[]), "interface: expected at least one"),
        (changed(MOBILE_NODE, interface={}), "interface: expected a list, not a table"),
        (changed(MOBILE_NODE, interface=[{"name": "a", "bid": 1}]), "interface[0].priority: is missing"),
        (
            changed(MOBILE_NODE, interface=[INTERFACE, {**INTERFACE, "name": "other"}]),
            "interface[1].bid: 1 is used already",
        ),
        (
            changed(MOBILE_NODE, interface=[{**INTERFACE, "bid": 70000}]),
            "interface[0].bid: expected at most 65535, not 70000",
        ),
        (
            changed(MOBILE_NODE, interface=[{**INTERFACE, "priority": 128}]),
            "interface[0].priority: expected at most 127, not 128",
        ),
        (
            changed(MOBILE_NODE, flow=[{"fid": 1, "bids": [9]}]),
            "flow[0].bids: there is no BID or interface 9; known are 1 (mn-wlan), 2 (mn-cellular)",
        ),
        (changed(MOBILE_NODE, flow=[{"fid": 1, "bids": [1, "wlan"]}]), "flow[0].bids: BID 1 is named twice"),
        (
            changed(MOBILE_NODE, flow=[{"fid": 1, "bids": [1], "action": "n-cast"}]),
            "flow[0].bids: expected at least two for n-cast",
        ),
        (
            changed(MOBILE_NODE, flow=[{"fid": 1}]),
            "flow[0].bids: is missing; expected at least one BID or interface",
        ),
        (
            changed(MOBILE_NODE, flow=[{"fid": 1, "bids": [1], "action": "copy"}]),
            "flow[0].action: 'copy' is not known; expected one of discard, forward, n-cast",
        ),
        (
            changed(MOBILE_NODE, flow=[{"fid": 1, "bids": [1], "source_port": "http"}]),
            "flow[0].source_port: expected a number or a range from 0 to 65535, for example 5000-5999, "
            "not 'http'",
        ),
        (
            changed(MOBILE_NODE, datapath={"tunnel_backend": "gre"}),
            "datapath.tunnel_backend: 'gre' is not known; expected one of auto, ip6tnl, seg6",
        ),
        (
            changed(HOME_AGENT, home_prefixes=["2001:db8::1/64"]),
            "home_prefixes[0]: expected an IPv6 prefix, not '2001:db8::1/64', it has host bits set",
        ),
        (
            changed(HOME_AGENT, policy={"ncast": True}),
            "policy.ncast: is not a known key; did you mean n_cast?",
        ),
    ],
)
def test_one_sentence_names_the_key_and_what_was_expected(tables, sentence):
    with pytest.raises(ConfigurationError) as raised:
        check(tables)
    assert str(raised.value) == sentence


def test_a_socket_path_has_to_fit_the_kernel():
    with pytest.raises(ConfigurationError, match=r"^control.socket: expected a path of at most 107 octets"):
        check({**HOME_AGENT, "control": {"socket": "/" + "x" * 107}})


def test_a_file_is_named_in_the_sentence(tmp_path):
    file = tmp_path / "ha.toml"
    with pytest.raises(ConfigurationError, match=r"ha\.toml: cannot be read: No such file or directory$"):
        load(str(file))
    file.write_text("role = oops\n")
    with pytest.raises(ConfigurationError, match=r"ha\.toml: is not TOML: .*line 1"):
        load(str(file))
    file.write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigurationError, match=r"ha\.toml: is not UTF-8 text$"):
        load(str(file))
    file.write_text('role = "home-agent"')
    with pytest.raises(ConfigurationError, match=r"ha\.toml: name: is missing$"):
        load(str(file))


@pytest.mark.parametrize(
    "example", ["mobile-node.toml", "mobile-router.toml", "home-agent.toml", "anchor-point.toml"]
)
def test_the_examples_are_valid(example, request):
    load(str(request.config.rootpath / "examples" / example))


ASSOCIATION = {"spi": 0x1001, "key": "11" * 32, "encryption_key": "22" * 16}
IPSEC = {"to_home_agent": ASSOCIATION, "to_mobile_node": {"spi": 0x1002, "key": "33" * 32}}
MOBILE_BY_IPSEC = {key: value for key, value in MOBILE_NODE.items() if key != "security"} | {"ipsec": IPSEC}
HOME_IPSEC = IPSEC | {"home_address": "2001:db8:100::101"}


TUNNEL = {
    "tunnel_to_home_agent": {"spi": 0x1003, "key": "44" * 32, "encryption_key": "55" * 16},
    "tunnel_to_mobile_node": {"spi": 0x1004, "key": "66" * 32, "encryption_key": "77" * 32},
}


def test_ipsec():
    file = check(MOBILE_BY_IPSEC)
    keys = ipsec_keys(file.ipsec, file.home_address, file.home_agent)
    assert keys.to_home_agent == Esp(0x1001, b"\x11" * 32, b"\x22" * 16)
    assert keys.to_mobile_node == Esp(0x1002, b"\x33" * 32)
    assert has_keys(file) and "11" * 8 not in repr(keys)
    # both ways side by side at a home agent
    file = check(HOME_AGENT | {"ipsec": [HOME_IPSEC]})
    assert [str(table.home_address) for table in file.ipsec] == ["2001:db8:100::101"]
    alone = {key: value for key, value in HOME_AGENT.items() if key != "security_association"}
    check(alone | {"ipsec": [HOME_IPSEC]})


def test_ipsec_of_the_home_test():
    file = check(MOBILE_BY_IPSEC | {"ipsec": IPSEC | TUNNEL})
    keys = ipsec_keys(file.ipsec, file.home_address, file.home_agent)
    assert keys.tunnel_to_home_agent == Esp(0x1003, b"\x44" * 32, b"\x55" * 16)
    assert keys.tunnel_to_mobile_node == Esp(0x1004, b"\x66" * 32, b"\x77" * 32)
    check(HOME_AGENT | {"ipsec": [HOME_IPSEC | TUNNEL]})


MAP_IPSEC = {
    "regional_address": "2001:db8:500::100",
    "to_anchor_point": ASSOCIATION,
    "to_mobile_node": IPSEC["to_mobile_node"],
}
OF_ONE_MAP = MAP_IPSEC | {"anchor_point": "2001:db8:500::1"}
OF_ANOTHER_MAP = MAP_IPSEC | {"anchor_point": "2001:db8:600::1", "regional_address": "2001:db8:600::100"}
OTHER_SPI = {"to_mobile_node": IPSEC["to_mobile_node"] | {"spi": 0x1004}}
HIERARCHICAL = MOBILE_NODE | {"hierarchical": True}
ANCHOR_POINT = {
    "role": "anchor-point",
    "name": "map1",
    "address": "2001:db8:500::1",
    "regional_interface": "region0",
    "regional_prefixes": ["2001:db8:500::/64"],
}


def test_care_of_addresses_of_correspondent_nodes():
    open_node = HIERARCHICAL | {"accept_unauthenticated": True}
    assert check(open_node).optimise_by == "auto"
    assert check(open_node | {"optimise_by": "on-link"}).optimise_by == "on-link"
    with pytest.raises(ConfigurationError, match="^optimise_by: does not go without hierarchical = true$"):
        check(MOBILE_NODE | {"optimise_by": "regional"})


def test_ipsec_with_anchor_points():
    file = check(HIERARCHICAL | {"map_ipsec": [OF_ONE_MAP, OF_ANOTHER_MAP | OTHER_SPI]})
    keys = map_keys(file.map_ipsec[0], file.map_ipsec[0].anchor_point)
    assert (str(keys.home_address), str(keys.home_agent)) == ("2001:db8:500::100", "2001:db8:500::1")
    assert keys.to_home_agent == Esp(0x1001, b"\x11" * 32, b"\x22" * 16)
    assert keys.tunnel_to_home_agent is None
    file = check(ANCHOR_POINT | {"ipsec": [MAP_IPSEC]})
    assert map_keys(file.ipsec[0], file.address) == keys and has_keys(file)


def with_tunnel(key, **changes):
    return MOBILE_BY_IPSEC | {"ipsec": IPSEC | TUNNEL | {key: TUNNEL[key] | changes}}


def with_association(**changes):
    return MOBILE_BY_IPSEC | {"ipsec": IPSEC | {"to_home_agent": ASSOCIATION | changes}}


@pytest.mark.parametrize("tables, sentence", [
    (with_association(spi=255), "ipsec.to_home_agent.spi: expected at least 256, not 255"),
    (with_association(key="11"), "ipsec.to_home_agent.key: expected 64 hexadecimal digits"),
    (with_association(key=""), "ipsec.to_home_agent.key: expected either this or key_file"),
    (with_association(encryption_key="zz"),
     "ipsec.to_home_agent.encryption_key: expected 32 or 64 hexadecimal digits"),
    (with_association(key="", key_file="/nowhere"),
     "ipsec.to_home_agent.key_file: /nowhere cannot be read: No such file or directory"),
    (with_association(spi=0x1002),
     "ipsec.to_mobile_node.spi: expected another than that of to_home_agent"),
    (with_tunnel("tunnel_to_home_agent", encryption_key=""),
     "ipsec.tunnel_to_home_agent.encryption_key: is missing; a Home Test has to be encrypted "
     "(RFC 3776 §4.3)"),
    (MOBILE_BY_IPSEC | {"ipsec": IPSEC | {"tunnel_to_home_agent": TUNNEL["tunnel_to_home_agent"]}},
     "ipsec.tunnel_to_mobile_node: is missing; a tunnel has two directions"),
    (with_tunnel("tunnel_to_mobile_node", spi=0x1001),
     "ipsec.tunnel_to_mobile_node.spi: expected another than that of to_home_agent"),
    (HOME_AGENT | {"ipsec": [HOME_IPSEC | TUNNEL, HOME_IPSEC | {
        "home_address": "2001:db8:100::102", "to_home_agent": ASSOCIATION | {"spi": 0x1003}}]},
     "ipsec[1].to_home_agent.spi: 4099 is used already"),
    (MOBILE_NODE | {"map_ipsec": [OF_ONE_MAP]}, "map_ipsec: does not go without hierarchical = true"),
    (HIERARCHICAL | {"map_ipsec": [OF_ONE_MAP, OF_ANOTHER_MAP]},
     "map_ipsec[1].to_mobile_node.spi: 4098 is used already"),
    (HIERARCHICAL | {"map_ipsec": [OF_ONE_MAP, OF_ONE_MAP]},
     "map_ipsec[1].anchor_point: '2001:db8:500::1' is used already"),
    (ANCHOR_POINT | {"ipsec": [MAP_IPSEC | {"regional_address": "2001:db8:600::1"}]},
     "ipsec[0].regional_address: expected one of regional_prefixes, not 2001:db8:600::1"),
    (ANCHOR_POINT | {"ipsec": [MAP_IPSEC, MAP_IPSEC | {"regional_address": "2001:db8:500::101"}]},
     "ipsec[1].to_anchor_point.spi: 4097 is used already"),
    (MOBILE_NODE | {"ipsec": IPSEC}, "security: does not go with [ipsec]"),
    (MOBILE_BY_IPSEC | {"hierarchical": True},
     "hierarchical: does not go with [ipsec], as the kernel would send from a regional address outside of "
     "the anchor point's tunnel; [[map_ipsec]] is for anchor points"),
    ({key: value for key, value in MOBILE_BY_IPSEC.items() if key != "home_agent"}
     | {"home_prefix": "2001:db8:100::/64"},
     "home_agent: is missing; [ipsec] is with one home agent, as "
     "several would disturb each other's sequence numbers"),
    (HOME_AGENT | {"ipsec": [HOME_IPSEC, HOME_IPSEC]},
     "ipsec[1].home_address: '2001:db8:100::101' is used already"),
    (HOME_AGENT | {"ipsec": [HOME_IPSEC, HOME_IPSEC | {"home_address": "2001:db8:100::102"}]},
     "ipsec[1].to_home_agent.spi: 4097 is used already"),
    (HOME_AGENT | {"ipsec": [HOME_IPSEC | {"home_address": "2001:db8:100::100"}]},
     "ipsec[0].home_address: has a [[security_association]] already"),
])  # fmt: skip
def test_ipsec_that_cannot_be(tables, sentence):
    with pytest.raises(ConfigurationError) as error:
        check(tables)
    assert str(error.value) == sentence
