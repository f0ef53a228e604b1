"""Which ICMPv6 errors about a care-of address are persistent."""

from ipaddress import IPv6Address

import pytest

from testbed.mobility.binding import Binding
from testbed.mobility.binding_cache import BindingCache, CacheEntry
from testbed.mobility.unreachables import BELIEVED_S, FORGOTTEN_S, PERSISTENT_S, Standing, Unreachables

HOME, LOCAL = IPv6Address("2001:db8:100::100"), IPv6Address("2001:db8:300::2")
WLAN, CELLULAR = IPv6Address("2001:db8:201::a"), IPv6Address("2001:db8:202::a")
FIRST, ANOTHER, PERSISTENT = Standing.FIRST, Standing.ANOTHER, Standing.PERSISTENT

requirement = pytest.mark.requirement


@pytest.fixture
def bed():
    cache = BindingCache()
    entry = CacheEntry(HOME, LOCAL, 1)
    cache.put(entry)
    return Unreachables(cache), entry


def bind(entry, address, expires):
    entry.bindings[1] = Binding(1, address, 0, 100, expires)
    return entry.bindings[1]


@requirement("RFC 6275 §9.3.4: persistent errors are three at least, over four seconds at least")
def test_persistence(bed):
    unreachables, entry = bed
    binding = bind(entry, WLAN, 100.0)
    assert [unreachables.reported(HOME, binding, 0.1 * n) for n in range(9)] == [FIRST] + 8 * [ANOTHER]
    assert unreachables.reported(HOME, binding, PERSISTENT_S - 0.1) is ANOTHER
    assert unreachables.reported(HOME, binding, PERSISTENT_S) is PERSISTENT


def test_two_errors_are_not_persistent(bed):
    unreachables, entry = bed
    binding = bind(entry, WLAN, 100.0)
    standings = [unreachables.reported(HOME, binding, when) for when in (0.0, 50.0, 51.0)]
    assert standings == [FIRST, ANOTHER, PERSISTENT]
    assert unreachables.reported(HOME, binding, 51.0 + FORGOTTEN_S + 1) is FIRST


def test_a_mobile_node_that_shows_up_is_believed(bed):
    unreachables, entry = bed
    assert unreachables.reported(HOME, bind(entry, WLAN, 100.0), 0.0) is FIRST
    renewed = bind(entry, WLAN, 101.0)
    for when in (1.0, 5.0, BELIEVED_S):
        assert unreachables.reported(HOME, renewed, when) is ANOTHER
    assert unreachables.reported(HOME, renewed, BELIEVED_S + 1) is FIRST
    assert unreachables.reported(HOME, renewed, BELIEVED_S + 2) is ANOTHER
    moved = bind(entry, CELLULAR, 102.0)
    assert unreachables.reported(HOME, moved, BELIEVED_S + 3) is FIRST


def test_what_is_gone_is_forgotten(bed):
    unreachables, entry = bed
    unreachables.reported(HOME, bind(entry, WLAN, 100.0), 0.0)
    entry.bindings.clear()
    entry.bindings[2] = Binding(2, CELLULAR, 0, 100, 100.0)
    unreachables.reported(HOME, entry.bindings[2], 1.0)
    assert unreachables.reported(HOME, bind(entry, WLAN, 100.0), 5.0) is FIRST
