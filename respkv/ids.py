"""Names of nodes and of their incarnations."""

from __future__ import annotations

import hashlib
import random

NodeId = str
"""40 lowercase hexadecimal digits, as Redis Cluster shows them."""

ACTOR_BYTES = 8


def node_id_of_address(host: str, cluster_port: int) -> NodeId:
    """The id of a founding node: a function of its announced address, so that all compute it alike."""
    return hashlib.sha1(f"{host}:{cluster_port}".encode(), usedforsecurity=False).hexdigest()


def new_actor(rng: random.Random) -> bytes:
    """A fresh incarnation: taken at each process start and whenever local data was lost.

    A node that forgot its past and went on under its old name would see its new writes
    dominated by what others remember of the old ones (Riak's kv679).
    """
    return rng.randbytes(ACTOR_BYTES)
