"""Values that expire go, also those that left memory long before."""

from __future__ import annotations

from respkv.server.expiry import PAUSE_AFTER_SWEEP_S
from tests.commands.node_alone import World


def test_what_expires_in_the_tables_alone_goes_as_well() -> None:
    world = World(1, tombstone_grace="100000")
    client = world.client()
    for number in range(600):
        client("SET", f"short:{number}", "v" * 10, "PX", 5000)
        client("SET", f"stays:{number}", "v" * 10)
    (process,) = world.processes
    process.flush_to_tables()
    store = process.node.store
    assert not store.resident
    assert not any(store.shards)
    assert client("DBSIZE") == 1200
    world.advance(6.0 + PAUSE_AFTER_SWEEP_S)
    assert client("DBSIZE") == 600
    assert process.node.statistics.expired_keys == 600
    # The tables are told with the next freeze.
    process.flush_to_tables()
    lengths = [len(record) for rows in process.tables.values() for key, record in rows.items() if key.startswith(b"short:")]
    assert len(lengths) == 600
    assert max(lengths) == 34
    # And then nobody looks any more.
    world.advance(2 * PAUSE_AFTER_SWEEP_S)
    before = process.scans_total
    world.advance(3 * PAUSE_AFTER_SWEEP_S)
    assert process.scans_total == before


def test_what_is_still_to_expire_is_looked_for_again() -> None:
    world = World(1, tombstone_grace="100000")
    client = world.client()
    client("SET", "soon", "v", "PX", 1000)
    client("SET", "late", "v", "PX", 100_000)
    (process,) = world.processes
    process.flush_to_tables()
    world.advance(2 * PAUSE_AFTER_SWEEP_S)
    assert client("DBSIZE") == 1
    assert client("GET", "late") == b"v"
    process.flush_to_tables()
    world.advance(100.0 + 2 * PAUSE_AFTER_SWEEP_S)
    assert client("DBSIZE") == 0


def test_without_values_that_expire_nobody_looks() -> None:
    world = World(1, tombstone_grace="100000")
    client = world.client()
    for number in range(100):
        client("SET", f"stays:{number}", "v")
    (process,) = world.processes
    process.flush_to_tables()
    world.advance(2 * PAUSE_AFTER_SWEEP_S)
    assert process.scans_total == 0
