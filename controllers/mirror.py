"""What to send to which switch, and when, so that the switches have the rules that the bindings ask for.

Class: `Mirror`. No Ryu, no sockets, no clock: it is told what happened, with the time in seconds on a
monotonic clock, and returns `Read`, `Commit` and `Renew` to be carried out (module `switch` has these
and the state of each switch).

The order in which switches are changed loses no packet: an access network's switch lets a flow's packets
through before the core switch steers the flow there, and until it does not any more. Our rules work only
while a gate in table 0 leads to them. It is renewed again and again, and closes by itself when the
controller falls silent: then everything goes by way of the home agent, as without us.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from controllers.fabric import Access, Fabric
from controllers.gate import gates
from controllers.rule import (
    INFRASTRUCTURE,
    MARK,
    NORMAL,
    Group,
    Output,
    Rule,
    cookie,
    cookie_owner,
)
from controllers.switch import Commit, Port, Read, Refusal, Renew, Rules, Switch
from controllers.translation import Translation, Way, translate
from testbed.mobility.feed import FeedUpdate
from testbed.mobility.forwarding import HomeBinding

logger = logging.getLogger(__name__)

#: How often gates are renewed within a lease.
RENEWALS_PER_LEASE = 8
#: After this time without an answer a switch's state is unknown, and read anew; seconds.
ANSWER_TIMEOUT_S = 5.0
#: How long the rules of a home address that a switch refused are not tried again; seconds, doubled each time.
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0


@dataclass(slots=True)
class _Feed:
    """Where bindings come from; `lost_at`: since when it has been silent, None while it is there."""

    home_addresses: set[IPv6Address]
    lost_at: float | None = None


class Mirror:
    """Bindings in, switch rules out."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.switches: dict[int, Switch] = {}
        self.bindings: dict[IPv6Address, HomeBinding] = {}
        self._feeds: dict[str, _Feed] = {}
        self._owners: dict[int, IPv6Address] = {}
        self._translations: dict[tuple[IPv6Address, bool], tuple[Any, Translation]] = {}
        self._numbers = 0
        self._unknown: set[int] = set()
        self._outputs: list[Read | Commit | Renew] = []
        self._withdrawn = False
        self._now = 0.0
        self._networks: list[IPv6Network] | None = None

    def outputs(self) -> list[Read | Commit | Renew]:
        """What is to be carried out, in this order; drained."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def feed_update(self, source: str, update: FeedUpdate, now: float) -> None:
        """A line of the feed called `source` has come."""
        feed = self._feeds.setdefault(source, _Feed(set()))
        feed.lost_at = None
        changes = dict(update.changes)
        if update.complete:
            changes |= dict.fromkeys(feed.home_addresses - changes.keys())
        for home_address, binding in changes.items():
            if binding is None and home_address in feed.home_addresses:
                feed.home_addresses.discard(home_address)
                self._bind(home_address, None)
            elif binding is not None:
                for other in self._feeds.values():
                    other.home_addresses.discard(home_address)
                feed.home_addresses.add(home_address)
                self._bind(home_address, binding)
        self._plan_all(now)

    def feed_lost(self, source: str, now: float) -> None:
        """The feed has ended; its bindings are held for a while."""
        feed = self._feeds.get(source)
        if feed is not None and feed.lost_at is None:
            feed.lost_at = now

    def _bind(self, home_address: IPv6Address, binding: HomeBinding | None) -> None:
        owner = cookie(home_address)
        if self._owners.setdefault(owner, home_address) != home_address:
            logger.error(
                "%s stays with the home agent: its cookie is that of %s", home_address, self._owners[owner]
            )
            return
        if binding is None:
            self.bindings.pop(home_address, None)
        elif self.bindings.get(home_address) == binding:
            return
        else:
            self.bindings[home_address] = binding
        self._networks = None
        self._touch(owner)

    def _touch(self, owner: int) -> None:
        for switch in self.switches.values():
            switch.dirty.add(owner)

    def switch_up(self, number: int, ports: Mapping[str, Port], now: float) -> None:
        """A switch has connected (again)."""
        if number not in self.fabric.switches:
            if number not in self._unknown:
                self._unknown.add(number)
                logger.warning(
                    "datapath %#x is not in the description of the fabric: it is left alone", number
                )
            return
        self.switches[number] = Switch(number, dict(ports))
        for name in self.fabric.ports_of(number):
            if name not in ports:
                logger.warning("switch %#x has no port %s (yet)", number, name)
        self._read(self.switches[number], now)
        self._touch_all()
        self._plan_all(now)

    def switch_down(self, number: int, now: float) -> None:
        """The connection of a switch has ended."""
        if self.switches.pop(number, None):
            self._touch_all()
            self._plan_all(now)

    def port_changed(self, number: int, name: str, port: Port | None, now: float) -> None:
        """A port has come, changed or (None) gone."""
        switch = self.switches.get(number)
        if switch is None or switch.ports.get(name) == port:
            return
        if port is None:
            switch.ports.pop(name, None)
        else:
            switch.ports[name] = port
        if name in self.fabric.ports_of(number):
            self._touch_all()
            self._plan_all(now)

    def switch_tables(
        self,
        number: int,
        rules: Iterable[Rule],
        groups: Iterable[Group],
        counters: Mapping[tuple, tuple[int, int]],
        now: float,
    ) -> None:
        """The answer to `Read`: what a switch has of ours, with packets and octets of each rule."""
        switch = self.switches.get(number)
        if switch is None or switch.reading_since is None:
            return
        switch.reading_since = None
        switch.read_at = now
        switch.counters = dict(counters)
        if switch.busy or switch.read_number != switch.committed:
            return  # it may show the time before a change that has been made since
        found: dict[int, Rules] = {}
        for rule in rules:
            if rule.table == self.fabric.table:
                found.setdefault(cookie_owner(rule.cookie), {})[rule.key] = rule
        known = switch.rules
        if known is None:
            switch.dirty |= {INFRASTRUCTURE, *found}
            switch.settled_at = None
            changed = set()
        else:
            changed = {
                o for o in found.keys() | switch.rules.keys() if found.get(o) != switch.rules.get(o, {})
            }
            if changed - switch.dirty:
                logger.warning("switch %#x: rules of ours were changed by others, and are put right", number)
            switch.dirty |= changed
        switch.set_rules(found, {group.number: group for group in groups})
        if known is None:
            self._touch_all()
        for owner in changed:
            self._touch(owner)
        self._plan_all(now)

    def committed(self, number: int, commit: int, now: float) -> None:
        """A switch has made the change with this number."""
        switch = self.switches.get(number)
        if switch is None or switch.busy is None or switch.busy.number != commit:
            return
        done, switch.busy = switch.busy, None
        for owner, rules in done.wanted.items():
            switch.put_rules(owner, rules)
            if rules:
                switch.refused.pop(owner, None)
        switch.groups = {**switch.groups, **{group.number: group for group in done.new_groups}}
        for group in done.old_groups:
            switch.groups.pop(group.number, None)
        switch.batch = min(switch.batch * 2, Switch.MAX_BATCH)
        switch.settled_at = now
        for owner in done.wanted:
            self._touch(owner)
        self._plan_all(now)

    def refused(self, number: int, commit: int, reason: str, now: float) -> None:
        """A switch has refused the change with this number, and is as it was before."""
        switch = self.switches.get(number)
        if switch is None or switch.busy is None or switch.busy.number != commit:
            return
        failed, switch.busy = switch.busy, None
        switch.dirty |= failed.wanted.keys()
        if len(failed.wanted) > 1:
            switch.batch = max(1, len(failed.wanted) // 2)
        elif not failed.wanted:  # groups that nobody uses
            switch.paused_until = now + FIRST_RETRY_S
        else:
            (owner,) = failed.wanted
            before = switch.refused.get(owner)
            delay = min(before.delay_s * 2, LAST_RETRY_S) if before else FIRST_RETRY_S
            switch.refused[owner] = Refusal(reason, now + delay, delay)
            logger.warning(
                "switch %#x refuses the rules of %s (%s): they stay with the home agent; again in %g s",
                number,
                self._owners.get(owner, "the mirror itself"),
                reason,
                delay,
            )
            if not failed.wanted[owner] or owner == INFRASTRUCTURE:
                switch.paused_until = now + delay  # not even the removal was possible
            self._touch(owner)
        self._plan_all(now)

    def tick(self, now: float) -> None:
        """Renew gates, retry what was refused, look after what others did: at least every `interval_s`."""
        for source, feed in self._feeds.items():
            if feed.lost_at is not None and now - feed.lost_at >= self.fabric.feed_grace_s:
                if feed.home_addresses:
                    logger.warning(
                        "the feed %s has not come back: its bindings are not mirrored any more", source
                    )
                for home_address in feed.home_addresses:
                    self._bind(home_address, None)
                feed.home_addresses.clear()
        for switch in self.switches.values():
            for since in (switch.reading_since, switch.busy_since if switch.busy else None):
                if since is not None and now - since > ANSWER_TIMEOUT_S:
                    logger.warning("switch %#x does not answer: asking for its state again", switch.number)
                    switch.forget()
                    break
            if (
                switch.reading_since is None
                and not switch.busy
                and (switch.rules is None or now - switch.read_at >= self.fabric.audit_s)
            ):
                self._read(switch, now)
            for owner, refusal in switch.refused.items():
                if refusal.until <= now and owner not in switch.dirty:
                    self._touch(owner)
        self._plan_all(now)
        for switch in self.switches.values():
            self._renew(switch, now)

    @property
    def interval_s(self) -> float:
        """How often `tick` is wanted."""
        return self.fabric.lease_s / RENEWALS_PER_LEASE

    def refresh(self, now: float) -> None:
        """Read all switches: for fresh counters."""
        for switch in self.switches.values():
            if switch.reading_since is None:
                self._read(switch, now)

    def withdraw(self) -> None:
        """Close all gates and remove all rules of ours: the controller ends in good order, and whatever
        happens from now on, nothing is installed any more."""
        for switch in self.switches.values():
            rules, groups = switch.everything()
            rules = (*gates(self.fabric, switch, self._prefixes()), *rules)
            self._numbers += 1
            self._want(Commit(switch.number, self._numbers, (), rules, (), groups, {}))
        self._withdrawn = True

    def _want(self, output: Read | Commit | Renew) -> None:
        if not self._withdrawn:
            self._outputs.append(output)

    def _touch_all(self) -> None:
        """Anything may have changed: look at every home address that is bound, or that a switch has
        rules of."""
        owners = {cookie(address) for address in self.bindings}
        owners = owners.union(*(switch.rules or () for switch in self.switches.values()))
        for switch in self.switches.values():
            switch.dirty |= owners

    def _read(self, switch: Switch, now: float) -> None:
        switch.reading_since = now
        switch.read_number = switch.committed
        self._want(Read(switch.number))

    def _way(self, care_of_address: IPv6Address) -> Way | str:
        """How the core switch reaches a care-of address, or why it does not."""
        access = self.fabric.access_of(care_of_address)
        if access is None:
            return f"care-of address {care_of_address} is in no access network of this controller"
        core = self.switches.get(self.fabric.core)
        port = core.ports.get(access.core_port) if core else None
        if port is None or not port.live:
            return f"the core switch's port {access.core_port} is not there, or down"
        destination = self.fabric.hardware_address(care_of_address)
        if destination is None:
            return f"the hardware address of {care_of_address} is not known"
        source = 0x02_00_00_00_00_00 | MARK << 32 | access.switch & 0xFFFFFFFF
        return Way(access.name, port.number, source, destination)

    def desired(self, home_address: IPv6Address) -> Translation:
        """What is wanted if all switches take part."""
        binding = self.bindings[home_address]
        ways = {path.bid: self._way(path.remote) for path in binding.paths}
        return self._translate(binding, ways, False)

    def effective(self, home_address: IPv6Address) -> Translation:
        """What is wanted of the core switch: only steer to where the access network's switch is ready."""
        binding = self.bindings[home_address]
        desired = self.desired(home_address)
        ready = {a.name: self._is_ready(a, home_address, desired) for a in self.fabric.access}
        ways: dict[int, Way | str] = {}
        for path in binding.paths:
            way = self._way(path.remote)
            if isinstance(way, Way) and not ready[way.access]:
                way = f"the switch of access network {way.access} is not ready"
            ways[path.bid] = way
        return self._translate(binding, ways, True)

    def _translate(self, binding: HomeBinding, ways: dict[int, Way | str], effective: bool) -> Translation:
        question = (binding, ways)
        known = self._translations.get((binding.home_address, effective))
        if known is None or known[0] != question:
            answer = translate(
                binding, ways, self.fabric.table, self.fabric.max_matches, self.fabric.mirror_default
            )
            self._translations[binding.home_address, effective] = known = question, answer
        return known[1]

    def _is_ready(self, access: Access, home_address: IPv6Address, desired: Translation) -> bool:
        switch = self.switches.get(access.switch)
        if switch is None or switch.rules is None:
            return False
        if not all(port in switch.ports for port in access.network_ports):
            return False  # its gate stays shut
        owner = cookie(home_address)
        needed = desired.access.get(access.name, ())
        states = [switch.rules.get(owner, {})]
        if switch.busy and owner in switch.busy.wanted:
            states.append(switch.busy.wanted[owner])  # a change under way must not take them away
        return all(rules.get(rule.key) == rule for rules in states for rule in needed)

    def _is_settled(self, home_address: IPv6Address) -> bool:
        """Whether the core switch does what is wanted of it: then it needs nothing else of the others."""
        core = self.switches.get(self.fabric.core)
        if core is None or core.rules is None:
            return False
        owner = cookie(home_address)
        if core.busy and owner in core.busy.wanted:
            return False
        wanted = _by_key(self.effective(home_address).core) if home_address in self.bindings else {}
        return core.rules.get(owner, {}) == ({} if self._is_refused(core, owner) else wanted)

    def _is_refused(self, switch: Switch, owner: int) -> bool:
        refusal = switch.refused.get(owner)
        return refusal is not None and refusal.until > self._now

    def _wanted(self, switch: Switch, owner: int) -> tuple[Rules, tuple[Group, ...]]:
        """What a switch shall have of one owner."""
        if owner == INFRASTRUCTURE:
            return _by_key([self._table_miss(switch)]), ()
        home_address = self._owners.get(owner)
        if home_address is None or self._is_refused(switch, owner):
            return {}, ()
        bound = home_address in self.bindings
        if switch.number == self.fabric.core:
            translation = self.effective(home_address) if bound else Translation()
            return _by_key(translation.core), translation.groups
        name = next(access.name for access in self.fabric.access if access.switch == switch.number)
        rules = _by_key(self.desired(home_address).access.get(name, ())) if bound else {}
        if not self._is_settled(home_address):  # the core may still steer by the rules from before
            rules = {**(switch.rules or {}).get(owner, {}), **rules}
        return rules, ()

    def _table_miss(self, switch: Switch) -> Rule:
        """The core leaves to the home agent, an access network's switch refuses, what matches no rule."""
        actions = (Output(NORMAL),) if switch.number == self.fabric.core else ()
        return Rule(self.fabric.table, 0, (), actions, INFRASTRUCTURE)

    def _prefixes(self) -> list[IPv6Network]:
        """The networks of home addresses, and mobile network prefixes."""
        if self._networks is None:
            networks = {IPv6Network((int(address) >> 64 << 64, 64)) for address in self.bindings}
            self._networks = sorted(networks.union(*(binding.prefixes for binding in self.bindings.values())))
        return self._networks

    def _renew(self, switch: Switch, now: float) -> None:
        """Keep the gates open, unless for a whole lease the rules have not been what they should be."""
        if switch.settled_at is not None and now - switch.settled_at <= self.fabric.lease_s:
            to_us = gates(self.fabric, switch, self._prefixes())
            if to_us:
                self._want(Renew(switch.number, to_us))

    def _plan_all(self, now: float) -> None:
        """Access networks first: what they need before the core can steer there."""
        self._now = now
        order = sorted(self.switches.values(), key=lambda switch: switch.number == self.fabric.core)
        for switch in order:
            self._plan(switch, now)

    def _plan(self, switch: Switch, now: float) -> None:
        if switch.rules is None or switch.busy or now < switch.paused_until:
            return
        wanted: dict[int, Rules] = {}
        groups: dict[int, Group] = {}
        for owner in sorted(switch.dirty):
            rules, needed = self._wanted(switch, owner)
            if rules == switch.rules.get(owner, {}) and all(
                switch.groups.get(group.number) == group for group in needed
            ):
                switch.dirty.discard(owner)
                continue
            wanted[owner] = rules
            groups |= {group.number: group for group in needed}
            if len(wanted) >= switch.batch:
                break
        was_settled = switch.settled_at is not None
        if not wanted:
            switch.settled_at = now
            stale = switch.unused_groups({})
            if not stale:
                if not was_settled:
                    self._renew(switch, now)
                return
        switch.dirty -= wanted.keys()
        self._numbers += 1
        switch.busy = switch.change_to(self._numbers, wanted, groups)
        switch.busy_since = now
        switch.committed = self._numbers
        self._want(switch.busy)


def _by_key(rules: Iterable[Rule]) -> Rules:
    return {rule.key: rule for rule in rules}
