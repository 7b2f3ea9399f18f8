"""Which co-replica this node compares itself with, and when. Pure. How two nodes compare is in `exchanges`.

Rule 1: of each pair one node begins, the one with the lower id; both sides give and take. Either begins if it saw that the other
was away, or knows that records for it got no hint row, or if an operator asks.
Rule 2: a pair compares every `anti-entropy-interval`, and at once when the other is back; but first the hints are delivered, for
they bring a replica up that was away a short while without anybody walking through trees.
Rule 3: one exchange at a time, and the trees follow the writes when there is time, or when too many changes have gathered.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from respkv.commands import published
from respkv.commands.repair import Progress, RepairRequest
from respkv.coordinator.operations import Steps, Until
from respkv.errors import PeerProtocolError
from respkv.server.exchanges import PATIENCE_MAX, Exchange, ExchangeFailedError, NoAnswerError, PeerBusyError, shared_with
from respkv.server.leaves import LeafReader
from respkv.storage.hash_trees import waiting
from respkv.transport import border

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from respkv.coordinator.operations import Call
    from respkv.coordinator.routes import RouteTable
    from respkv.ids import NodeId
    from respkv.server.node import Node
    from respkv.server.rows import Rows

LOOK_S = 0.2
RETURN_S = 0.5
"""After a node is back: a moment for what it is sent at once."""
RETRY_S = 5.0
BUSY_S = 0.5
HINTS_PATIENCE_S = 30.0
CHANGES_MAX = 1 << 17
"""So many keys may have changed before the trees follow, idle or not. Overwriting the same ones costs nothing."""
CHANGES_PER_TURN = 200
EXCESS_SHARE = 32
"""Of what is beyond `CHANGES_MAX` this part is followed in a turn, too: a turn may bring more changes than that, for hours."""
ROWS_PER_STEP = 500
READ_S = 30.0
READINGS_MAX = 10
"""How many times leaves are read that changed meanwhile: where few partitions hold much, a pass without any change never comes."""
_encode = msgspec.msgpack.Encoder().encode
_decode_request = border.reader(RepairRequest)


@dataclass(slots=True)
class AntiEntropyStatistics:
    """Counters since the start of the process."""

    exchanges_total: int = 0
    failed_total: int = 0
    partitions_differing_total: int = 0
    keys_compared_total: int = 0
    keys_repaired_total: int = 0
    """Records that this node lacked and was given."""
    keys_given_total: int = 0
    bytes_total: int = 0
    completed_at_ms: dict[NodeId, int] = field(default_factory=dict)
    """When the last exchange with each node ended, in unix milliseconds, whoever began it."""


class _Pair:
    """This node and a co-replica."""

    __slots__ = ("due", "is_back", "is_marked", "is_usable", "not_before", "patience", "refused", "returns")

    def __init__(self, due: float) -> None:
        self.due = due
        self.not_before = 0.0
        """It was busy."""
        self.patience = 1
        """How many times as long as usual its answers are waited for."""
        self.is_usable = False
        self.is_back = False
        """Whether the other was away, and was not compared with since. It may not know itself: a process that was stopped."""
        self.returns = -1
        """How many times it had come back when it was looked at last; -1 if it never was."""
        self.is_marked = False
        """Whether records for the other got no hint row."""
        self.refused: dict[NodeId, int] = {}
        """How many of them each node told of when it was looked at last."""


class AntiEntropy:
    """The exchanges of a node."""

    __slots__ = (
        "_exchange",
        "_heals",
        "_is_wanted",
        "_look_at",
        "_node",
        "_pairs",
        "_progress",
        "_table",
        "_wanted",
        "leaves",
        "statistics",
    )

    def __init__(self, node: Node) -> None:
        """Nobody is known yet."""
        self._node = node
        self._pairs: dict[NodeId, _Pair] = {}
        self._table: RouteTable | None = None
        """What the pairs were drawn from."""
        self._exchange: Exchange | None = None
        self._is_wanted = False
        """Whether an operator asked for the one that is under way."""
        self._heals = False
        self._look_at = 0.0
        self._wanted: deque[tuple[NodeId, int | None]] = deque()
        """What an operator asked for."""
        self._progress = Progress()
        self.leaves = LeafReader(node)
        self.statistics = AntiEntropyStatistics()
        node.context.repair_figures = self.figures

    def follow(self, *, is_idle: bool) -> None:
        """Once a turn: let the hash trees follow some of the changes."""
        store = self._node.store
        count = waiting(store)
        if count and (is_idle or count > CHANGES_MAX):
            store.trees.take_in(store, CHANGES_PER_TURN + max(count - CHANGES_MAX, 0) // EXCESS_SHARE)

    def tick(self) -> None:
        """Once a turn: begin an exchange, if one is due."""
        now = self._node.context.turn.now
        if now < self._look_at:
            return
        if now - self._look_at > RETURN_S:
            # This process was stopped. The others dial their links to it anew, and until then no answer arrives.
            for pair in self._pairs.values():
                pair.not_before = now + RETURN_S
        self._look_at = now + LOOK_S
        self._look_at_pairs(now)
        if self._node.store.trees.spoilt:
            self._heal()
        elif self._exchange is None:
            self._begin_next(now)

    def next_due(self) -> float | None:
        """When `tick` is to be called again."""
        node = self._node
        if waiting(node.store) > CHANGES_MAX:
            return node.context.turn.now
        return self._look_at if self._pairs else None

    def is_working(self) -> bool:
        """Whether an exchange that this node began is under way."""
        return self._exchange is not None

    def is_busy_for(self, peer: NodeId) -> bool:
        """Whether a node that wants to compare itself with this one has to wait. Of two that want each other the lower id begins."""
        exchange = self._exchange
        return exchange is not None and (exchange.has_begun or (exchange.peer == peer and self._node.me < peer))

    def figures(self) -> dict[str, int | str]:
        """What INFO tells."""
        counted, store = self.statistics, self._node.store
        told: dict[str, int | str] = {
            "exchanges": counted.exchanges_total,
            "exchanges_failed": counted.failed_total,
            "exchange_bytes": counted.bytes_total,
            "partitions_differed": counted.partitions_differing_total,
            "keys_compared": counted.keys_compared_total,
            "keys_repaired": counted.keys_repaired_total,
            "keys_given": counted.keys_given_total,
            "pairs": len(self._pairs),
            "pairs_marked": sum(pair.is_marked for pair in self._pairs.values()),
            "tree_changes_waiting": waiting(store),
            "tree_leaves_corrected": store.trees.corrected_total,
            "tree_partitions_unread": len(store.trees.spoilt),
            "pace_bytes_per_second": int(self._node.pulse.pace_now().rate),
            "foreground_p99_usec": self._node.pulse.foreground.recent_us,
            "foreground_usual_p99_usec": int(self._node.pulse.foreground.usual_us),
        }
        for peer in sorted(self._pairs):
            told[f"compared_with_{peer[: published.ID_DIGITS]}_unix_ms"] = counted.completed_at_ms.get(peer, 0)
        return told | self._node.reaping.figures()

    # --- whom and when

    def _look_at_pairs(self, now: float) -> None:
        node = self._node
        table = node.coordinator.table
        assert table is not None
        interval = node.settings.anti_entropy_interval
        if self._table is None or table.ring is not self._table.ring or table.n != self._table.n:
            peers = {peer for partition, holds in enumerate(table.holds) if holds for peer in table.primaries(partition)} - {node.me}
            self._pairs = {peer: self._pairs.get(peer) or _Pair(now + node.context.rng.uniform(0.0, interval)) for peer in sorted(peers)}
        self._table = table
        usable = node.topology.usable()
        # Not only of co-replicas: any node may have brought a write to one of the two, and kept no hint for the other.
        others = {member.node for member in table.ring.members} - {node.me}
        told = {other: published.decode_hints(node.membership.application_value(other, published.REFUSED)) for other in sorted(others)}
        for peer, pair in self._pairs.items():
            returns = node.topology.returns.get(peer, 0)
            if returns != pair.returns:
                pair.returns = returns
                pair.is_back = True
                pair.due = min(pair.due, now + RETURN_S)
            pair.is_usable = peer in usable
            pair.due = min(pair.due, now + max(interval, RETRY_S))
            self._look_for_refused(peer, pair, told)

    def _look_for_refused(self, peer: NodeId, pair: _Pair, told: Mapping[NodeId, Mapping[str, int]]) -> None:
        """Mark the pair if any node has refused a hint row for the other since it was looked at last."""
        node = self._node
        found = {other: counts.get(peer[: published.ID_DIGITS], 0) for other, counts in told.items()}
        found[node.me] = node.hints.refused.get(peer, 0)
        # Not only if it is more: a node that was started again counts from zero.
        if any(count and count != pair.refused.get(other, 0) for other, count in found.items()):
            pair.is_marked = True
            pair.due = min(pair.due, node.context.turn.now)
        pair.refused = found

    def _is_able(self, peer: NodeId) -> bool:
        return not self._obstacle(peer)

    def _obstacle(self, peer: NodeId) -> str:
        """Why this node is not compared with another one now."""
        node = self._node
        pair = self._pairs.get(peer)
        if node.topology.rebuilding:
            return f"{node.me[:8]} lacks data and is being rebuilt"
        if node.replica.writes_disabled:
            return f"{node.me[:8]} stores no writes: {node.replica.writes_disabled}"
        if pair is None or not pair.is_usable:
            return f"{peer[:8]} cannot be reached"
        return f"{peer[:8]} lacks data and is being rebuilt" if node.topology.lacks_data(peer) else ""

    def _begin_next(self, now: float) -> None:
        node = self._node
        if self._wanted:
            peer, partition = self._wanted.popleft()
            if self._is_able(peer) and self._pairs[peer].not_before > now:
                self._wanted.append((peer, partition))
            elif self._is_able(peer):
                self._begin(peer, partition, is_wanted=True)
            else:
                self._progress.pairs_done += 1
                self._progress.failures.append(f"{node.me[:8]} and {peer[:8]}: {self._obstacle(peer)}")
            return
        if not node.settings.anti_entropy_interval:
            return
        for peer, pair in sorted(self._pairs.items(), key=lambda item: item[1].due):
            is_mine = node.me < peer or pair.is_marked or pair.is_back
            if not is_mine or max(pair.due, pair.not_before) > now or not self._is_able(peer):
                continue
            if not self._are_hinted(node.me, peer) or now - pair.due > HINTS_PATIENCE_S:
                self._begin(peer, None, is_wanted=False)
                return

    def _are_hinted(self, *pair: NodeId) -> bool:
        """Whether any node that can be heard holds hints for one of the two."""
        node = self._node
        members = [member.node for member in node.cluster.ring.members]
        held = published.hints_outstanding(members, me=node.me, membership=node.membership, hints=node.hints)
        return not held.keys().isdisjoint(pair)

    # --- one exchange

    def _begin(self, peer: NodeId, partition: int | None, *, is_wanted: bool) -> None:
        exchange = self._exchange = Exchange(self._node, peer, partition=partition, patience=self._pairs[peer].patience)
        self._is_wanted = is_wanted
        self._node.operations.start(self._run(exchange, is_whole=partition is None), on_done=lambda _: self._ended(exchange))

    def _ended(self, exchange: Exchange) -> None:
        """Only a bug ends an exchange that is still under way here: the next one must not wait for it."""
        if self._exchange is exchange:
            self._exchange = None
            if self._is_wanted:
                self._progress.pairs_done += 1
                self._progress.failures.append(f"{self._node.me[:8]} and {exchange.peer[:8]}: internal error")

    def _run(self, exchange: Exchange, *, is_whole: bool) -> Steps:
        node, pair = self._node, self._pairs[exchange.peer]
        refused, returns = dict(pair.refused), node.topology.returns.get(exchange.peer, 0)
        failure = ""
        try:
            yield from exchange.steps()
            yield from exchange.tell_end()
        except PeerBusyError:
            self._postpone(exchange)
            return b""
        except (ExchangeFailedError, PeerProtocolError) as error:
            failure = str(error)
            pair.patience = min(2 * pair.patience, PATIENCE_MAX) if isinstance(error, NoAnswerError) else pair.patience
        else:
            pair.patience = 1
        self._exchange = None
        self._count(exchange)
        now, interval = node.context.turn.now, node.settings.anti_entropy_interval
        if failure:
            self.statistics.failed_total += 1
            pair.due = now + RETRY_S
            node.context.turn.events.append(("verbose", f"comparing with {exchange.peer[:8]} ended early: {failure}"))
        elif is_whole:
            pair.is_marked = pair.is_marked and pair.refused != refused
            pair.is_back = pair.is_back and pair.returns != returns
            pair.due = now + interval * node.context.rng.uniform(0.9, 1.1) if interval else math.inf
            if pair.is_marked or pair.is_back:
                # It missed something while the two were at it.
                pair.due = now + RETURN_S
            self.completed_with(exchange.peer)
        if self._is_wanted:
            self._add_up(self._progress, exchange)
            self._progress.pairs_done += 1
            if failure:
                self._progress.failures.append(f"{node.me[:8]} and {exchange.peer[:8]}: {failure}")
        if exchange.keys_given or exchange.keys_taken:
            text = f"compared with {exchange.peer[:8]}: gave it {exchange.keys_given} records that it lacked, took {exchange.keys_taken}"
            node.context.turn.events.append(("notice", text))
        return b""

    def _postpone(self, exchange: Exchange) -> None:
        """The other one is busy."""
        node = self._node
        self._exchange = None
        if self._is_wanted:
            self._wanted.append((exchange.peer, exchange.only))
        pair = self._pairs.get(exchange.peer)
        if pair is not None:
            pair.not_before = node.context.turn.now + node.context.rng.uniform(BUSY_S, 2 * BUSY_S)

    def _count(self, exchange: Exchange) -> None:
        statistics = self.statistics
        statistics.exchanges_total += 1
        statistics.partitions_differing_total += exchange.partitions_count
        statistics.keys_compared_total += exchange.keys_compared
        statistics.keys_repaired_total += exchange.keys_taken
        statistics.keys_given_total += exchange.keys_given
        statistics.bytes_total += exchange.bytes_total

    def completed_with(self, peer: NodeId) -> None:
        """An exchange with a node has ended well."""
        self.statistics.completed_at_ms[peer] = self._node.context.turn.wall_ms

    # --- trees that say nothing

    def _heal(self) -> None:
        """Read what the trees cannot tell of, once nothing is to be swept any more."""
        node = self._node
        if not self._heals and self._exchange is None and node.flush.next_due() is None and node.store.counting is None:
            self._heals = True
            node.operations.start(self._read_spoilt(), on_done=lambda _: None)

    def _read_spoilt(self) -> Steps:
        node = self._node
        trees = node.store.trees
        spoils, spoilt = trees.spoils_total, sorted(trees.spoilt)
        try:
            for partition in spoilt:
                if (yield from self._is_read(partition)) and trees.spoils_total == spoils:
                    trees.spoilt.discard(partition)
        finally:
            self._heals = False
        return b""

    def _is_read(self, partition: int) -> Generator[Until, bool, bool]:
        """Read all leaves of a partition. Returns whether each is known to be right."""
        node = self._node
        count = 1 << node.store.trees.leaf_bits
        held = max(node.store.live[partition], len(node.store.shards[partition]), 1)
        span = min(max(count * ROWS_PER_STEP // held, 1), count)
        for first in range(0, count, span):
            for _ in range(READINGS_MAX):
                judged: list[bool] = []
                self.leaves.read(partition, first, min(first + span, count), partial(_note_judged, judged))
                if (yield Until(partial(bool, judged), node.context.turn.now + READ_S)) and judged[0]:
                    break
            else:
                return False
        return True

    # --- what an operator asks for

    def repair(self, call: Call) -> None:
        """The call "repair": begin to compare this node with its co-replicas now. The answer tells how far it is."""
        request = _decode_request(call.argument)
        node = self._node
        if self._progress.pairs_done >= self._progress.pairs:
            self._progress = Progress()
        for peer in self._pairs:
            is_asked = request.node in {None, node.me, peer} and shared_with(node, peer, request.partition)
            if node.me < peer and is_asked and (peer, request.partition) not in self._wanted:
                self._wanted.append((peer, request.partition))
                self._progress.pairs += 1
        self._look_at = node.context.turn.now
        self.tell_progress(call)

    def tell_progress(self, call: Call) -> None:
        """The call "repair-progress"."""
        told = msgspec.structs.replace(self._progress, failures=list(self._progress.failures))
        if self._exchange is not None and self._is_wanted:
            self._add_up(told, self._exchange)
        call.answer(_encode(told))

    @staticmethod
    def _add_up(progress: Progress, exchange: Exchange) -> None:
        progress.partitions_compared += exchange.partitions_compared
        progress.partitions_differing += exchange.partitions_count
        progress.partitions_done += exchange.partitions_done
        progress.keys_compared += exchange.keys_compared
        progress.keys_repaired += exchange.keys_given + exchange.keys_taken
        progress.bytes += exchange.bytes_total


def _note_judged(judged: list[bool], _rows: Rows, is_judged: bool) -> None:  # noqa: FBT001 - as `Then` is called
    judged.append(is_judged)
