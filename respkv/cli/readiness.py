"""Whether the nodes of a local cluster answer and agree on the ring."""

from __future__ import annotations

from collections.abc import Mapping

import redis

from respkv.cli.connection import Address, connect

PROBE_TIMEOUT_S = 1.0


def problem_at(address: Address, *, node_count: int, up_count: int) -> str:
    """Why one node is not ready, or nothing."""
    try:
        with connect(address, timeout_s=PROBE_TIMEOUT_S, reply_timeout_s=PROBE_TIMEOUT_S) as client:
            client.ping()
            cluster_info = pairs_of(client.execute_command("CLUSTER", "INFO"))
            respkv_info = pairs_of(client.execute_command("INFO", "respkv"))
    except redis.AuthenticationError as error:
        return f"refuses the password of its respkv.conf ({error})"
    except (redis.ConnectionError, redis.TimeoutError, OSError):
        return "does not answer yet"
    except redis.ResponseError as error:
        return f"answers {error}"
    return disagreement(cluster_info, respkv_info, node_count=node_count, up_count=up_count)


def disagreement(cluster_info: Mapping[str, str], respkv_info: Mapping[str, str], *, node_count: int, up_count: int) -> str:
    """What a node that answers does not know yet, or nothing. `up_count` is how many processes run."""
    state = cluster_info.get("cluster_state", "unknown")
    known = cluster_info.get("cluster_known_nodes", "0")
    seen_up = respkv_info.get("respkv_nodes_counting", "0")
    if known != str(node_count):
        return f"knows {known} of {node_count} nodes"
    if seen_up != str(up_count):
        return f"sees {seen_up} of {up_count} nodes up and complete"
    if state != "ok":
        return f"says cluster_state:{state}"
    return ""


def pairs_of(reply: object) -> dict[str, str]:
    """The fields of an INFO reply, which redis-py may have parsed already."""
    if isinstance(reply, Mapping):
        return {str(name): str(value) for name, value in reply.items()}
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply)
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
