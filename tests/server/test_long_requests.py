"""What is too long for a link harms nobody but who asked for it, and mostly not even them."""

from __future__ import annotations

import msgspec
import pytest

from respkv.coordinator.recent_writes import NOT_AT_ALL
from respkv.repair.handoff import REST_BEFORE_UNSENDABLE_S
from respkv.server import turns
from respkv.transport import frames
from respkv.transport.bounds import SECTION_BYTES_MAX
from respkv.versions.records import pack_stamp, string
from tests.commands.harness import World, packed

MB = 1_000_000
VALUE = b"x" * MB
PEER_FRAME_BYTES_MAX = (4 << 20) + (64 << 20)


class Links(World):
    """Nodes whose links refuse what real ones refuse."""

    longest = 0

    def _send(self, source: int, target: int, frame: bytes) -> None:
        self.longest = max(self.longest, len(frame))
        assert len(frame) <= PEER_FRAME_BYTES_MAX, f"the link from {source} to {target} breaks"
        super()._send(source, target, frame)


def hold(world: World, count: int) -> None:
    """All nodes have `{t}0`, `{t}1`, ... of 1 MB."""
    for node in world.nodes:
        node.store.merge_pairs([word for number in range(count) for word in (b"{t}%d" % number, string(VALUE, stamp=1, actor=b"a" * 8))])


def mget(count: int) -> list[bytes]:
    return [b"MGET", *(b"{t}%d" % number for number in range(count))]


def test_an_mget_of_more_than_a_frame_is_answered_in_parts() -> None:
    world = Links(3, proto_max_bulk_len="1mb")
    hold(world, 80)
    assert [len(world.connect(index).ask(mget(80))) for index in range(3)] == [5 + 80 * (MB + 12)] * 3
    assert [node.coordinator.statistics.reads_total for node in world.nodes] == [80] * 3
    assert world.longest <= SECTION_BYTES_MAX + 2 * MB


@pytest.mark.parametrize("nodes", [3, 5])
def test_an_mget_whose_keys_are_more_than_a_frame_is_asked_for_in_parts(nodes: int) -> None:
    world = Links(nodes, proto_max_bulk_len="1mb", read_quorum="all" if nodes == 5 else "quorum")
    keys = [b"{t}%d" % number + b"k" * 60_000 for number in range(1200)]
    for index in range(nodes):
        assert world.connect(index).ask([b"MGET", *keys]) == b"*1200\r\n" + b"$-1\r\n" * 1200
    assert 20 * MB < world.longest <= SECTION_BYTES_MAX + MB


def test_an_mget_whose_keys_are_more_than_may_wait_is_refused_and_others_of_its_turn_are_answered() -> None:
    world = Links(3, proto_max_bulk_len="1mb", peer_queue_limit="48mb", request_timeout="300")
    greedy, modest = world.connect(0), world.connect(0)
    modest.ask("SET {t}small v")
    for target in (1, 2):
        world.arrive(0, (turns.PEER_BACKLOG, world.nodes[target].me, 30 << 20))
    keys = [b"{t}%d" % number + b"k" * 60_000 for number in range(600)]
    commands = ((greedy, packed([b"MGET", *keys])), (modest, packed("GET {t}small")))
    world.arrive(0, *((turns.CLIENT_DATA, client.client_id, command) for client, command in commands))
    assert greedy.replies(1).startswith(b"-BUSY what was asked for is more than may wait for one node (peer-queue-limit)")
    assert modest.replies(1) == b"$1\r\nv\r\n"


def test_who_asks_for_more_than_may_wait_for_a_node_hears_so_and_others_of_its_turn_are_answered() -> None:
    world = Links(3, proto_max_bulk_len="1mb", peer_queue_limit="48mb", request_timeout="300")
    hold(world, 80)
    greedy, modest, cautious = world.connect(0), world.connect(0), world.connect(0)
    modest.ask("SET {t}small v")
    for source, target in ((1, 0), (2, 0)):
        world.arrive(source, (turns.PEER_BACKLOG, world.nodes[target].me, 30 << 20))
    commands = ((greedy, packed(mget(80))), (modest, packed("GET {t}small")), (cautious, packed(mget(2))))
    world.arrive(0, *((turns.CLIENT_DATA, client.client_id, command) for client, command in commands))
    assert greedy.replies(1).startswith(b"-BUSY what was asked for is more than may wait for one node (peer-queue-limit)")
    assert modest.replies(1) == b"$1\r\nv\r\n"
    assert len(cautious.replies(1)) > 2 * MB


def test_an_mset_of_more_than_a_frame_goes_out_in_parts() -> None:
    world = Links(3, proto_max_bulk_len="1mb", client_query_buffer_limit="256mb")
    client = world.connect()
    words = [b"MSET", *(word for number in range(90) for word in (b"{t}%d" % number, VALUE))]
    assert client.ask(words) == b"+OK\r\n"
    world.run(1.0)
    assert [len(node.store.get(b"{t}89")) > MB for node in world.nodes] == [True] * 3
    assert world.longest <= SECTION_BYTES_MAX + 2 * MB


def test_a_write_for_which_there_is_no_room_becomes_a_hint_and_the_link_lives() -> None:
    world = Links(3, proto_max_bulk_len="1mb", peer_queue_limit="48mb")
    client = world.connect()
    peer = world.nodes[1].me
    world.arrive(0, (turns.PEER_BACKLOG, peer, 47 << 20))
    assert client.ask([b"SET", b"k", VALUE]) == b"+OK\r\n"
    assert list(world.nodes[0].hints.rows) == [peer]
    world.arrive(0, (turns.PEER_BACKLOG, peer, 0))
    world.run(2.0)
    assert not world.nodes[0].hints.rows
    assert len(world.nodes[1].store.get(b"k")) > MB


def test_siblings_that_together_could_not_be_sent_are_refused_until_they_are_resolved() -> None:
    world = Links(3, proto_max_bulk_len="1mb", conflict_resolution="siblings", read_quorum="2", write_quorum="2", max_siblings="1000")
    clients = [world.connect(index % 2) for index in range(20)]
    for client in clients:
        client.ask("GET k")
    replies = [client.ask([b"SET", b"k", VALUE]) for client in clients]
    assert replies[0] == b"+OK\r\n"
    assert replies[-1].startswith(b"-TOOMANYSIBLINGS the key has siblings of 17 MB together")
    reader = world.connect(2)
    reader.ask("GET k")
    assert reader.ask([b"SET", b"k", VALUE]) == b"+OK\r\n"


@pytest.mark.parametrize("size", [PEER_FRAME_BYTES_MAX, PEER_FRAME_BYTES_MAX // 2 + MB], ids=["a frame", "a queue"])
def test_a_hint_that_does_not_fit_is_tried_seldom_and_keeps_no_other_waiting(size: int) -> None:
    world = Links(3, proto_max_bulk_len="1mb", peer_queue_limit="1mb")
    node, owner = world.nodes[0], world.nodes[1]
    long = pack_stamp(1 << 40) + b"a" * 8 + b"\x01s" + b"x" * size
    short = string(b"v", stamp=1 << 40, actor=b"a" * 8)
    for key, record in ((b"long", long), (b"longer", long), (b"short", short)):
        node.store.merge_pairs([key, record])
        node.hints.add(owner.me, [key, record], world.now)
    world.arrive(0)
    world.run(3.0)
    assert owner.store.get(b"short") == short
    assert sorted(node.hints.rows[owner.me]) == [b"long", b"longer"]
    assert (node.handoff.next_due() or 0.0) > world.now + REST_BEFORE_UNSENDABLE_S - 5.0


def test_a_hint_stays_when_its_owner_says_that_the_write_came_too_late() -> None:
    world = World(3)
    node, owner = world.nodes[0], world.nodes[1].me
    pairs = [b"k", string(b"v", stamp=1 << 40, actor=b"a" * 8)]
    header = frames.pack_header(node.clock.last, node.cluster.ring.epoch, node.cluster.value_mark)
    node.store.merge_pairs(pairs)
    node.hints.add(owner, pairs, world.now)
    for held_us, rows in ((NOT_AT_ALL, {b"k"}), (5, set())):
        node.handoff.expect(owner, 77, pairs)
        body = msgspec.msgpack.encode([node.clock.last, 0, held_us, 0])
        world.arrive(0, (turns.PEER_FRAME, owner, header + frames.pack_section(frames.WRITE_ACK_NEWER, 77, body)))
        assert set(node.hints.rows.get(owner, ())) == rows


def test_a_node_that_lost_everything_gets_back_a_partition_of_more_than_a_frame() -> None:
    world = Links(3, proto_max_bulk_len="1mb")
    hold(world, 80)
    node = world.nodes[1]
    held = [dict(shard) for shard in node.store.shards]
    for shard in node.store.shards:
        shard.clear()
    node.rebuild.begin("the test took its data away")
    world.longest = 0
    world.run(20.0)
    assert not node.rebuild.needed
    assert node.store.shards == held
    assert world.longest < 2 * MB


def test_what_waited_for_a_link_that_broke_takes_no_room_on_the_next_one() -> None:
    world = World(3)
    node, peer, other = world.nodes[0], world.nodes[1].me, world.nodes[2].me
    turn = node.context.turn
    for each in (peer, other):
        node.framing.unanswered[each] = world.now
        turn.sections[each].append(frames.pack_section(frames.WRITE_ACK, 0, msgspec.msgpack.encode([])))
    assert turn.make_room(peer, turn.long_bytes_max)
    world.arrive(0, (turns.PEER_CLOSED, peer, "reset"), (turns.PEER_OPENED, peer))
    assert other in turn.sections
    assert turn.make_room(peer, turn.long_bytes_max)


def test_a_long_value_that_expires_on_its_way_is_delivered() -> None:
    world = World(3)
    node, owner = world.nodes[0], world.nodes[1].me
    pairs = [b"k", string(VALUE, stamp=1, actor=b"a" * 8, expire_at_ms=1000)]
    node.store.merge_pairs(pairs)
    node.hints.add(owner, pairs, world.now)
    node.handoff.expect(owner, 77, pairs)
    node.store.expire_keys([b"k"], 1000)
    node.handoff.on_ack(owner, [77])
    assert not node.hints.rows


@pytest.mark.parametrize("holder", [0, 1])
def test_a_record_that_fits_into_no_frame_keeps_no_other_from_being_repaired(holder: int) -> None:
    world = Links(2, proto_max_bulk_len="1mb", peer_queue_limit="1mb", anti_entropy_interval="0")
    node, other = world.nodes[holder], world.nodes[1 - holder]
    long = pack_stamp(1 << 40) + b"a" * 8 + b"\x01s" + b"x" * (PEER_FRAME_BYTES_MAX // 2 + MB)
    short = string(b"v", stamp=1 << 40, actor=b"a" * 8)
    keys = [b"k%d" % number for number in range(40)]
    node.store.merge_pairs([b"long", long])
    node.store.merge_pairs([word for key in keys for word in (key, short)])
    world.run(3.0)
    client = world.connect(0)
    client.ask("RESPKV REPAIR")
    world.run(5.0)
    assert [key for key in keys if other.store.get(key) != short] == []
    assert b'"is_done":true' in client.ask("RESPKV REPAIR STATUS").replace(b" ", b"")


def test_a_record_that_fits_into_no_frame_keeps_nobody_from_being_rebuilt() -> None:
    world = Links(3, proto_max_bulk_len="1mb", peer_queue_limit="1mb", anti_entropy_interval="0")
    long = pack_stamp(1 << 40) + b"a" * 8 + b"\x01s" + b"x" * (PEER_FRAME_BYTES_MAX // 2 + MB)
    short = string(b"v", stamp=1 << 40, actor=b"a" * 8)
    keys = [b"k%d" % number for number in range(40)]
    for node in (world.nodes[0], world.nodes[2]):
        node.store.merge_pairs([b"long", long])
        node.store.merge_pairs([word for key in keys for word in (key, short)])
    world.nodes[1].rebuild.begin("the test took its data away")
    world.run(10.0)
    assert not world.nodes[1].rebuild.needed
    assert [key for key in keys if world.nodes[1].store.get(key) != short] == []
    assert any("too long to be sent" in sentence for _, sentence in world.events)
