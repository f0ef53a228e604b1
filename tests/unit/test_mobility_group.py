"""Binding Updates that a home agent judges one after the other before the datapath is changed for all."""

from ipaddress import IPv6Address

import pytest
from simulation import CELLULAR, HOME_AGENT, HOME_PREFIX, KEY, WLAN

from testbed.mobility.authentication import ntp_timestamp, signed
from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration
from testbed.wire.codec import Codec
from testbed.wire.message import BindingUpdate, Status
from testbed.wire.option import MessageIdentifier
from testbed.wire.packet import Packet, build_packet, parse_packet

ONE, OTHER = HOME_PREFIX[0x1001], HOME_PREFIX[0x1002]
CODEC = Codec()


@pytest.fixture
def agent() -> HomeAgent:
    keys = {ONE: KEY, OTHER: KEY}
    return HomeAgent(HomeAgentConfiguration(HOME_AGENT, (HOME_PREFIX,), associations=keys), 0.0, CODEC)


def update(agent: HomeAgent, home: IPv6Address, care_of: IPv6Address, sequence: int, now: float) -> None:
    asked = BindingUpdate(sequence, 60, acknowledge=True, home_registration=True)
    message = signed(asked, KEY, care_of, home, CODEC, MessageIdentifier(ntp_timestamp(now)))
    octets = build_packet(Packet(care_of, HOME_AGENT, message, home), CODEC)
    agent.receive(parse_packet(octets, CODEC), "eth0", now)


def care_of_address(agent: HomeAgent, home: IPv6Address) -> IPv6Address | None:
    entry = agent.cache.get(home)
    return entry.default_binding().care_of_address if entry else None


def statuses(transmissions) -> list[tuple[IPv6Address, int, Status]]:
    packets = [transmission.packet for transmission in transmissions]
    return [(packet.routing_address, packet.message.sequence, packet.message.status) for packet in packets]


def test_what_fails_for_one_is_refused_to_that_one_only(agent: HomeAgent):
    update(agent, ONE, WLAN, 1, 1.0)
    update(agent, OTHER, WLAN, 1, 1.0)
    assert set(agent.changes()) == {ONE, OTHER}
    assert len(agent.transmissions()) == 2
    update(agent, ONE, CELLULAR, 2, 2.0)
    update(agent, OTHER, CELLULAR, 2, 2.0)
    update(agent, ONE, CELLULAR, 3, 3.0)
    assert set(agent.changes()) == {ONE, OTHER}
    agent.hold(agent.transmissions())
    agent.datapath_failed(ONE, "no room", 3.0)
    answers = agent.transmissions()
    refused = Status.INSUFFICIENT_RESOURCES
    assert statuses(answers) == [(ONE, 2, refused), (OTHER, 2, 0), (ONE, 3, refused)]
    stamps = [answer.packet.message.option(MessageIdentifier).timestamp for answer in answers]
    assert stamps == [ntp_timestamp(now) for now in (2.0, 2.0, 3.0)]
    assert care_of_address(agent, ONE) == WLAN, "as before both of them"
    assert care_of_address(agent, OTHER) == CELLULAR


def test_what_is_in_place_is_what_the_next_failure_goes_back_to(agent: HomeAgent):
    for sequence, care_of in ((1, WLAN), (2, CELLULAR)):
        update(agent, ONE, care_of, sequence, float(sequence))
        agent.changes()
        agent.transmissions()
    update(agent, ONE, WLAN, 3, 3.0)
    agent.changes()
    agent.datapath_failed(ONE, "no room", 3.0)
    assert care_of_address(agent, ONE) == CELLULAR


def test_a_refresh_changes_no_forwarding_state(agent: HomeAgent):
    update(agent, ONE, WLAN, 1, 1.0)
    assert set(agent.changes()) == {ONE}
    update(agent, ONE, WLAN, 2, 2.0)
    assert not agent.changes()
    update(agent, ONE, CELLULAR, 3, 3.0)
    assert set(agent.changes()) == {ONE}


def test_timers_that_are_put_off_come_at_their_time(agent: HomeAgent):
    update(agent, ONE, WLAN, 1, 1.0)
    update(agent, ONE, WLAN, 2, 21.0)
    assert agent.timer() == pytest.approx(21 + 54)
    agent.handle_timer(60.0)
    assert care_of_address(agent, ONE) == WLAN
    agent.handle_timer(81.0)
    assert care_of_address(agent, ONE) is None
