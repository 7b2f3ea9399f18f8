"""Small decisions that settings make about clients and peers. Pure."""

from __future__ import annotations

import ipaddress

PROTECTED = (
    b"-DENIED respkv is running in protected mode because protected mode is enabled and no password is set for the default user. "
    b"In this mode connections are only accepted from the loopback interface. If you want to connect from external computers, "
    b"set a password with requirepass, or switch protected mode off with 'CONFIG SET protected-mode no' from a client on this "
    b"machine, and make sure that the port cannot be reached from the internet.\r\n"
)


def is_loopback_peer(address: str) -> bool:
    """Whether HOST:PORT of a client lies on this machine."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
