"""The addresses that `cluster-nodes` lists, and this node's own.

Every founding node computes the first ring from this list, so it must say all that the ring depends on:
`HOST:PORT[@CLUSTER-PORT][/ZONE]`, as `CLUSTER NODES` writes an address, with the availability zone behind a slash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from respkv.config.values import is_decimal
from respkv.ids import NodeId, node_id_of_address

if TYPE_CHECKING:
    from respkv.config.settings import Settings

CLUSTER_PORT_OFFSET = 10000
PORT_MAX = 65535

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_HOST_CHARACTERS = _NAME_CHARACTERS | frozenset(":%")
_FORM = "argument must be HOST:PORT[@CLUSTER-PORT][/ZONE]"


class Founder(NamedTuple):
    """Where a node is reached, and in which zone it stands."""

    host: str
    port: int
    cluster_port: int
    zone: str = ""

    @property
    def node_id(self) -> NodeId:
        """Its id: a function of the address, so that all nodes compute it alike."""
        return node_id_of_address(self.host, self.cluster_port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        zone = f"/{self.zone}" if self.zone else ""
        return f"{host}:{self.port}@{self.cluster_port}{zone}"


def parse_founder(text: str) -> Founder:
    """Read one address. Raises `ValueError` with the form that it should have."""
    address, slash, zone = text.partition("/")
    host_and_port, at, cluster_port_text = address.partition("@")
    host, _, port_text = host_and_port.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(_FORM)
    port = _port(port_text)
    cluster_port = _port(cluster_port_text) if at else port + CLUSTER_PORT_OFFSET
    if not host or not _HOST_CHARACTERS.issuperset(host) or zone_problem(zone) or (slash and not zone):
        raise ValueError(_FORM)
    if cluster_port > PORT_MAX:
        msg = f"port {port} is too high to add {CLUSTER_PORT_OFFSET} for the cluster port: write HOST:PORT@CLUSTER-PORT"
        raise ValueError(msg)
    return Founder(host, port, cluster_port, zone)


def founder_problem(text: str) -> str:
    """What is wrong with one item of `cluster-nodes`, or nothing."""
    try:
        parse_founder(text)
    except ValueError as error:
        return str(error)
    return ""


def zone_problem(text: str) -> str:
    """What is wrong with the name of a zone, or nothing."""
    return "" if _NAME_CHARACTERS.issuperset(text) else "argument may only have letters, digits and -_."


def founders(settings: Settings) -> list[Founder]:
    """The founding nodes, in the order of the file."""
    return [parse_founder(item) for item in settings.cluster_nodes]


def announced(settings: Settings, *, port: int, cluster_port: int) -> Founder:
    """This node as others reach it; the ports are those that it really listens on."""
    return Founder(
        host=settings.cluster_announce_ip or settings.bind[0].removeprefix("-"),
        port=settings.cluster_announce_port or port,
        cluster_port=settings.cluster_announce_bus_port or cluster_port,
        zone=settings.availability_zone,
    )


def _port(text: str) -> int:
    if not is_decimal(text) or len(text) > 5 or not 0 < int(text) <= PORT_MAX:
        raise ValueError(_FORM)
    return int(text)
