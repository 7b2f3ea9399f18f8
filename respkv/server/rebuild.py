"""A node that lacks data it may have acknowledged copies its partitions from their other replicas before it votes. Pure.

That is a node that found its log damaged, one whose directory was emptied, and one that is new: the members of a new
cluster copy nothing from each other and are done at once. And it is a node that the cluster's value marks, because it was away
for too long (see `downtime`) or an operator said so: nothing that it holds may be merged or answered any more.

Rule 1: until it is done the node stores what it is sent, but neither its acknowledgements nor its answers count.
When a partition has been copied, `copying` says.
Rule 2: a marked node starts again, and the start sets aside what the directory holds; a small file remembers for which mark,
so that it is set aside once. When all is copied, the node says so in the cluster's value, and the mark is no more.
Rule 3: a node that found damage marks itself, as soon as it sees that enough of its co-replicas have all that was acknowledged: what is
left of its past may be older than deletions that are forgotten everywhere. Where it never sees that, what is left is merged.
Rule 4: it says that it is done when what it has copied is on the disk: nobody would ever look whether it is there again.
Rule 5: a node that may have been away for too long waits, as if it lacked data, until it has the value of the cluster's majority.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from respkv.config.cluster_value import mark_of
from respkv.server.copying import Copying
from respkv.server.turns import START_AGAIN

if TYPE_CHECKING:
    from respkv.server.node import Node

MARKER_FILE = "complete"
SET_ASIDE_FILE = "set-aside"
REPORT_S = 2.0
JUDGE_S = 0.1
DAMAGE_PATIENCE_S = 3.0


class Rebuild:
    """Copies what this node lacks."""

    __slots__ = (
        "_copying",
        "_is_finishing",
        "_is_leaving",
        "_look_at",
        "_node",
        "_others_have_all_since",
        "_stored_n",
        "is_damaged",
        "is_held",
        "needed",
        "set_aside",
    )

    def __init__(self, node: Node) -> None:
        """Nothing is lacking."""
        self._node = node
        self._copying = Copying(node, low=0, high=0)
        self._stored_n = 0
        self._look_at = 0.0
        self._is_finishing = self._is_leaving = False
        self._others_have_all_since: float | None = None
        self.needed = False
        self.is_damaged = False
        """Whether what this node holds is what damage has left of it."""
        self.is_held = False
        """Whether the node waits to hear if it is marked."""
        self.set_aside = 0
        """The stamp of the mark because of which data was set aside last."""

    @property
    def lacks_data(self) -> bool:
        """Whether what this node holds proves nothing."""
        return self.needed or self.is_held

    @property
    def may_set_aside(self) -> bool:
        """Whether nothing that this node holds may be told to anybody, because it is to be set aside, or that is not known yet."""
        return self.is_held or mark_of(self._node.cluster.value, self._node.me) > self.set_aside

    def begin(self, reason: str, *, is_damaged: bool = False) -> None:
        """From now on this node does not count, until it is rebuilt."""
        self.needed = True
        self.is_damaged = is_damaged
        self._others_have_all_since = None
        self._stored_n = 0
        self._copying.is_over = True
        self._is_finishing = False
        self._show()
        text = f"rebuilding from the other replicas, and not counting until it is done: {reason}"
        self._node.context.turn.events.append(("warning", text))

    def hold(self, reason: str) -> None:
        """This node does not count until it has heard whether it must be rebuilt."""
        self.is_held = True
        self._show()
        self._node.context.turn.events.append(
            ("warning", f"not counting until a majority has told whether this node must be rebuilt: {reason}")
        )

    def tick(self) -> None:
        """Once a turn: copy from those who can be reached, and see whether that was all."""
        node = self._node
        now = node.context.turn.now
        mark = mark_of(node.cluster.value, node.me)
        if mark > self.set_aside:
            if now >= self._look_at:
                self._look_at = now + JUDGE_S
                self._start_again()
            return
        may_finish = not self.is_damaged or bool(mark)
        if not may_finish and now >= self._look_at:
            self._look_at = now + JUDGE_S
            may_finish = not self._is_to_be_marked()
        if self.needed:
            table = node.coordinator.table
            assert table is not None
            if table.stored_n != self._stored_n:
                # A node that has lost everything learns from the others how many replicas there are. While their number rises
                # it copies what it will be read for, too: it may have said that it has that.
                self._stored_n = table.stored_n
                self._copying.is_over = True
                self._copying = Copying(node, low=0, high=table.stored_n)
                self._is_finishing = False
            if self._copying.tick() and may_finish and not self._is_finishing:
                self._is_finishing = True
                node.context.turn.when_durable(partial(self._finish, self._copying))
        if (self.is_held or (mark and not self.needed)) and now >= self._look_at:
            self._look_at = now + JUDGE_S
            if self.is_held:
                self._judge()
            else:
                self._look_at = now + REPORT_S
                node.operations.start(node.cluster.report_rebuilt(self.set_aside), on_done=lambda _: None)

    def next_due(self) -> float | None:
        """When `tick` is to be called again."""
        mark = mark_of(self._node.cluster.value, self._node.me)
        if self.needed and mark <= self.set_aside:
            if self._is_finishing:
                # That all is durable is told in a turn of its own.
                return None
            # What is copied may still have to wait for the judgement.
            return self._look_at if self._copying.is_done else self._copying.next_due()
        return self._look_at if self.is_held or mark else None

    def _start_again(self) -> None:
        """What this node holds is not to be answered from now on; when the mark is on the disk, the next start sets it aside."""
        node = self._node
        if not self.is_held and not self.needed:
            self.hold("it is marked")
        if node.cluster.is_saved() and not self._is_leaving:
            self._is_leaving = True
            node.context.turn.events.append(("warning", "this node must be rebuilt: it starts again, and sets aside what it holds"))
            node.context.stop(START_AGAIN)

    def _judge(self) -> None:
        """Go on as before, if the nodes of a majority have the same value as this one, and there is no mark in it."""
        node = self._node
        usable = node.topology.usable()
        mark = f"{node.cluster.value_mark:016x}"
        agreeing = [peer for peer in usable if peer == node.me or node.membership.application_value(peer, "value_mark") == mark]
        is_told = len(agreeing) == len(usable) and 2 * len(usable) > node.cluster.members_count
        if is_told or not node.settings.max_downtime:
            self.is_held = False
            self._show()
            node.context.turn.events.append(("notice", "nobody wants this node to be rebuilt: it counts"))

    def _is_to_be_marked(self) -> bool:
        """Whether others that are up have all that this node acknowledged. It is marked once they had time to say if they lack data."""
        node = self._node
        now = node.context.turn.now
        if node.downtime.why_not(node.me, among=node.topology.usable()):
            self._others_have_all_since = None
            return False
        if self._others_have_all_since is None:
            self._others_have_all_since = now
        elif now - self._others_have_all_since >= max(DAMAGE_PATIENCE_S, 5 * node.settings.gossip_interval / 1000):
            node.operations.start(node.cluster.mark(node.me), on_done=lambda _: None)
        return True

    def _finish(self, copying: Copying) -> None:
        node = self._node
        if copying.is_over or mark_of(node.cluster.value, node.me) > self.set_aside:
            return
        self.needed = self.is_damaged = False
        self._show()
        node.context.save_file(MARKER_FILE, b"1")
        node.freeze_soon()
        node.context.turn.events.append(("notice", f"complete: {copying.keys_total} records copied from {copying.sources_count()} nodes"))

    def _show(self) -> None:
        """Let everybody know whether this node counts."""
        node = self._node
        node.topology.rebuilding = node.replica.rebuilding = self.lacks_data
        # Nor does it hand on hints, of which it is not known how old they are.
        node.topology.held = self.is_held or self.is_damaged
        node.topology.redraw_due = True
        node.membership.publish("rebuilding", int(self.lacks_data))
