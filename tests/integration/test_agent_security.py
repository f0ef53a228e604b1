"""Authentication between real agents: what is played back, forged or out of order changes nothing."""

import json
import struct
import subprocess
import sys
import time
from ipaddress import IPv6Address

import pytest
from agent_network import HOME_ADDRESS, HOME_AGENT, KEY, ROOT, Agent
from datapath_network import Capture, send_raw, wait_for
from observations import registered
from signalling import (
    BA,
    BRR,
    BU,
    SPI,
    Signaller,
    binding_identifier,
    checksummed,
    ipv6_packet,
    sign,
    stamped_at,
)

from testbed.wire.message import BindingAcknowledgement, Status

requirement = pytest.mark.requirement
OTHER_KEY = "ff" * 16


@pytest.fixture
def signaller(network):
    signaller = Signaller(network.mn, "mn-wlan", network.address("mn-wlan", "2001:db8:201:"))
    yield signaller
    signaller.close()


def state(*agents):
    """What the agents have, but for what time alone changes."""
    bindings = [agent.ask("bindings") for agent in agents]
    for binding in (binding for each in bindings for binding in each):
        binding.pop("remaining_s")
    return bindings, [agent.ask("flows") for agent in agents]


def messages(agent):
    return agent.ask("counters")["messages"]


def seen_by(agent):
    return messages(agent)["received"]


class Recorder:
    """Mobility messages as they come to the access router, from both sides."""

    def __init__(self, network):
        self.captures = [Capture(network.ar, interface) for interface in ("wlan", "cellular", "core")]

    def packets(self, kind):
        """Those of this Mobility Header type, to be sent once more."""
        found = [data for capture in self.captures for data in capture.packets()]
        return [data for data in found if data[6] in (60, 43) and data[40 + 24 + 2] == kind]


@requirement("draft §10, RFC 4285 §6: a message that is played back changes nothing")
def test_real_messages_played_back_change_nothing(network, tmp_path):
    with Agent(network.ha, tmp_path) as ha, Agent(network.mn, tmp_path) as mn:
        recorder = Recorder(network)
        wait_for(lambda: registered(mn))
        mn.ask("flow-replace", fid=1, bids=["cellular"])
        mn.ask("flow-add", fid=2, bids=["wlan"], next_header="udp")
        mn.ask("flow-remove", fid=1)
        wait_for(lambda: registered(mn))
        updates = recorder.packets(BU)
        assert len(updates) >= 3
        before, counted = state(ha, mn), seen_by(ha)
        for order in (updates, updates[::-1]):
            for data in order:
                send_raw(network.ar, data)
        wait_for(lambda: seen_by(ha) == counted + 2 * len(updates))
        assert state(ha, mn) == before
        reasons = [event["reason"] for event in ha.events("message-dropped")]
        assert reasons and all("MIPV6_ID_MISMATCH" in reason for reason in reasons)
        # nor is the mobile node told anything by them that it would believe
        assert mn.ask("bindings") and registered(mn)


@requirement("draft §10, RFC 4285 §6: old messages do not bring back what was de-registered")
def test_messages_played_back_after_deregistration_and_restart(network, tmp_path):
    with Agent(network.ha, tmp_path) as ha:
        with Agent(network.mn, tmp_path) as mn:
            recorder = Recorder(network)
            wait_for(lambda: registered(mn))
            mn.ask("flow-remove", fid=1)
            assert mn.stop() == 0
        wait_for(lambda: ha.ask("bindings") == [])
        updates = recorder.packets(BU)
        for _ in range(2):
            counted = seen_by(ha)
            for data in updates:
                send_raw(network.ar, data)
            wait_for(lambda counted=counted: seen_by(ha) == counted + len(updates))
            assert (ha.ask("bindings"), ha.ask("flows")) == ([], [])
            assert ha.stop() == 0
            ha.start()


@requirement("draft §10, RFC 4285 §5.1.1: acknowledgements that are played back or forged change nothing")
def test_acknowledgements_played_back_and_forged(network, tmp_path):
    with Agent(network.ha, tmp_path) as ha, Agent(network.mn, tmp_path) as mn:
        recorder = Recorder(network)
        wait_for(lambda: registered(mn))
        mn.ask("flow-replace", fid=1, bids=["cellular"])
        answers = recorder.packets(BA)
        assert answers
        before, counted = state(ha, mn), messages(mn)["received"]
        address = network.address("mn-wlan", "2001:db8:201:")
        sequence = max(int.from_bytes(data[40 + 24 + 8 : 40 + 24 + 10], "big") for data in answers)
        forged = []
        for status in (0, 128, 133, 135, 144, 146, 165, 168):
            for number in (sequence, sequence + 1):
                data = struct.pack("!BBHH", status, 0, number, 15)
                for header in (
                    sign(BA, data, address, key=OTHER_KEY),
                    bytes((59, 1, BA, 0, 0, 0)) + data + bytes((1, 2, 0, 0)),
                ):
                    forged.append(ipv6_packet(HOME_AGENT, address, header, routing_address=HOME_ADDRESS))
        for data in answers + forged:
            send_raw(network.ar, data)
        wait_for(lambda: messages(mn)["received"] == counted + len(answers) + len(forged))
        assert state(ha, mn) == before
        assert messages(mn)["dropped"] >= len(answers) + len(forged)


@requirement("draft §10, RFC 4285 §5: every octet that counts is protected")
def test_forged_updates_change_nothing(network, tmp_path, signaller):
    with Agent(network.ha, tmp_path) as ha:
        signaller.send(signaller.update(binding_identifier(1, signaller.address)))
        wait_for(lambda: ha.ask("bindings"))
        before, counted = state(ha), seen_by(ha)
        good = signaller.update(binding_identifier(1, "2001:db8:bad::1"))
        forged = []
        end = good.index(struct.pack("!BBBI", 9, 17, 1, SPI)) + 7 + 12 - 64  # padding is not protected
        for octet in (2, 3, *range(6, end)):
            header = bytearray(good[64:])
            header[octet] ^= 0x40
            fixed = checksummed(bytes(header), HOME_ADDRESS, HOME_AGENT)
            forged.append(good[:64] + fixed)
        elsewhere = network.address("mn-cellular", "2001:db8:202:")
        moved = good[:8] + IPv6Address(elsewhere).packed + good[24:]
        another_home = bytearray(good)
        another_home[63] ^= 1
        another_home[64:] = checksummed(good[64:], str(IPv6Address(bytes(another_home[48:64]))), HOME_AGENT)
        wrong_key = signaller.update(binding_identifier(1, "2001:db8:bad::1"), key=OTHER_KEY)
        unsigned = ipv6_packet(
            signaller.address, HOME_AGENT,
            bytes((59, 1, BU, 0, 0, 0)) + struct.pack("!HHH", 60000, 0xC000, 15) + bytes((1, 2, 0, 0)),
            HOME_ADDRESS,
        )  # fmt: skip
        forged += [moved, bytes(another_home), wrong_key, unsigned]
        signaller.send(*forged)
        wait_for(lambda: seen_by(ha) == counted + len(forged))
        assert state(ha) == before
        signaller.send(good)  # which none of these has spoilt
        wait_for(lambda: ha.ask("bindings")[0]["care_of_address"] == "2001:db8:bad::1")


@requirement("RFC 4285 §6: of two Binding Updates that change places, the older one is refused")
def test_reordered_updates(network, tmp_path, signaller):
    with Agent(network.ha, tmp_path) as ha:
        first, second = (
            signaller.update(binding_identifier(1, f"2001:db8:201::{n}"), sequence=100 + n) for n in (1, 2)
        )
        third = signaller.update(lifetime_s=0, sequence=103, timestamp=time.time() - 60)
        signaller.send(second, first, third)
        wait_for(lambda: len(signaller.messages()) == 3)
        statuses = [packet.message.status for packet in signaller.messages()]
        assert statuses == [0, Status.MIPV6_ID_MISMATCH, Status.MIPV6_ID_MISMATCH]
        assert [b["care_of_address"] for b in ha.ask("bindings")] == ["2001:db8:201::2"]


@requirement("draft §10: nothing is accepted unauthenticated unless the configuration says so")
def test_without_a_key(network, tmp_path, signaller):
    other = str(IPv6Address(HOME_ADDRESS) + 1)
    with Agent(network.ha, tmp_path) as ha:
        data = struct.pack("!HHH", 1, 0xC000, 15)
        header = bytes((59, 1, BU, 0, 0, 0)) + data + bytes((1, 2, 0, 0))
        unknown = ipv6_packet(signaller.address, HOME_AGENT, header, other)
        signed = sign(BU, data, signaller.address, home_address=other)
        signaller.send(unknown, ipv6_packet(signaller.address, HOME_AGENT, signed, other))
        wait_for(lambda: messages(ha)["dropped"] == 2)
        assert (ha.ask("bindings"), messages(ha)["sent"]) == ([], 0)
        assert ha.stop() == 0
        text = ha.file.read_text()
        ha.file.write_text(text.replace("[control]", "[policy]\n[control]").replace(
            'name = "ha"', 'name = "ha"\naccept_unauthenticated = true'))  # fmt: skip
        ha.start()
        signaller.send(unknown)
        wait_for(lambda: [b["home_address"] for b in ha.ask("bindings")] == [other])
        # whoever has a key must use it all the same
        signaller.send(ipv6_packet(signaller.address, HOME_AGENT, header, HOME_ADDRESS))
        wait_for(lambda: messages(ha)["dropped"] == 1)
        assert len(ha.ask("bindings")) == 1


@requirement("RFC 6275 §9.3.3, §15.4: answers to what is not authentic are limited, by sender")
def test_a_flood_of_forged_updates(network, tmp_path, signaller):
    with Agent(network.ha, tmp_path) as ha:
        begun = time.monotonic()
        forged = [signaller.update(key=OTHER_KEY) for _ in range(50)]
        for _ in range(100):
            signaller.send(*forged)
        cellular = Signaller(network.mn, "mn-cellular", network.address("mn-cellular", "2001:db8:202:"))
        cellular.send(cellular.update())
        answered = wait_for(lambda: [p for p in cellular.messages() if p.message.status == 0])
        assert answered and ha.ask("bindings")[0]["care_of_address"] == cellular.address
        cellular.close()
        wait_for(lambda: seen_by(ha) == 100 * len(forged) + 1)
        seconds = int(time.monotonic() - begun) + 2
        refusals = [p for p in signaller.messages() if isinstance(p.message, BindingAcknowledgement)]
        assert 0 < len(refusals) <= 10 * seconds
        assert {packet.message.status for packet in refusals} == {Status.MIPV6_AUTH_FAIL}
        assert len(ha.events("message-dropped")) < 20 + 2 * seconds
        assert messages(ha)["flooded"] + messages(ha)["dropped"] == 100 * len(forged)


@requirement("RFC 4285 §5.3: a forged copy does not silence a mobile node")
def test_a_forged_copy_does_not_stop_the_mobile_node(network, tmp_path):
    """An eavesdropper answers a Binding Update with a forged one of the same sequence number and time stamp,
    so that the home agent says, with its own key, that the authenticator was wrong."""
    with Agent(network.mn, tmp_path) as mn:
        capture = Capture(network.ha, "core")
        update = wait_for(lambda: [d for d in capture.packets() if d[6] == 60 and d[66] == BU])[-1]
        header = bytearray(update[64:])
        header[-1 - next(n for n in range(8) if header[-1 - n])] ^= 1
        forged = update[:64] + checksummed(bytes(header), HOME_ADDRESS, HOME_AGENT)
        with Agent(network.ha, tmp_path) as ha:
            send_raw(network.ar, forged)
            wait_for(lambda: registered(mn) and ha.ask("bindings"))


def test_a_refresh_request_brings_no_more_than_a_refresh(network, tmp_path):
    with Agent(network.ha, tmp_path) as ha, Agent(network.mn, tmp_path) as mn:
        wait_for(lambda: registered(mn))
        before, counted = state(ha, mn), seen_by(mn)
        address = network.address("mn-wlan", "2001:db8:201:")
        recorder = Recorder(network)
        for _ in range(20):
            header = bytes((59, 0, BRR, 0, 0, 0, 0, 0))
            send_raw(network.ar, ipv6_packet(HOME_AGENT, address, header, routing_address=HOME_ADDRESS))
        wait_for(lambda: seen_by(mn) >= counted + 20)
        wait_for(lambda: registered(mn))
        sent = sorted(stamped_at(data) for data in recorder.packets(BU))
        assert sent  # MAX_UPDATE_RATE is 3 a second
        assert all(later - first > 0.999 for first, later in zip(sent, sent[3:], strict=False))
        assert state(ha, mn) == before


def test_a_key_that_everybody_can_read_gets_a_warning(network, tmp_path):
    file = tmp_path / "ha.toml"
    secret = tmp_path / "key"
    secret.write_text(KEY + "\n")
    with Agent(network.ha, tmp_path) as ha:
        assert ha.stop() == 0
        file.write_text(file.read_text().replace(f'key = "{KEY}"', f'key_file = "{secret}"'))

        def warnings(mode, kind):
            secret.chmod(mode)
            process = network.ha.run(
                lambda: subprocess.Popen(
                    [sys.executable, "-m", "testbed.agent", str(file)],
                    cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                )  # fmt: skip
            )
            assert process.stdout.readline() == "ready\n"
            process.terminate()
            _, error = process.communicate(timeout=20)
            return [line for line in error.splitlines() if kind in line]

        assert warnings(0o644, "chmod o-r") == [
            f"ha: WARNING: {secret} has a key in it and can be read by everybody: chmod o-r {secret}"
        ]
        assert warnings(0o600, "chmod") == []


def test_keys_are_not_shown(network, tmp_path):
    with Agent(network.ha, tmp_path) as ha, Agent(network.mn, tmp_path) as mn:
        wait_for(lambda: registered(mn))
        for agent in (ha, mn):
            for command in ("status", "bindings", "flows", "counters"):
                assert KEY not in json.dumps(agent.ask(command))
        assert KEY not in (tmp_path / "events.jsonl").read_text()
        assert KEY not in (tmp_path / "ha.state").read_text() + (tmp_path / "mn.state").read_text()
