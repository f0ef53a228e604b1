"""Refusals by real agents over real links, each provoked by a message made for it."""

import pytest
from agent_network import COMMON, HOME_ADDRESS, HOME_AGENT, KEY, PREFIXES, Agent
from datapath_network import wait_for
from signalling import SPI, Signaller, binding_identifier

from testbed.mobility.forwarding import Action
from testbed.wire.dialect import Draft
from testbed.wire.flow import FlowIdentification, FlowStatus, Pro
from testbed.wire.message import BindingAcknowledgement, Status
from testbed.wire.selector import IPv6TrafficSelector

requirement = pytest.mark.requirement
SSH = IPv6TrafficSelector(source_port=(22, 22))
#: Of a local Binding Update (RFC 5380 §4): A and M.
LOCAL = 0x8800
ANCHOR_POINT = f"""
role = "anchor-point"
name = "ha"
address = "{HOME_AGENT}"
regional_interface = "home0"
regional_prefixes = ["2001:db8:100::/64"]
local_prefixes = ["{PREFIXES["wlan"]}/64"]
security_association = [{{ spi = {SPI}, key = "{KEY}" }}]
duplicate_address_detection = false
"""


@pytest.fixture
def testers(network):
    """In the mobile node's place, at each of its interfaces."""
    found = []
    for name in ("wlan", "cellular"):
        address = wait_for(lambda name=name: network.address(f"mn-{name}", PREFIXES[name].rstrip(":")))
        found.append(Signaller(network.mn, f"mn-{name}", address))
    yield found
    for tester in found:
        tester.close()


class AnchorPoint(Agent):
    """A real mobility anchor point in the home agent's place."""

    def __init__(self, node, folder):
        self.node, self.folder, self.name = node, folder, node.name
        self.file = folder / "map.toml"
        text = ANCHOR_POINT + COMMON.replace("FOLDER", str(folder)).replace("NAME", "ha")
        self.file.write_text(text)
        self.file.chmod(0o600)
        self.socket = str(folder / "ha.sock")
        self.start()


def flow(fid, pro, bids=(1,), selector=SSH, action=Action.FORWARD):
    """A Flow Identification option."""
    option = FlowIdentification(fid, 10, int(action), pro=pro, binding_reference=bids, selector=selector)
    draft = Draft()
    return (draft.flow_option_type, *draft.alignment(option), draft.data(option))


def answer(tester, *options, **update):
    """The acknowledgement of a Binding Update."""
    tester.forget()
    tester.send(tester.update(*options, **update))

    def found():
        return [p.message for p in tester.messages() if isinstance(p.message, BindingAcknowledgement)]

    return wait_for(found)[-1]


def statuses(message):
    return [option.status for option in message.all_options(FlowIdentification)]


@requirement("RFC 6275 §9.5.1: status 135, with the last accepted sequence number")
def test_a_sequence_number_that_is_old(network, testers, tmp_path):
    tester, _ = testers
    with Agent(network.ha, tmp_path) as agent:
        identifier = binding_identifier(1, tester.address)
        assert answer(tester, identifier, sequence=40000).status == 0
        for old in (40000, 39999, 40000 - 32768 + 1):
            message = answer(tester, identifier, sequence=old, lifetime_s=40)
            assert (message.status, message.sequence) == (Status.SEQUENCE_NUMBER_OUT_OF_WINDOW, 40000)
        assert agent.ask("bindings")[0]["lifetime_s"] == 60
        assert answer(tester, identifier, sequence=(40000 + 32767) % 65536).status == 0


@requirement("RFC 5380 §6.2: status 129 for an on-link care-of address outside of the domain")
def test_a_care_of_address_outside_of_the_domain(network, testers, tmp_path):
    inside, outside = testers
    with AnchorPoint(network.ha, tmp_path) as agent:
        message = answer(outside, binding_identifier(1, outside.address), flags=LOCAL)
        assert message.status == Status.ADMINISTRATIVELY_PROHIBITED
        assert agent.ask("bindings") == []
        assert answer(inside, binding_identifier(1, inside.address), flags=LOCAL).status == 0


@requirement("draft §3.1: statuses 129, 135, 136 and 137, each of one option; a refused one changes nothing")
def test_flow_options_that_are_wrong(network, testers, tmp_path):
    tester, _ = testers
    fine = flow(1, Pro.ADD)
    kind, unit, offset, data = flow(9, Pro.ADD)
    selector = data.index(bytes(SSH))
    unknown_format = data[: selector - 2] + b"\x7f" + data[selector - 1 :]
    cases = [
        (flow(1, Pro.ADD), FlowStatus.FID_IN_USE),
        (flow(7, Pro.REMOVE, None, None), FlowStatus.FID_NOT_FOUND),
        (flow(7, Pro.REPLACE), FlowStatus.POORLY_FORMED),
        (flow(7, Pro.REFRESH, None, None), FlowStatus.POORLY_FORMED),
        (flow(7, Pro.ADD, (5,)), FlowStatus.POORLY_FORMED),
        (flow(7, Pro.ADD, None, action=Action.N_CAST), FlowStatus.POORLY_FORMED),
        (flow(7, 9), FlowStatus.POORLY_FORMED),
        ((kind, unit, offset, unknown_format), FlowStatus.CLASSIFIER_LANGUAGE_NOT_SUPPORTED),
        ((kind, unit, offset, data[:-1]), FlowStatus.POORLY_FORMED),
    ]
    with Agent(network.ha, tmp_path) as agent:
        identifier = binding_identifier(1, tester.address)
        assert statuses(answer(tester, identifier, fine)) == [0]
        before = agent.ask("flows")
        kept = flow(1, Pro.REFRESH, None, None)
        for wrong, status in cases:
            message = answer(tester, identifier, kept, wrong)
            assert (message.status, statuses(message)) == (0, [0, status]), wrong
            assert agent.ask("flows") == before


@requirement("RFC 5648 §5.7: after MCOA PROHIBITED, no more than one binding is registered with that node")
def test_a_mobile_node_that_may_have_one_binding(network, tmp_path):
    one = "[policy]\nmultiple_care_of_addresses = false\n"
    with Agent(network.ha, tmp_path, more=one) as ha, Agent(network.mn, tmp_path) as mn:
        address = network.address("mn-cellular")
        wait_for(lambda: [(b["bid"], b["registered"]) for b in mn.ask("bindings")] == [(0, address)])
        assert [(b["bid"], b["care_of_address"]) for b in ha.ask("bindings")] == [(0, address)]
        assert [flow["state"] for flow in mn.ask("flows")] == ["waiting"] and ha.ask("flows") == []
        network.hn.shell(f"ping -6 -c1 -W5 {HOME_ADDRESS}")
