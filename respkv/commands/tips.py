"""What COMMAND tips clients off about: replies that differ from call to call, and how to ask the nodes of a cluster. Pure data."""

from __future__ import annotations

_NAMES_BY_TIP = {
    "nondeterministic_output": (
        "CLIENT|INFO CLIENT|LIST CLUSTER|INFO CLUSTER|NODES CLUSTER|SLOTS CLUSTER|SHARDS CLUSTER|GETKEYSINSLOT CLUSTER|LINKS "
        "CLUSTER|COUNT-FAILURE-REPORTS CLUSTER|REPLICAS CLUSTER|SLAVES CLUSTER|BUMPEPOCH TTL PTTL OBJECT|ENCODING OBJECT|FREQ "
        "OBJECT|IDLETIME OBJECT|REFCOUNT TIME LASTSAVE LATENCY|LATEST LATENCY|HISTORY LATENCY|HISTOGRAM LATENCY|DOCTOR LATENCY|GRAPH "
        "INFO MEMORY|DOCTOR MEMORY|STATS SCAN RANDOMKEY SLOWLOG|GET SLOWLOG|LEN"
    ),
    "nondeterministic_output_order": "COMMAND COMMAND|LIST COMMAND|INFO COMMAND|DOCS MODULE|LIST KEYS",
    "request_policy:all_nodes": (
        "CONFIG|SET LATENCY|RESET SLOWLOG|RESET LATENCY|LATEST LATENCY|HISTORY LATENCY|HISTOGRAM LATENCY|DOCTOR LATENCY|GRAPH "
        "SLOWLOG|GET SLOWLOG|LEN"
    ),
    "request_policy:all_shards": "PING FLUSHALL FLUSHDB MEMORY|PURGE INFO MEMORY|DOCTOR MEMORY|STATS KEYS DBSIZE RANDOMKEY",
    "request_policy:multi_shard": "DEL UNLINK EXISTS TOUCH MGET MSET MSETNX",
    "request_policy:special": "SCAN",
    "response_policy:all_succeeded": "CONFIG|SET LATENCY|RESET SLOWLOG|RESET PING FLUSHALL FLUSHDB MEMORY|PURGE MSET",
    "response_policy:agg_sum": "DEL UNLINK EXISTS TOUCH DBSIZE SLOWLOG|LEN",
    "response_policy:agg_min": "MSETNX",
    "response_policy:special": (
        "LATENCY|LATEST LATENCY|HISTORY LATENCY|HISTOGRAM LATENCY|DOCTOR LATENCY|GRAPH INFO MEMORY|DOCTOR MEMORY|STATS"
    ),
}
WHOLE_CLUSTER = frozenset(("DBSIZE", "KEYS", "SCAN", "RANDOMKEY", "FLUSHALL", "FLUSHDB"))
"""Where `scan-scope` is `cluster`, any one node answers these for all: a client that added answers up would count keys twice."""

_TIPS: dict[str, list[str]] = {}
for _tip, _names in _NAMES_BY_TIP.items():
    for _name in _names.split():
        _TIPS.setdefault(_name, []).append(_tip)


def tips(name: str, *, scan_scope: str) -> list[str]:
    """The tips about a command."""
    found = _TIPS.get(name, [])
    if name in WHOLE_CLUSTER and scan_scope == "cluster":
        return [tip for tip in found if "_policy:" not in tip]
    return found
