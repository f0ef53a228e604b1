"""Movement detection: which care-of address and router an interface has."""

from ipaddress import IPv6Address, IPv6Network

import pytest

from testbed.agent.movement import DOUBT_S, AccessLink, Advertised, Attachment
from testbed.agent.netlink import Address, Link

HOME = IPv6Address("2001:db8:100::100")
ROUTER_1, ROUTER_2 = IPv6Address("fe80::1"), IPv6Address("fe80::2")
PREFIX_1, PREFIX_2 = IPv6Network("2001:db8:201::/64"), IPv6Network("2001:db8:202::/64")
PREFIX_3 = IPv6Network("2001:db8:203::/64")
GLOBAL_1, GLOBAL_2 = PREFIX_1[1], PREFIX_2[1]


def address(network, usable=True, suffix=7):
    return Address(network[suffix], network, True, usable)


def formed(network, usable=True, renewed_at=0.0):
    """An address that the kernel has formed for an advertised prefix, which it heard last at `renewed_at`."""
    return Address(network[7], network, True, usable, valid_until=1000.0, renewed_at=renewed_at)


def link(*addresses, routers=(ROUTER_1,), up=True):
    return Link(2, "wlan", up, {a.address: a for a in addresses}, dict.fromkeys(routers, 1024))


@pytest.fixture
def access():
    return AccessLink(HOME)


def test_an_interface_needs_link_address_and_router(access):
    for incomplete in (
        None,
        link(),
        link(address(PREFIX_1), routers=()),
        link(address(PREFIX_1), up=False),
        link(address(PREFIX_1, usable=False)),
        link(Address(IPv6Address("fe80::9"), IPv6Network("fe80::/64"), False, True)),
        link(Address(HOME, IPv6Network(f"{HOME}/128"), True, True)),
    ):
        assert not look(access, incomplete)
        assert access.current is None
    assert look(access, link(address(PREFIX_1)))
    assert access.current == Attachment(PREFIX_1[7], ROUTER_1)


def test_a_home_address_that_routers_have_had_formed_means_the_home_link(access):
    formed = Address(HOME, IPv6Network(f"{HOME}/64", strict=False), True, True)
    assert look(access, link(formed))
    assert access.current == Attachment(HOME, ROUTER_1)


def test_what_works_is_kept(access):
    look(access, link(address(PREFIX_1)))
    assert not look(access, link(address(PREFIX_2), address(PREFIX_1), routers=(ROUTER_2, ROUTER_1)))
    assert access.current == Attachment(PREFIX_1[7], ROUTER_1)


def test_the_router_with_the_best_metric_is_taken(access):
    attached = link(address(PREFIX_1))
    attached.gateways = {ROUTER_1: 1024, ROUTER_2: 512}
    look(access, attached)
    assert access.current.gateway == ROUTER_2


@pytest.mark.requirement("RFC 6275 §11.5.1: an L2 handover may not imply an L3 handover: the router is asked")
@pytest.mark.parametrize("how", ["an answer", "an answer at its global address", "an advertisement"])
def test_the_same_network_is_used_when_its_router_is_heard_after_the_link_is_back(access, how):
    if "global" in how:
        access.advertised(ROUTER_1, Advertised((PREFIX_1,), global_address=GLOBAL_1))
    look(access, link(address(PREFIX_1)))
    access.link_changed()
    assert look(access, link(address(PREFIX_1), up=False))
    access.link_changed()
    assert not look(access, link(address(PREFIX_1))) and access.current is None
    at = GLOBAL_1 if "global" in how else ROUTER_1
    assert access.to_be_verified() == at and access.to_be_verified() is None  # one question is enough
    if how == "an advertisement":
        access.advertised(ROUTER_1, Advertised((PREFIX_1,)))
    else:
        access.found(at, True)
    assert look(access, link(address(PREFIX_1)))
    assert access.current == Attachment(PREFIX_1[7], ROUTER_1)


def test_a_link_that_is_back_before_anybody_has_looked_is_used_on(access):
    look(access, link(address(PREFIX_1)))
    access.link_changed()
    access.link_changed()
    assert not look(access, link(address(PREFIX_1))) and access.current is not None
    assert access.to_be_verified() == ROUTER_1
    access.found(ROUTER_1, False)
    assert look(access, link(address(PREFIX_1))) and access.current is None


def test_the_router_of_the_former_network_is_not_its_namesake_here(access):
    access.advertised(ROUTER_1, Advertised((PREFIX_1,), global_address=GLOBAL_1))
    look(access, link(address(PREFIX_1)))
    access.link_changed()
    look(access, link(address(PREFIX_1), up=False))
    access.link_changed()
    look(access, link(address(PREFIX_1)))
    assert access.to_be_verified() == GLOBAL_1
    access.advertised(ROUTER_1, Advertised((PREFIX_2,)))
    here = link(address(PREFIX_1), address(PREFIX_2))
    assert look(access, here)
    access.found(GLOBAL_1, False)
    access.found(ROUTER_1, True)
    assert not look(access, here) and access.current == Attachment(PREFIX_2[7], ROUTER_1)


@pytest.mark.requirement("RFC 6275 §11.5.1: movement detection")
def test_another_network_is_recognised_by_its_router(access):
    look(access, link(address(PREFIX_1)))
    access.link_changed()
    look(access, link(address(PREFIX_1), up=False))
    access.link_changed()
    look(access, link(address(PREFIX_1)))
    both = (ROUTER_1, ROUTER_2)
    access.advertised(ROUTER_2, Advertised((PREFIX_2,)))
    # the kernel has just formed the new address, and is still looking whether somebody has it
    assert not look(access, link(address(PREFIX_1)))
    assert not look(access, link(address(PREFIX_1), address(PREFIX_2, usable=False), routers=both))
    assert access.current is None
    assert look(access, link(address(PREFIX_1), address(PREFIX_2), routers=both))
    assert access.current == Attachment(PREFIX_2[7], ROUTER_2)
    assert access.departed_routers(link(routers=both)) == [ROUTER_1]
    # and back again
    access.link_changed()
    access.advertised(ROUTER_1, Advertised((PREFIX_1,)))
    assert look(access, link(address(PREFIX_1), address(PREFIX_2), routers=both))
    assert access.current == Attachment(PREFIX_1[7], ROUTER_1)


def test_a_router_without_prefixes_does_not_take_away_a_configured_address(access):
    look(access, link(address(PREFIX_1)))
    access.link_changed()
    look(access, link(address(PREFIX_1), up=False))
    access.advertised(ROUTER_1, Advertised())
    assert not look(access, link(address(PREFIX_1)))
    access.found(access.to_be_verified(), True)
    assert look(access, link(address(PREFIX_1)))
    assert access.current == Attachment(PREFIX_1[7], ROUTER_1)


def test_an_address_that_is_deprecated_gives_way(access):
    look(access, link(address(PREFIX_1)))
    assert look(access, link(address(PREFIX_1, usable=False), address(PREFIX_1, suffix=8)))
    assert access.current.care_of_address == PREFIX_1[8]


@pytest.mark.requirement("RFC 4861 §6.3.4: a default router is not used beyond its advertised lifetime")
def test_a_router_whose_lifetime_is_over_waits_to_be_heard_again(access):
    access.advertised(ROUTER_1, Advertised((PREFIX_1,), until=3.0))
    assert look(access, link(address(PREFIX_1)), now=1.0)
    access.link_changed()
    assert look(access, link(address(PREFIX_1), up=False), now=2.0)
    access.link_changed()
    assert not look(access, link(address(PREFIX_1)), now=5.0)  # the kernel still has its route
    access.advertised(ROUTER_1, Advertised((PREFIX_1,), until=8.0))
    assert look(access, link(address(PREFIX_1)), now=5.1)
    assert access.current.gateway == ROUTER_1


def look(access, link, now=0.0):
    return access.update(link, now)



@pytest.mark.requirement("RFC 6275 §11.5.1: a new router is no reason to leave one that is reachable")
def test_another_router_is_a_reason_to_ask(access):
    access.advertised(ROUTER_1, Advertised((PREFIX_1,), global_address=GLOBAL_1))
    both = link(address(PREFIX_1), address(PREFIX_2), routers=(ROUTER_1, ROUTER_2))
    look(access, both)
    assert access.doubted(0.0) is None
    access.advertised(ROUTER_2, Advertised((PREFIX_2,), global_address=GLOBAL_2))
    assert not look(access, both)
    assert access.doubted(0.0) == GLOBAL_1 and access.doubted(0.0) is None
    access.found(GLOBAL_1, True)
    assert not look(access, both)
    # both go on advertising: nothing new
    for when in range(10, 100, 10):
        access.advertised(ROUTER_1, Advertised((PREFIX_1,), global_address=GLOBAL_1))
        access.advertised(ROUTER_2, Advertised((PREFIX_2,), global_address=GLOBAL_2))
        assert access.doubted(float(when)) is None
    access.advertised(ROUTER_2, Advertised((PREFIX_2,), global_address=GLOBAL_2))  # the other one is late
    assert access.doubted(100.0) == GLOBAL_1
    access.found(GLOBAL_1, False)
    assert look(access, both)
    assert access.current == Attachment(PREFIX_2[7], ROUTER_2)
    assert access.departed_routers(both) == [ROUTER_1]
    access.advertised(ROUTER_1, Advertised((PREFIX_1,), global_address=GLOBAL_1))
    assert access.departed_routers(both) == [] and not look(access, both)


@pytest.mark.requirement("RFC 6275 §11.5.1: the Router Address bit tells routers with the same address apart")
def test_a_router_with_the_same_link_local_address(access):
    access.advertised(ROUTER_1, Advertised((PREFIX_1,), global_address=GLOBAL_1))
    both = link(address(PREFIX_1), address(PREFIX_2))
    look(access, both)
    access.advertised(ROUTER_1, Advertised((PREFIX_2,), global_address=GLOBAL_2))
    assert not look(access, both)
    assert access.doubted(0.0) == GLOBAL_1
    access.found(ROUTER_1, True)  # either of them
    access.found(GLOBAL_1, False)
    assert look(access, both)
    assert access.current == Attachment(PREFIX_2[7], ROUTER_1)


def test_a_router_without_another_is_left_and_taken_again(access):
    alone = link(address(PREFIX_1))
    look(access, alone)
    access.found(ROUTER_2, False)  # none of ours
    assert not look(access, alone)
    access.found(ROUTER_1, False)
    assert look(access, alone) and access.current is None
    assert access.failed_routers == {ROUTER_1}
    access.found(ROUTER_1, True)
    assert look(access, alone) and access.current == Attachment(PREFIX_1[7], ROUTER_1)


def test_networks_of_another_link_are_not_on_this_one(access):
    static = address(IPv6Network("2001:db8:999::/64"))
    both = link(formed(PREFIX_1), formed(PREFIX_2), static, routers=(ROUTER_1, ROUTER_2))
    access.advertised(ROUTER_1, Advertised((PREFIX_1,)))
    look(access, both)
    assert access.departed_networks(both) == []
    access.link_changed()
    access.advertised(ROUTER_2, Advertised((PREFIX_2,)))
    look(access, both)
    assert access.departed_networks(both) == [PREFIX_1] and access.departed_networks(both) == []


@pytest.mark.requirement("RFC 6275 §11.5.1: advertisements that do not come are an indication of a handover")
def test_a_router_that_is_not_heard_any_more_is_asked(access):
    news = Advertised((PREFIX_1,), global_address=GLOBAL_1, interval_s=2.0)
    access.advertised(ROUTER_1, news, 100.0)
    look(access, link(address(PREFIX_1)), 100.0)
    assert access.doubtful_from == 106.0 and access.doubted(105.0) is None
    access.advertised(ROUTER_1, news, 104.0)
    assert access.doubted(109.0) is None and access.doubtful_from == 110.0
    assert access.doubted(110.0) == GLOBAL_1
    # it answers, but is silent for the rest
    access.found(GLOBAL_1, True)
    assert access.doubted(111.0) is None and access.doubtful_from == 110.0 + DOUBT_S
    assert access.doubted(110.0 + DOUBT_S) == GLOBAL_1
    access.advertised(ROUTER_1, Advertised((PREFIX_1,)), 120.0)  # no interval: nothing is expected
    assert access.doubtful_from == float("inf")


def test_at_the_start_the_network_that_was_heard_last_is_taken(access):
    """The addresses of others stay valid for long after they were left."""
    left, here = formed(PREFIX_1, renewed_at=50.0), formed(PREFIX_2, renewed_at=70.0)
    look(access, link(left, here, routers=(ROUTER_2,)))
    assert access.current == Attachment(PREFIX_2[7], ROUTER_2)


@pytest.mark.requirement("RFC 6275 §11.5.1: the new default router's prefixes give the new care-of addresses")
def test_another_router_that_answers_says_nothing_of_addresses_until_it_is_heard(access):
    earlier, left, here = formed(PREFIX_3), formed(PREFIX_1), formed(PREFIX_2)
    access.advertised(ROUTER_1, Advertised((PREFIX_1,)))
    look(access, link(earlier, left))
    access.link_changed()
    look(access, link(earlier, left, up=False))
    access.link_changed()
    access.found(ROUTER_2, True)  # the kernel has heard it, and asked it itself
    assert not look(access, link(earlier, left, here, routers=(ROUTER_1, ROUTER_2)))
    access.advertised(ROUTER_2, Advertised((PREFIX_2,)))
    assert look(access, link(earlier, left, here, routers=(ROUTER_1, ROUTER_2)))
    assert access.current == Attachment(PREFIX_2[7], ROUTER_2)


def test_another_router_that_answers_confirms_configured_addresses(access):
    both = (ROUTER_1, ROUTER_2)
    look(access, link(address(PREFIX_1), routers=both))
    access.link_changed()
    look(access, link(address(PREFIX_1), routers=both, up=False))
    access.link_changed()
    access.found(ROUTER_1, False)
    access.found(ROUTER_2, True)
    assert look(access, link(address(PREFIX_1), routers=both))
    assert access.current == Attachment(PREFIX_1[7], ROUTER_2)


@pytest.mark.requirement("RFC 6275 §11.5.3: a new care-of address is formed for a prefix of the new router")
def test_the_next_router_is_not_used_with_an_address_of_the_former_one(access):
    access.advertised(ROUTER_1, Advertised((PREFIX_1,)))
    look(access, link(formed(PREFIX_1)))
    access.advertised(ROUTER_2, Advertised((PREFIX_2,)))
    both = (ROUTER_1, ROUTER_2)
    access.found(ROUTER_1, False)
    # the kernel tells of a new address only when it knows that nobody else has it
    assert look(access, link(formed(PREFIX_1), routers=both)) and access.current is None
    assert look(access, link(formed(PREFIX_1), formed(PREFIX_2), routers=both))
    assert access.current == Attachment(PREFIX_2[7], ROUTER_2)


def test_an_address_that_its_router_no_longer_advertises_is_used_until_there_is_another(access):
    access.advertised(ROUTER_1, Advertised((PREFIX_1,)))
    look(access, link(formed(PREFIX_1)))
    access.advertised(ROUTER_1, Advertised((PREFIX_2,)))
    assert not look(access, link(formed(PREFIX_1))) and access.current is not None
    assert look(access, link(formed(PREFIX_1), formed(PREFIX_2)))
    assert access.current == Attachment(PREFIX_2[7], ROUTER_1)
