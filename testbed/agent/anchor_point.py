"""The agent of a mobility anchor point (RFC 5380). Class: `AnchorPointAgent`."""

from typing import Any

from testbed.agent.configuration import AnchorPointFile, association, policy
from testbed.agent.home_agent import HomeAgentAgent
from testbed.agent.ipsec_tables import map_keys
from testbed.agent.protected_signalling import ProtectedSignalling
from testbed.agent.security import time_of_day
from testbed.mobility.anchor_point import AnchorPoint, AnchorPointConfiguration


class AnchorPointAgent(HomeAgentAgent):
    """Serves regional care-of addresses as a home agent serves home addresses (draft §9)."""

    file: AnchorPointFile
    role: AnchorPoint

    def make_role(self) -> AnchorPoint:
        file = self.file
        configuration = AnchorPointConfiguration(
            file.address,
            tuple(file.regional_prefixes),
            file.max_lifetime_s,
            policy(file),
            accept_unauthenticated=file.accept_unauthenticated,
            dialect=file.dialect,
            duplicate_address_detection=file.duplicate_address_detection,
            max_refusals_per_s=file.max_refusals_per_s,
            max_refusals_per_sender_per_s=file.max_refusals_per_sender_per_s,
            local_prefixes=tuple(file.local_prefixes),
            keys=tuple(association(table) for table in file.security_association),
            by_ipsec=frozenset(table.regional_address for table in file.ipsec),
        )
        if file.ipsec:
            keys = [map_keys(table, file.address) for table in file.ipsec]
            self.protected = ProtectedSignalling(self.side, keys)
        return AnchorPoint(configuration, self.started, self.codec, time_of_day)

    def join_home_link(self) -> None:
        """No discovery of anchor points here: access routers advertise them (RFC 5380 §7)."""

    def status(self) -> dict[str, Any]:
        return {
            "address": str(self.file.address),
            "regional_interface": self.file.regional_interface,
            "regional_prefixes": [str(prefix) for prefix in self.file.regional_prefixes],
            "local_prefixes": [str(prefix) for prefix in self.file.local_prefixes],
            "mobile_nodes": len(self.role.forwarding()),
        }
