"""What a home agent, anchor point or correspondent node is willing to do: its local policy.

Class: `Policy`. Every refusal of draft-soliman-monami6-flow-binding-05 §3.1 that is a matter of policy is
decided here.
"""

from dataclasses import dataclass

from testbed.mobility.forwarding import Action
from testbed.wire.flow import FlowStatus
from testbed.wire.selector import TrafficSelector


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits and permissions. The defaults allow everything that the implementation can do."""

    #: Registrations: more than one care-of address (RFC 5648 status 166), more than one a message (168).
    multiple_care_of_addresses: bool = True
    bulk_registration: bool = True
    #: The home link as one of several ways (169); not for mobile routers.
    simultaneous_attachment: bool = True
    #: Mobile routers at all (RFC 3963 status 140); any prefix for those not in the prefix table (142).
    mobile_routers: bool = True
    unlisted_prefixes: bool = False
    #: Flow bindings at all (130), and by what they select (131 to 134) or do (138, 139).
    flow_bindings: bool = True
    prefix_selectors: bool = True
    port_selectors: bool = True
    flow_label_selectors: bool = True
    spi_selectors: bool = True
    discard: bool = True
    n_cast: bool = True
    #: Resources: mobile nodes (130 in the acknowledgement), bindings and flow bindings of each (128).
    max_mobile_nodes: int = 100_000
    max_bindings: int = 64
    max_flows: int = 10_000

    def judge(self, action: Action, selector: TrafficSelector | None) -> FlowStatus:
        """Whether a flow binding is allowed: SUCCESS or the status that says why not (draft §3.1)."""
        if not self.flow_bindings:
            return FlowStatus.ADMINISTRATIVELY_PROHIBITED
        if action is Action.DISCARD and not self.discard:
            return FlowStatus.DISCARD_NOT_SUPPORTED
        if action is Action.N_CAST and not self.n_cast:
            return FlowStatus.N_CAST_NOT_SUPPORTED
        for permitted, fields, status in (
            (
                self.prefix_selectors,
                ("source_address", "destination_address"),
                FlowStatus.PREFIX_NOT_SUPPORTED,
            ),
            (self.port_selectors, ("source_port", "destination_port"), FlowStatus.PORTS_NOT_SUPPORTED),
            (self.flow_label_selectors, ("flow_label",), FlowStatus.FLOW_LABEL_NOT_SUPPORTED),
            (self.spi_selectors, ("spi",), FlowStatus.SPI_NOT_SUPPORTED),
        ):
            if not permitted and any(getattr(selector, field, None) is not None for field in fields):
                return status
        return FlowStatus.SUCCESS
