"""How a mobile node comes home and leaves again (RFC 6275 §11.5.5; RFC 5648 §5.6). Class: `ReturningHome`."""

from collections.abc import Callable
from ipaddress import IPv6Address

from testbed.mobility.attachments import Attachments
from testbed.mobility.registration import Registration
from testbed.mobility.route_optimisation import RouteOptimiser


class ReturningHome:
    """Tells the home agent, by the registration with it, that the home link is used, alone or beside others.

    `simultaneous`: beside others, if it can be. Packets of correspondent nodes come by the home
    agent at home, which alone can choose the home link: optimised routes are left, and taken up again abroad.
    """

    def __init__(
        self,
        attachments: Attachments,
        registration: Registration,
        optimiser: RouteOptimiser,
        simultaneous: bool,
        note: Callable[..., None],
    ) -> None:
        self._attachments = attachments
        self._registration = registration
        self._optimiser = optimiser
        self._simultaneous = simultaneous
        self._note = note
        self._routes_kept: list[IPv6Address] = []
        #: Whether this node has had an earlier life, of whose bindings nothing is known.
        self.lived_before = False
        #: Whether all bindings had run out when the home link was found, by our clock or as the home agent
        #: has told since: somebody else may have the home address by now (RFC 6275 §11.5.5).
        self.is_unguarded = False

    def look(self, leaving: bool, now: float) -> None:
        """See whether an interface has come to the home link, or left it: RFC 6275 §11.5.5: on the home link
        nothing is bound; RFC 5648 §5.6: unless others are used as well. `leaving`: all bindings are being
        removed anyway."""
        if not self._attachments.look_for_home():
            return
        if self._attachments.home_interface is not None:
            self._arrive(leaving, now)
        else:
            self._depart()

    def _arrive(self, leaving: bool, now: float) -> None:
        registration = self._registration
        self._routes_kept = list(self._optimiser.correspondents)
        self._optimiser.leave(now)
        registration.home_binding_refused = False
        self._attachments.simultaneous = not leaving and self._may_be_simultaneous()
        self.is_unguarded = registration.lapsed
        if not self._attachments.simultaneous:
            registration.leave(now, self.lived_before and not registration.accepted_once)

    def _depart(self) -> None:
        self._attachments.simultaneous = False
        if self._registration.leaving:
            self._registration.resume()
        for correspondent in self._routes_kept:
            self._optimiser.add(correspondent)

    def _may_be_simultaneous(self) -> bool:
        """Whether the home link is to be used beside others, and there is a home agent to tell, or there
        will be; one that takes several BIDs at once, as that of the home link is in every message."""
        if not self._simultaneous:
            return False
        reachable = not self._registration.peer.is_unspecified or bool(self._attachments.away())
        return reachable and self._registration.bulk_registration

    def acknowledged(self, now: float) -> None:
        """The home agent has answered; perhaps it does not have it that other links are used as well
        (RFC 5648 §6.3)."""
        attachments, registration = self._attachments, self._registration
        self.is_unguarded |= attachments.home_interface is not None and registration.lapsed
        if registration.home_binding_refused and attachments.simultaneous:
            self._note("simultaneous-attachment-refused", peer=str(registration.peer))
            attachments.simultaneous = False
            registration.leave(now)

    @property
    def is_home(self) -> bool:
        """Whether it is on its home link, and the home agent has stopped to answer for the home address."""
        attachments, registration = self._attachments, self._registration
        if attachments.home_interface is None:
            return False
        return registration.left or (attachments.simultaneous and attachments.may_defend(registration))

    @property
    def presence(self) -> str | None:
        """The interface on the home link where it answers for its home address: RFC 6275 §11.5.5; RFC 5648
        §5.6.3: not before the home agent has permitted that."""
        if self._attachments.simultaneous and not self.is_home:
            return None
        return self._attachments.home_interface
