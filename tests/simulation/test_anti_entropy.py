"""Replicas that differ and nobody knows: hints were dropped, nobody reads. They meet again."""

from __future__ import annotations

import json

import pytest

from respkv.coordinator.operations import Rest, Steps
from respkv.server import anti_entropy, exchange_calls, exchanges
from respkv.server.exchanges import packed_roots
from respkv.server.node import Node
from respkv.simulation.copies import check_replicas, check_trees, held_record
from respkv.storage.hash_trees import waiting
from respkv.versions import records, vectors
from respkv.versions.records import identity
from tests.simulation.scene import Scene

NO_HINTS = {"max-hints-size": "1", "speculative-retry": "0", "sloppy-quorum": "no"}
PADDING = "." * 40
OFF = {"anti-entropy-interval": "0"}


def both_ways(one: int, other: int) -> list[tuple[int, int]]:
    return [(one, other), (other, one)]


def differ(scene: Scene, count: int = 40) -> None:
    """Node 2 misses writes, overwrites and deletions, and no hint row tells of them."""
    for number in range(count):
        assert scene.ask(0, f"SET k{number} old{PADDING}") == [b"OK"]
    scene.run(1.0)
    scene.cut(*both_ways(0, 2), *both_ways(1, 2))
    scene.run(8.0)
    for number in range(0, count, 2):
        assert scene.ask(0, f"SET k{number} new{PADDING}") == [b"OK"]
    for number in range(0, count, 5):
        assert scene.ask(1, f"DEL k{number}") == [1]
    for number in range(count, count + 5):
        assert scene.ask(1, f"SET k{number} fresh") == [b"OK"]
    scene.run(2.0)
    assert check_replicas(scene.world) != []


def mend(scene: Scene) -> None:
    scene.mend(*both_ways(0, 2), *both_ways(1, 2))
    scene.wait_for_rest()


def lose(node: Node, *keys: str) -> None:
    """A node loses its copy of keys, and nobody hears of it."""
    for key in keys:
        node.store.forget(node.store.partition(key.encode()), key.encode())


def repaired(scene: Scene) -> list[int]:
    return [node.anti_entropy.statistics.keys_repaired_total for _, node in scene.world.nodes()]


def test_a_replica_that_missed_writes_without_hints_is_brought_up_as_soon_as_it_is_back() -> None:
    scene = Scene(nodes=3, directives={**NO_HINTS, "anti-entropy-interval": "600"})
    differ(scene)
    assert scene.node(0).anti_entropy.figures()["pairs_marked"] == 1
    mend(scene)
    scene.run(4.0)
    assert check_replicas(scene.world) == []
    assert sum(repaired(scene)) > 0
    scene.run(6.0)
    assert scene.node(0).anti_entropy.figures()["pairs_marked"] == 0


def test_an_absence_that_fits_between_two_looks_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(nodes=3, directives={"anti-entropy-interval": "600"})
    assert scene.ask(0, "SET k v") == [b"OK"]
    scene.run(3.0)
    monkeypatch.setattr(anti_entropy, "LOOK_S", 30.0)
    scene.run(0.5)
    lose(scene.node(2), "k")
    scene.cut(*both_ways(0, 2), *both_ways(1, 2))
    scene.run(8.0)
    mend(scene)
    monkeypatch.setattr(anti_entropy, "LOOK_S", 0.2)
    scene.run(35.0)
    assert check_replicas(scene.world) == []


def test_an_absence_during_an_exchange_is_not_taken_for_dealt_with(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(nodes=2, directives={"anti-entropy-interval": "600", "read-repair": "off"})
    monkeypatch.setattr(exchanges, "YOUNG_MS", 20_000)
    monkeypatch.setattr("respkv.repair.exchange.YOUNG_MS", 20_000)
    for number in range(30):
        assert scene.ask(0, f"SET k{number} v") == [b"OK"]
    scene.run(1.0)
    lose(scene.node(1), "k1")
    scene.ask(0, f"RESPKV REPAIR NODE {scene.process(1).me[:8]}")
    scene.run(1.0)
    assert scene.node(0).anti_entropy.is_working() or scene.node(1).anti_entropy.is_working()
    # Only one of the two notices: as if the other one had been stopped.
    asking = 0 if scene.node(0).anti_entropy.is_working() else 1
    scene.cut((1 - asking, asking))
    lose(scene.node(1), "k2")
    scene.run(4.0)
    scene.mend((1 - asking, asking))
    scene.run(20.0)
    assert held_record(scene.process(1), b"k1")
    scene.run(22.0)
    assert check_replicas(scene.world) == []


def test_a_process_that_goes_on_leaves_it_to_the_others_to_compare_until_its_links_are_dialled_anew() -> None:
    scene = Scene(nodes=3, directives={**NO_HINTS, "anti-entropy-interval": "600"})
    scene.run(3.0)
    anti_entropy_of_it = scene.node(2).anti_entropy
    for pair in anti_entropy_of_it._pairs.values():
        pair.due, pair.is_marked = scene.world.schedule.now + 1.0, True
    scene.process(2).stop(6.0)
    scene.run(5.0)
    assert scene.ask(0, "SET k v") == [b"OK"]
    scene.run(2.5)
    assert check_replicas(scene.world) == []
    assert anti_entropy_of_it.statistics.failed_total == 0


def test_a_link_that_breaks_is_no_reason_to_wait_longer_for_answers() -> None:
    scene = Scene(nodes=2, directives=OFF, delay_s=(0.2, 0.3))
    scene.ask(0, "RESPKV REPAIR")
    process, asking = next((process, node.anti_entropy) for process, node in scene.world.nodes() if node.anti_entropy.is_working())
    scene.world.network.reset(process, scene.process(1 - process.index))
    scene.run(3.0)
    assert asking.statistics.failed_total == 1
    assert [pair.patience for pair in asking._pairs.values()] == [1]


def test_who_goes_while_an_exchange_rests_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(nodes=2, directives={**OFF, "read-repair": "off"})
    monkeypatch.setattr(exchanges, "YOUNG_MS", 10_000)
    monkeypatch.setattr("respkv.repair.exchange.YOUNG_MS", 10_000)
    assert scene.ask(0, "SET k v") == [b"OK"]
    scene.run(1.0)
    lose(scene.node(1), "k")
    scene.ask(0, "RESPKV REPAIR")
    scene.run(1.0)
    asking = 0 if scene.node(0).anti_entropy.is_working() else 1
    assert scene.node(asking).anti_entropy.is_working()
    scene.process(1 - asking).kill()
    scene.run(10.0)
    assert not scene.node(asking).anti_entropy.is_working()


def test_a_replica_that_hints_bring_up_gives_and_takes_nothing() -> None:
    scene = Scene(nodes=3, directives={"sloppy-quorum": "no", "anti-entropy-interval": "5"})
    differ(scene)
    mend(scene)
    scene.run(12.0)
    assert check_replicas(scene.world) == []
    assert repaired(scene) == [0, 0, 0]
    assert sum(node.anti_entropy.statistics.exchanges_total for _, node in scene.world.nodes()) > 0


def test_one_key_that_differs_is_found_within_one_interval() -> None:
    scene = Scene(nodes=3, directives={"anti-entropy-interval": "10"})
    for number in range(60):
        assert scene.ask(0, f"SET k{number} v") == [b"OK"]
    scene.run(3.0)
    before = [node.anti_entropy.statistics.keys_compared_total for _, node in scene.world.nodes()]
    lose(scene.node(1), "k7")
    scene.run(12.0)
    assert check_replicas(scene.world) == []
    assert held_record(scene.process(1), b"k7")
    compared = [node.anti_entropy.statistics.keys_compared_total for _, node in scene.world.nodes()]
    assert sum(compared) - sum(before) <= 4


def test_nothing_is_compared_by_itself_where_the_interval_is_zero_but_on_request() -> None:
    scene = Scene(nodes=5, directives={**OFF, "sloppy-quorum": "no"})
    for number in range(60):
        assert scene.ask(0, f"SET k{number} v") == [b"OK"]
    scene.run(3.0)
    for process, node in scene.world.nodes():
        lose(node, *(f"k{number}" for number in range(60) if number % 5 == process.index))
    scene.run(30.0)
    assert check_replicas(scene.world) != []
    (told,) = scene.ask(3, "RESPKV REPAIR")
    assert isinstance(told, bytes)
    assert not json.loads(told)["is_done"]
    scene.run(10.0)
    (told,) = scene.ask(3, "RESPKV REPAIR STATUS")
    assert isinstance(told, bytes)
    found = json.loads(told)
    assert found["is_done"]
    assert found["unreached"] == []
    assert found["total"]["failures"] == []
    assert found["total"]["pairs"] == found["total"]["pairs_done"] > 0
    assert found["total"]["keys_repaired"] == sum(repaired(scene)) > 0
    assert check_replicas(scene.world) == []


def test_a_partition_or_a_node_is_compared_alone() -> None:
    scene = Scene(nodes=3, directives=OFF)
    for number in range(30):
        assert scene.ask(0, f"SET k{number} v") == [b"OK"]
    scene.run(3.0)
    lose(scene.node(2), "k1", "k2", "k3")
    partition = scene.node(0).store.partition(b"k2")
    scene.ask(0, f"RESPKV REPAIR PARTITION {partition}")
    scene.run(3.0)
    assert [bool(held_record(scene.process(2), key)) for key in (b"k1", b"k2", b"k3")].count(True) >= 1
    assert held_record(scene.process(2), b"k2")
    scene.ask(0, f"RESPKV REPAIR NODE {scene.process(0).me[:8]}")
    scene.run(3.0)
    assert check_replicas(scene.world) == []
    assert b"no node" in str(scene.ask(0, "RESPKV REPAIR NODE nobody")[0]).encode()


def test_a_replica_that_is_away_is_named_as_not_compared() -> None:
    scene = Scene(nodes=4)
    key = scene.key_of(primary=0, without=3)
    gone, partition = scene.process(3), scene.node(0).store.partition(key.encode())
    gone.kill()
    scene.run(5.0)
    for words, unreached in (("", [gone.me]), (f"NODE {gone.me}", [gone.me]), (f"PARTITION {partition}", []), ("STATUS", [])):
        (told,) = scene.ask(0, f"RESPKV REPAIR {words}")
        assert isinstance(told, bytes)
        assert json.loads(told)["unreached"] == unreached, words


def test_who_asks_for_roots_is_told_to_ask_again_while_the_trees_follow_what_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anti_entropy, "CHANGES_PER_TURN", 0)
    monkeypatch.setattr(exchanges, "CHANGES_PER_STEP", 5)
    monkeypatch.setattr(exchange_calls, "FOLLOWS_S", 0.0)
    scene = Scene(nodes=3, directives=OFF)
    for number in range(60):
        assert scene.ask(0, f"SET k{number} v") == [b"OK"]
    scene.run(1.0)
    assert min(waiting(node.store) for _, node in scene.world.nodes()) == 60
    lose(scene.node(1), "k1", "k2")
    scene.ask(0, "RESPKV REPAIR")
    scene.run(3.0)
    assert check_replicas(scene.world) == []
    (told,) = scene.ask(0, "RESPKV REPAIR STATUS")
    assert isinstance(told, bytes)
    assert json.loads(told)["total"]["failures"] == []


def test_hashes_that_look_like_an_error_are_none() -> None:
    scene = Scene(nodes=3, directives=OFF)
    store, partition = scene.node(1).store, 0
    for number in range(5000):
        assert scene.ask(0, f"SET k{number} v") == [b"OK"]
        partition = store.partition(b"k%d" % number)
        scene.run(0.1)
        store.trees.take_in(store, waiting(store))
        if packed_roots(scene.node(1), [partition]).startswith(b"-"):
            break
    keys = list(store.shards[partition])
    first = min((0, 1, 2), key=lambda index: scene.process(index).me)
    lose(scene.node(first), *map(bytes.decode, keys))
    scene.ask(0, f"RESPKV REPAIR PARTITION {partition}")
    scene.run(3.0)
    assert all(held_record(scene.process(first), key) for key in keys)


def test_records_that_only_tables_hold_are_compared_and_repaired() -> None:
    scene = Scene(nodes=3, directives={**NO_HINTS, "anti-entropy-interval": "5", "maxmemory": "2000"}, memtable_bytes=1 << 12)
    differ(scene, 120)
    for _, node in scene.world.nodes():
        assert not node.store.resident
    mend(scene)
    scene.run(8.0)
    assert check_replicas(scene.world) == []
    assert [node.store.trees.corrected_total for _, node in scene.world.nodes()] == [0, 0, 0]


def test_the_trees_are_right_after_a_restart() -> None:
    scene = Scene(nodes=3, directives={"anti-entropy-interval": "600", "maxmemory": "2000"}, memtable_bytes=1 << 12)
    for number in range(100):
        assert scene.ask(0, f"SET k{number} {'v' * 20}") == [b"OK"]
    for number in range(0, 100, 3):
        scene.ask(1, f"DEL k{number}")
    for index in range(3):
        scene.process(index).kill()
    for index in range(3):
        scene.process(index).restart()
    scene.wait_for_rest()
    scene.run(5.0)
    assert repaired(scene) == [0, 0, 0]
    assert sum(node.anti_entropy.statistics.partitions_differing_total for _, node in scene.world.nodes()) == 0
    assert [node.store.trees.corrected_total for _, node in scene.world.nodes()] == [0, 0, 0]


def test_trees_that_flushall_left_in_the_dark_are_read_anew() -> None:
    scene = Scene(nodes=3, directives={"anti-entropy-interval": "2", "sloppy-quorum": "no", "maxmemory": "2000"}, memtable_bytes=1 << 12)
    for number in range(60):
        assert scene.ask(0, f"SET k{number} old{PADDING}") == [b"OK"]
    scene.run(2.0)
    scene.cut(*both_ways(0, 2), *both_ways(1, 2))
    scene.run(8.0)
    scene.ask(0, "FLUSHALL")
    for number in range(0, 60, 2):
        assert scene.ask(0, f"SET k{number} new{PADDING}") == [b"OK"]
    # It hears of the floor together with what was written above it.
    mend(scene)
    assert any(node.store.trees.spoils_total for _, node in scene.world.nodes())
    scene.run(15.0)
    assert [node.anti_entropy.figures()["tree_partitions_unread"] for _, node in scene.world.nodes()] == [0, 0, 0]
    assert check_trees(scene.world) == []
    assert check_replicas(scene.world) == []
    assert scene.ask(2, "DBSIZE") == [30]


def test_writes_on_their_way_are_no_differences() -> None:
    scene = Scene(nodes=3, directives={**OFF, "sloppy-quorum": "no"}, delay_s=(0.001, 0.02))
    writers = [scene.send(index, *(f"SET hot{number % 7} {number}" for number in range(400))) for index in range(3)]
    for _ in range(4):
        scene.ask(0, "RESPKV REPAIR")
        scene.run(0.5)
    scene.wait_for_rest()
    assert all(reply == b"OK" for writer in writers for reply in scene.replies(writer))
    assert check_replicas(scene.world) == []
    assert repaired(scene) == [0, 0, 0]


def test_siblings_of_both_sides_are_kept() -> None:
    scene = Scene(nodes=3, directives={**NO_HINTS, "anti-entropy-interval": "5"})
    node = scene.node(0)
    assert scene.ask(0, "SET k v") == [b"OK"]
    scene.run(1.0)
    merge_siblings(scene, 0, b"mine")
    merge_siblings(scene, 2, b"other")
    scene.run(8.0)
    assert check_replicas(scene.world) == []
    record = node.store.get(b"k")
    assert b"mine" in record
    assert b"other" in record


def merge_siblings(scene: Scene, index: int, value: bytes) -> None:
    node = scene.node(index)
    new = records.string(value, stamp=node.clock.next(), actor=node.coordinator.actor)
    held = node.store.get(b"k")
    node.store.merge(
        node.store.partition(b"k"), b"k", vectors.successor(held, held, new) if value == b"mine" else vectors.successor(b"", b"", new)
    )


def test_what_a_coordinator_without_a_copy_brought_to_some_replicas_before_it_died() -> None:
    scene = Scene(nodes=4, directives={"write-quorum": "one", "anti-entropy-interval": "5"})
    key = scene.key_of(primary=0, without=3)
    scene.cut((3, 1))
    assert scene.ask(3, f"SET {key} v") == [b"OK"]
    # It dies before it notices that one replica has not answered: nobody has a hint, and its log says nothing.
    scene.process(3).kill()
    scene.mend((3, 1))
    scene.run(0.1)
    assert check_replicas(scene.world) != []
    scene.process(3).restart()
    scene.wait_for_rest()
    scene.run(6.0)
    assert check_replicas(scene.world) == []


def test_a_pair_that_is_marked_again_and_again_is_compared_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(nodes=3, directives={"anti-entropy-interval": "600", "read-repair": "off"})
    assert scene.ask(0, "SET k v") == [b"OK"]
    scene.run(12.0)
    lose(scene.node(2), "k")
    # Somebody always holds hints for one of the two, and others find no room.
    monkeypatch.setattr(anti_entropy.AntiEntropy, "_are_hinted", lambda *_: True)
    for _ in range(40):
        refused = scene.node(0).hints.refused
        refused[scene.process(2).me] = refused.get(scene.process(2).me, 0) + 1
        scene.run(1.0)
    assert check_replicas(scene.world) == []


def test_a_node_without_a_copy_may_be_the_one_that_kept_no_hint() -> None:
    scene = Scene(nodes=4, directives={"replication-factor": "2", "anti-entropy-interval": "600", "read-repair": "off"})
    key = scene.key_of(primary=0, without=1)
    (other,) = (process.index for process in scene.world.primaries(key.encode()) if process.index)
    assert scene.ask(0, f"SET {key} v") == [b"OK"]
    scene.run(12.0)
    scene.node(1).hints.refused[scene.process(other).me] = 5
    lose(scene.node(other), key)
    scene.run(6.0)
    assert check_replicas(scene.world) == []


def test_what_a_node_refused_since_it_was_started_again_is_not_less_than_what_it_refused_before() -> None:
    scene = Scene(nodes=4, directives={"replication-factor": "2", "anti-entropy-interval": "600", "read-repair": "off"})
    key = scene.key_of(primary=0, without=1)
    (other,) = (process.index for process in scene.world.primaries(key.encode()) if process.index)
    assert scene.ask(0, f"SET {key} v") == [b"OK"]
    scene.node(1).hints.refused[scene.process(other).me] = 5
    scene.run(12.0)
    scene.cut(*both_ways(0, 1), *both_ways(2, 1), *both_ways(3, 1))
    scene.process(1).kill()
    scene.process(1).restart()
    scene.run(0.5)
    scene.node(1).hints.refused[scene.process(other).me] = 3
    scene.run(2.0)
    scene.mend(*both_ways(0, 1), *both_ways(2, 1), *both_ways(3, 1))
    lose(scene.node(other), key)
    scene.run(20.0)
    assert check_replicas(scene.world) == []


def test_of_more_young_keys_than_are_kept_none_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "YOUNG_KEPT_MAX", 5)
    scene = Scene(nodes=2, directives={**OFF, "read-repair": "off"})
    scene.ask(0, *(f"SET k{number} v" for number in range(60)))
    scene.run(0.1)
    lose(scene.node(1), *(f"k{number}" for number in range(40)))
    scene.ask(0, f"RESPKV REPAIR NODE {scene.process(1).me[:8]}")
    scene.run(0.2)
    assert any(node.anti_entropy.is_working() for _, node in scene.world.nodes())
    scene.run(20.0)
    assert check_replicas(scene.world) == []


@pytest.mark.parametrize(("slowness", "count"), [(100.0, 120), (1000.0, 30)], ids=["many reads", "long reads"])
def test_a_disk_that_takes_long_is_waited_for(slowness: float, count: int) -> None:
    scene = Scene(nodes=3, directives={**NO_HINTS, "anti-entropy-interval": "600", "maxmemory": "500"}, memtable_bytes=1 << 10)
    differ(scene, count)
    for process, node in scene.world.nodes():
        assert not node.store.resident
        process.disk.slowness, process.disk.sync_s = slowness, (0.0, 0.0)
    scene.mend(*both_ways(0, 2), *both_ways(1, 2))
    scene.run(500.0)
    assert check_replicas(scene.world) == []


def test_a_disk_that_gives_nothing_is_no_bug_of_the_node_that_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "LOAD_S", 0.5)
    scene = Scene(nodes=3, directives={**NO_HINTS, "anti-entropy-interval": "600", "maxmemory": "500"}, memtable_bytes=1 << 10)
    differ(scene, 30)
    for process, _ in scene.world.nodes():
        process.disk.slowness, process.disk.sync_s = 1000.0, (0.0, 0.0)
    scene.mend(*both_ways(0, 2), *both_ways(1, 2))
    scene.run(20.0)
    assert sum(node.anti_entropy.statistics.failed_total for _, node in scene.world.nodes()) > 0
    assert scene.world.problems == []


def test_nodes_under_full_load_that_all_want_each_other_do_not_keep_each_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(node: Node) -> Steps:
        yield Rest(node.context.turn.now + 0.01)
        return b""

    monkeypatch.setattr(exchanges, "step", step)
    monkeypatch.setattr(exchanges, "CHANGES_PER_STEP", 1)
    monkeypatch.setattr(anti_entropy, "CHANGES_PER_TURN", 0)
    scene = Scene(nodes=3, directives={"anti-entropy-interval": "600", "read-repair": "off"})
    keys = [b"k%d" % number for number in range(300)]
    for key in keys:
        assert scene.ask(0, f"SET {key.decode()} v") == [b"OK"]
    scene.run(10.0)
    for _, node in scene.world.nodes():
        node.topology.returns = {peer: count + 1 for peer, count in node.topology.returns.items()}
    # All is written again and again: to follow that takes the trees three seconds.
    for _ in range(1200):
        for _, node in scene.world.nodes():
            for key in keys:
                node.store.changed.setdefault(key, identity(node.store.get(key)))
        scene.run(0.05)
    assert [node.anti_entropy.statistics.exchanges_total for _, node in scene.world.nodes()] == [4, 4, 4]


def test_the_changes_that_trees_are_to_follow_do_not_gather_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anti_entropy, "CHANGES_MAX", 1000)
    node = Scene(nodes=1, directives=OFF).node(0)
    for turn in range(300):
        keys = [b"%d:%d" % (turn, number) for number in range(600)]
        node.store.merge_pairs([word for key in keys for word in (key, records.string(b"v", stamp=turn + 1, actor=bytes(8)))])
        node.anti_entropy.follow(is_idle=False)
    assert waiting(node.store) < 20_000


def test_trees_that_say_nothing_are_read_under_full_load_too(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(nodes=3, directives={"anti-entropy-interval": "2"})
    keys = [b"k%d" % number for number in range(1500)]
    for start in range(0, len(keys), 50):
        scene.ask(0, *(f"SET {key.decode()} v" for key in keys[start : start + 50]))
    scene.run(2.0)
    node = scene.node(1)
    tick = anti_entropy.AntiEntropy.tick

    def write_all_and_tick(self: anti_entropy.AntiEntropy) -> None:
        # Each turn brings more changes than are followed in one.
        for key in keys if self is node.anti_entropy else ():
            node.store.changed.setdefault(key, identity(node.store.get(key)))
        tick(self)

    monkeypatch.setattr(anti_entropy.AntiEntropy, "tick", write_all_and_tick)
    node.store.trees.spoil(range(16))
    scene.run(10.0)
    assert node.anti_entropy.figures()["tree_partitions_unread"] == 0
