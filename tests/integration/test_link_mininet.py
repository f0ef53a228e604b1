"""Links in Mininet, its own way and by `mn --custom`; the whole of it in namespaces of its own."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from backend import backends

from testbed.emulation.link import LinkError, choose_link_backend
from testbed.emulation.netem import has_netem

PROJECT = Path(__file__).parents[2]
ISOLATED = [sys.executable, "-m", "testbed.isolation"]

NETWORK = """
    import json, sys
    import testbed.emulation
    from mininet.net import Mininet
    from mininet.node import Node
    from mininet.topo import Topo
    from testbed.emulation.link import LinkError, LinkParameters, ShapedLink

    class Pair(Topo):
        def build(self):
            self.addHost("mn", ip=None)
            self.addHost("ar", ip=None)
            self.addHost("other", ip=None)
            self.addLink("mn", "ar", cls=ShapedLink, intfName1="mn-wlan", intfName2="wlan-mn",
                         backend=BACKEND, parameters=LinkParameters(bandwidth_mbit=50, delay_ms=10),
                         parameters_back=LinkParameters(delay_ms=20))
            self.addLink("ar", "other", cls=ShapedLink)

    net = Mininet(topo=Pair(), host=Node, controller=None)
    mn, ar, other = (net[name] for name in ("mn", "ar", "other"))
    link = next(link for link in net.links if link.intf1.name == "mn-wlan")
    plain = next(one for one in net.links if one is not link)
    report = {}
"""


def isolated(backend, script):
    """What the script puts into `report`, run after NETWORK in private namespaces."""
    whole = textwrap.dedent(NETWORK).replace("BACKEND", repr(backend)) + textwrap.dedent(script)
    whole += "net.stop()\nprint('report ' + json.dumps(report))\n"
    done = subprocess.run([*ISOLATED, sys.executable, "-c", whole], cwd=PROJECT, capture_output=True,
                          text=True, stdin=subprocess.DEVNULL, timeout=120)
    lines = [line for line in done.stdout.splitlines() if line.startswith("report ")]
    assert done.returncode == 0 and lines, done.stdout + done.stderr
    return json.loads(lines[0].removeprefix("report "))


@pytest.fixture(params=backends("link", "netem", "wire"))
def backend(request):
    if request.param == "netem" and not has_netem():
        pytest.skip("this kernel has no netem")
    return request.param


def test_link_of_a_topology(backend):
    report = isolated(backend, """
        report["backends"] = link.backend, plain.backend
        report["addresses"] = mn.cmd("ip -json address show dev mn-wlan")
        report["text"] = str(link), link.status()
        mn.cmd("ip address add 2001:db8::1/64 dev mn-wlan nodad")
        ar.cmd("ip address add 2001:db8::2/64 dev wlan-mn nodad")
        report["ping"] = mn.cmd("ping -6 -n -q -c 3 -i 0.1 -w 10 2001:db8::2")
        report["counters"] = [counters.packets_out for counters in link.counters()]
        link.change(parameters_back=LinkParameters(delay_ms=80))
        report["changed"] = mn.cmd("ping -6 -n -q -c 3 -i 0.1 -w 10 2001:db8::2")
    """)
    assert report["backends"] == [backend, "veth"]
    device, = json.loads(report["addresses"])
    assert device["mtu"] == 1500 and device["link_type"] == "ether" and "LOWER_UP" in device["flags"]
    assert not [address for address in device["addr_info"] if address["family"] == "inet"]
    assert report["text"] == ["mn-wlan<->wlan-mn", "(OK OK)"]
    assert minimum_rtt_ms(report["ping"]) >= 30
    assert min(report["counters"]) >= 3
    assert minimum_rtt_ms(report["changed"]) >= 90


def minimum_rtt_ms(ping):
    return float(ping.split("rtt")[1].split("=")[1].split("/")[0])


def test_move_and_delete(backend):
    report = isolated(backend, """
        other.cmd("ip link add lan0 type bridge")
        link.move(other, "lan0")
        report["ports"] = [node.intfNames() for node in (ar, other)]
        report["bridge"] = other.cmd("ip -o link show master lan0")
        try:
            link.move(net["mn"], "lan0")
        except LinkError as error:
            report["error"] = str(error)
        net.delLink(link)
        report["left"] = mn.cmd("ip -o link") + other.cmd("ip -o link")
        report["interfaces"] = [node.intfNames() for node in (mn, ar, other)]
        wire = getattr(link.cable, "wire", None)
        report["wire"] = wire and wire.pid
    """)
    assert "wlan-mn" in report["ports"][1] and "wlan-mn" not in report["ports"][0]
    assert "wlan-mn" in report["bridge"]
    assert "lan0" in report["error"]
    assert "wlan" not in report["left"]
    assert report["interfaces"] == [[], ["ar-eth1"], ["other-eth0"]]
    assert report["wire"] is None


def test_device_is_like_an_ethernet_card(backend):
    """A router at the far end, behind a bridge: advertisements, an address by SLAAC, a capture."""
    report = isolated(backend, """
        import shutil, subprocess, time
        ar.cmd("ip link add lan0 type bridge; ip link set lan0 up; ip link set wlan-mn master lan0")
        ar.cmd("ip address add 2001:db8:1::1/64 dev lan0 nodad; sysctl -qw net.ipv6.conf.all.forwarding=1")
        configuration = "/run/flowbind/radvd.conf"
        with open(configuration, "w") as file:
            file.write("interface lan0 { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4;"
                       " prefix 2001:db8:1::/64 { }; };")
        capture = mn.popen("tcpdump", "-Z", "root", "-U", "-n", "-i", "mn-wlan", "-c", "1", "-w",
                           "/run/flowbind/mn.pcap", "icmp6 and ip6[40] == 134", stderr=subprocess.DEVNULL)
        radvd = ar.popen(shutil.which("radvd") or "/usr/sbin/radvd", "-n", "-m", "stderr",
                         "-C", configuration, "-p", "/run/flowbind/radvd.pid")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            shown = mn.cmd("ip -6 address show dev mn-wlan scope global -tentative")
            if "2001:db8:1:" in shown and capture.poll() is not None:
                break
        report["address"] = shown
        report["captured"] = subprocess.run(["tcpdump", "-n", "-r", "/run/flowbind/mn.pcap"], text=True,
                                            capture_output=True).stdout
        report["ping"] = mn.cmd("ping -6 -n -q -c 2 -w 10 2001:db8:1::1")
        radvd.kill()
        capture.kill()
    """)
    assert "2001:db8:1:" in report["address"]
    assert "router advertisement" in report["captured"]
    assert " 0% packet loss" in report["ping"]


def test_mn_command(tmp_path):
    """A topology file with such links given to Mininet's own command."""
    (tmp_path / "two.py").write_text(textwrap.dedent("""
        from mininet.topo import Topo
        from testbed.emulation.link import ShapedLink

        class Two(Topo):
            def build(self):
                self.addLink(self.addHost("h1"), self.addHost("h2"), cls=ShapedLink, delay_ms=15)

        topos = {"two": Two}
    """))
    script = textwrap.dedent("""
        h1 ip address add 2001:db8::1/64 dev h1-eth0 nodad
        h2 ip address add 2001:db8::2/64 dev h2-eth0 nodad
        h1 ping -6 -n -q -c 3 -i 0.1 -w 10 2001:db8::2
    """)
    # When it fails, mn removes files in /tmp and $HOME that may be others'.
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
                   "HOME": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    mn = [sys.executable, str(Path(sys.executable).with_name("mn"))]
    done = subprocess.run(
        [*ISOLATED, "sh", "-c", f'mount --bind {tmp_path} /tmp && exec "$@"', "sh",
         *mn, "--custom", "/tmp/two.py", "--topo", "two", "--controller", "none"],
        cwd=PROJECT, input=script, capture_output=True, text=True, timeout=120, env=environment)
    assert "rtt" in done.stderr, done.stdout + done.stderr  # mn writes all that it shows there
    assert minimum_rtt_ms(done.stderr) >= 30


def test_backend_choice():
    assert choose_link_backend() == ("netem" if has_netem() else "wire")
    assert choose_link_backend("wire") == "wire"
    with pytest.raises(LinkError, match="no link backend 'tc'; there are auto, netem, wire"):
        choose_link_backend("tc")
    if not has_netem():
        with pytest.raises(LinkError, match="sch_netem"):
            choose_link_backend("netem")
