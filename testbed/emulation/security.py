"""What the mobile nodes of an emulated network share with their home agent. Class: `Security`. Functions:
`shared_key`, `shared_keys`."""

import secrets
from collections.abc import Mapping

#: The index of the keys of RFC 4285 (§5.1).
SPI = 1000
#: RFC 4285, RFC 3776.
METHODS = ("mobility-options", "ipsec")
_ASSOCIATIONS = "to_home_agent", "to_mobile_node", "tunnel_to_home_agent", "tunnel_to_mobile_node"
_FIRST_SPI, _KEY_OCTETS, _ENCRYPTION_KEY_OCTETS = 0x1000, 32, 16


def shared_key(key: str) -> dict:
    """What a mobile node's configuration says of a key of RFC 4285, 32 hexadecimal digits."""
    return {"security": {"spi": SPI, "key": key}}


def shared_keys(keys: Mapping[str, str]) -> dict:
    """The same of the home agent; keys by home address."""
    tables = [{"home_address": str(home), "spi": SPI, "key": key} for home, key in keys.items()]
    return {"security_association": tables}


class Security:
    """Keys made for one network, of one method. Raises ValueError for an unknown one."""

    def __init__(self, method: str = METHODS[0]) -> None:
        if method not in METHODS:
            raise ValueError(f"security: {method!r} is none of {', '.join(METHODS)}")
        self.method = method
        self._keys: dict[str, str] = {}
        self._associations: dict[str, dict] = {}

    def key(self, name: str) -> str:
        """Of RFC 4285, what the mobile node of this name has."""
        return self._keys.setdefault(name, secrets.token_hex(16))

    def of_mobile_node(self, name: str) -> dict:
        """What its configuration says."""
        return {"ipsec": self._ipsec(name)} if self.method == "ipsec" else shared_key(self.key(name))

    def of_home_agent(self, home_addresses: Mapping[str, object]) -> dict:
        """What the home agent's says, with the names and home addresses of all mobile nodes."""
        if self.method != "ipsec":
            return shared_keys({str(home): self.key(name) for name, home in home_addresses.items()})
        homes = home_addresses.items()
        return {"ipsec": [{"home_address": str(home), **self._ipsec(name)} for name, home in homes]}

    def _ipsec(self, name: str) -> dict:
        if name not in self._associations:
            first = _FIRST_SPI + len(_ASSOCIATIONS) * len(self._associations)
            self._associations[name] = {
                association: {
                    "spi": spi,
                    "key": secrets.token_hex(_KEY_OCTETS),
                    "encryption_key": secrets.token_hex(_ENCRYPTION_KEY_OCTETS),
                }
                for spi, association in enumerate(_ASSOCIATIONS, start=first)
            }
        return self._associations[name]
