from __future__ import annotations

import pytest

from respkv.commands.info import human
from tests.commands.node_alone import Caller, World

REDIS_FIELDS = (
    "redis_version redis_mode os arch_bits process_id run_id tcp_port uptime_in_seconds uptime_in_days hz config_file executable "
    "connected_clients maxclients blocked_clients tracking_clients used_memory used_memory_human used_memory_rss used_memory_peak "
    "maxmemory maxmemory_policy mem_fragmentation_ratio number_of_cached_scripts loading rdb_changes_since_last_save "
    "rdb_bgsave_in_progress rdb_last_save_time rdb_last_bgsave_status aof_enabled aof_rewrite_in_progress "
    "total_connections_received total_commands_processed instantaneous_ops_per_sec total_net_input_bytes total_net_output_bytes "
    "instantaneous_input_kbps instantaneous_output_kbps rejected_connections expired_keys evicted_keys keyspace_hits "
    "keyspace_misses pubsub_channels pubsub_patterns total_error_replies total_reads_processed total_writes_processed role "
    "connected_slaves master_replid master_repl_offset used_cpu_sys used_cpu_user cluster_enabled "
)


def fields(client: Caller, *sections: str) -> dict[str, str]:
    text = client("INFO", *sections).decode()
    assert text.replace("\r\n", "").count("\n") == 0
    return dict(line.split(":", 1) for line in text.split("\r\n") if line and not line.startswith("#"))


def titles(client: Caller, *sections: str) -> list[str]:
    return [line[2:] for line in client("INFO", *sections).decode().split("\r\n") if line.startswith("#")]


def test_what_dashboards_read_is_there() -> None:
    told = fields(World(1).client())
    assert set(REDIS_FIELDS.split()) <= set(told)
    assert told["redis_mode"] == "cluster"
    assert told["cluster_enabled"] == "1"


def test_sections() -> None:
    client = World(1).client()
    ours = ["Respkv", "Quorum", "Hints", "Repair", "Ring"]
    default = ["Server", "Clients", "Memory", "Persistence", "Stats", "Replication", "CPU", "Modules", "Errorstats", "Cluster", "Keyspace"]
    assert titles(client) == titles(client, "default") == default + ours
    everything = [*default[:8], "Commandstats", "Errorstats", "Latencystats", "Cluster", "Keyspace", *ours]
    assert titles(client, "all") == titles(client, "EVERYTHING") == everything
    assert titles(client, "memory", "Server") == ["Server", "Memory"]
    assert titles(client, "default", "commandstats") == [*default[:8], "Commandstats", "Errorstats", *default[9:], *ours]
    assert client("INFO", "nosuch") == b""


def test_in_resp3_it_is_a_text_for_people() -> None:
    client = World(1).client()
    client("HELLO", "3")
    raw = client.raw("INFO", "cluster")
    assert raw == b"=34\r\ntxt:# Cluster\r\ncluster_enabled:1\r\n\r\n"


@pytest.mark.parametrize("maxmemory", ["0", "1gb"])
def test_memory_is_told_of_the_process_and_of_the_records_in_it(maxmemory: str) -> None:
    world = World(1, maxmemory=maxmemory)
    client = world.client()
    # The peak and the present are read one after the other.
    world.processes[0].node.context.facts.update(rss_bytes=60 << 20, rss_peak_bytes=59 << 20, rss_startup_bytes=40 << 20)
    for number in range(50):
        client("SET", f"key:{number}", "x" * 100)
    world.advance(2.0)
    told = fields(client, "memory")
    assert told["used_memory"] == told["used_memory_rss"] == told["used_memory_peak"] == str(60 << 20)
    assert told["used_memory_peak_perc"] == "100.00%"
    assert told["used_memory_startup"] == str(40 << 20)
    dataset = int(told["used_memory_dataset"])
    assert 50 * 200 < dataset < 50 * 400
    assert told["used_memory_overhead"] == told["mem_not_counted_for_evict"] == str((60 << 20) - dataset)


def test_commands_that_read_and_write_hit_and_miss_as_well() -> None:
    client = World(1).client()
    # Plain GETs are counted for the process.
    client("CONFIG", "RESETSTAT")
    client("SET", "a", "1")
    for words in (("GETEX",), ("GETSET", "2"), ("SET", "3", "GET"), ("GETDEL",)):
        client(words[0], "a", *words[1:])
        client(words[0], f"nosuch:{words[0]}", *words[1:])
    told = fields(client, "stats")
    assert (told["keyspace_hits"], told["keyspace_misses"]) == ("4", "4")


def test_a_command_that_fails_is_a_call_and_one_that_does_not_begin_is_none() -> None:
    client = World(1).client()
    client("CONFIG", "RESETSTAT")
    for line in ("SETEX a 0 x", "SETEX a", "CONFIG SET nosuch 1", "MULTI", "SETEX a 0 x", "EXEC"):
        client(*line.split())
    told = fields(client, "commandstats")
    assert told["cmdstat_setex"].startswith("calls=2,")
    assert told["cmdstat_setex"].endswith("rejected_calls=1,failed_calls=2")
    assert told["cmdstat_config|set"].endswith("rejected_calls=0,failed_calls=1")


@pytest.mark.parametrize("nodes", [1, 3])
def test_commands_errors_hits_and_misses_are_counted(nodes: int) -> None:
    world = World(nodes)
    client = world.client()
    client("CONFIG", "RESETSTAT")
    for _ in range(3):
        client("SET", "a", "1")
    for key in ("a", "a", "b"):
        client("GET", key)
    client("MGET", "a", "b")
    client("INCR", "nosuch", "2")
    client("SET", "text", "x")
    client("INCR", "text")
    world.advance(2.0)
    told = fields(client, "all")
    assert (told["keyspace_hits"], told["keyspace_misses"]) == ("3", "2")
    assert told["cmdstat_set"].startswith("calls=4,")
    assert told["cmdstat_get"].startswith("calls=3,")
    assert told["cmdstat_incr"].endswith("rejected_calls=1,failed_calls=1")
    assert told["errorstat_ERR"] == "count=2"
    assert told["total_error_replies"] == "2"
    assert told["latency_percentiles_usec_set"].startswith("p50=")
    assert int(told["total_commands_processed"]) >= 9
    assert told["db0"] == "keys=2,expires=0,avg_ttl=0"


def test_quorums_hints_and_the_ring_have_their_figures() -> None:
    world = World(5)
    client = world.client()
    for number in range(50):
        client("SET", f"before:{number}", "x")
    world.kill(3)
    world.advance(2.0)
    for number in range(200):
        client("SET", f"after:{number}", "x")
    world.advance(2.0)
    told = fields(client)
    assert (told["respkv_n"], told["respkv_r"], told["respkv_w"]) == ("3", "2", "2")
    assert (told["respkv_sloppy"], told["respkv_overlap"]) == ("yes", "no")
    assert (told["respkv_nodes_up"], told["respkv_nodes_down"]) == ("4", "1")
    assert told["respkv_ring_members"] == "5"
    assert told["respkv_writes"] == "250"
    assert int(told["respkv_hints_outstanding"]) > 50
    assert int(told["respkv_gossip_bytes_sent"]) > 0
    assert told["respkv_broadcast_bytes_sent"] == "0"
    held = [fields(world.client(index), "hints") for index in (0, 1, 2, 4)]
    assert sum(int(each["respkv_hints_held"]) for each in held) == int(told["respkv_hints_outstanding"])
    client("CONFIG", "SET", "sloppy-quorum", "no")
    assert fields(client, "quorum")["respkv_overlap"] == "yes"


def test_bytes_are_shown_as_redis_shows_them() -> None:
    assert [human(count) for count in (0, 1023, 1024, 990_296, 12_304_384, 23 << 30, 5 << 50)] == [
        "0B",
        "1023B",
        "1.00K",
        "967.09K",
        "11.73M",
        "23.00G",
        "5120.00T",
    ]
