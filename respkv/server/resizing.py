"""This node's part in a change of `replication-factor` on a ring that holds data. Pure.

The stages are those of `config.replication`; what moves, `copying` moves. Every node publishes how far it is: the name of
the change, the stage, and a percentage or "done". The live node with the lowest id takes the cluster to the next stage.

Rule 1: a node's work of a stage counts only if it began when all members knew of the stage: a node that did not know may have
had writes acknowledged by the old rule, which nobody sends to the added replicas. A member that is away is waited for.
Rule 2: what is done is on the disk before it is said, and a small file says it again after a restart.
Rule 3: a change of which not all members had heard may be overruled by another, as after a cut. What it brought to nodes that are
no replicas is handed on and dropped once all is calm: until then no deletion of these keys goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.commands.published import DONE, RESIZE, stage_name, stage_of
from respkv.config.cluster_value import marked_nodes, next_stage
from respkv.config.replication import DROPPING, PREPARING, SWITCHED
from respkv.server.copying import Copying, HandingOn

if TYPE_CHECKING:
    from respkv.config.replication import Resize
    from respkv.coordinator.operations import Steps
    from respkv.ids import NodeId
    from respkv.server.node import Node

DONE_FILE = "resized"
OVERRULED = " overruled"
LOOK_S = 0.1


class Resizing:
    """Copies what this node is to hold, hands on what it is not, and sees to it that the change comes to its end."""

    __slots__ = ("_advancing", "_done", "_look_at", "_node", "_overruled", "_stage", "_was_known", "_work")

    def __init__(self, node: Node) -> None:
        """Nothing changes."""
        self._node = node
        self._stage = ""
        """The change and the stage that this node works on."""
        self._done = ""
        """The change and the stage that it has done its part of."""
        self._overruled = False
        """Whether it may hold what a change that was overruled has left."""
        self._work: Copying | HandingOn | None = None
        self._was_known = False
        """Whether all members knew of the stage when the present work began."""
        self._look_at = 0.0
        self._advancing = False

    def restore(self, done: bytes) -> None:
        """What this node had done before it was started again."""
        text = done.decode("ascii", "replace")
        self._done, self._overruled = text.removesuffix(OVERRULED), text.endswith(OVERRULED)

    def next_due(self) -> float | None:
        """When `tick` is to be called again."""
        return self._look_at if self._node.cluster.value.resize is not None or self._overruled else None

    def tick(self) -> None:
        """Once a turn."""
        node = self._node
        now, resize = node.context.turn.now, node.cluster.value.resize
        if resize is None:
            if self._stage:
                self._leave_for("")
                node.topology.dropping = False
                node.topology.redraw_due = True
                node.membership.publish(RESIZE, "")
                node.context.turn.events.append(("notice", "the change of replication-factor has come to its end"))
            if self._overruled and now >= self._look_at:
                self._look_at = now + LOOK_S
                self._drop_what_is_left()
            return
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        name = stage_name(resize)
        if name != self._stage:
            self._leave_for(name)
        if self._done != name:
            self._carry_on(resize)
        elif resize.stage == DROPPING:
            self._refuse_what_is_dropped()
        how_far = DONE if self._done == name else str(self._percent())
        node.membership.publish(RESIZE, f"{name}.{how_far}")
        self._lead(resize)

    def _begin(self, stage: str, work: Copying | HandingOn | None) -> None:
        if self._work is not None:
            self._work.is_over = True
        self._stage, self._work = stage, work

    def _leave_for(self, stage: str) -> None:
        """Go on to another stage, or to none. Only of a change that nobody knew of who overruled it is the first stage the last."""
        change, _, number = self._stage.rpartition(".")
        if number == str(PREPARING) and stage.rpartition(".")[0] != change:
            self._overruled = True
            self._save()
        self._begin(stage, None)

    def _drop_what_is_left(self) -> None:
        """Hand on what this node is no replica of, and drop it; not what it holds for another one."""
        node = self._node
        if node.reaping.unrest:
            self._begin("", None)
        elif self._work is None:
            self._begin("", HandingOn(node, low=node.coordinator.quorum.n, high=node.cluster.members_count, drops=True))
        elif self._work_is_done():
            self._overruled = False
            self._save()
            self._begin("", None)

    def _save(self) -> None:
        self._node.context.save_file(DONE_FILE, f"{self._done}{OVERRULED if self._overruled else ''}".encode())

    def _percent(self) -> int:
        return 0 if self._work is None else min(self._work.percent(), 99)

    def _carry_on(self, resize: Resize) -> None:
        """Work on the present stage."""
        node = self._node
        if node.rebuild.lacks_data:
            return
        if resize.stage == SWITCHED:
            self._done = self._stage
            return
        known = self._all_know(resize)
        if resize.stage == DROPPING:
            if not known and not node.topology.dropping:
                return
            # Nobody sends any more what is dropped now.
            self._refuse_what_is_dropped()
        if self._work is None or (self._work_is_done() and known and not self._was_known):
            self._was_known = known
            self._begin(self._stage, self._new_work(resize))
        if self._was_known and self._work_is_done():
            self._say_done()

    def _refuse_what_is_dropped(self) -> None:
        topology = self._node.topology
        if not topology.dropping:
            topology.dropping = True
            topology.redraw()

    def _work_is_done(self) -> bool:
        return self._work is not None and self._work.tick()

    def _new_work(self, resize: Resize) -> Copying | HandingOn:
        node = self._node
        n, members = node.settings.replication_factor, node.cluster.members_count
        old_n, new_n = min(resize.old_n, members), min(n, members)
        if new_n > old_n:
            return Copying(node, low=old_n, high=new_n)
        return HandingOn(node, low=new_n, high=old_n, drops=resize.stage == DROPPING)

    def _say_done(self) -> None:
        node, name = self._node, self._stage

        def say() -> None:
            if name == self._stage and self._done != name:
                self._done = name
                self._look_at = node.context.turn.now
                self._save()

        node.context.turn.when_durable(say)

    # --- all together

    def _all_know(self, resize: Resize) -> bool:
        """Whether every member has come to the present stage."""
        return all(stage >= resize.stage for stage, _ in self._stages(resize))

    def _all_done(self, resize: Resize) -> bool:
        return all(stage > resize.stage or (stage == resize.stage and done) for stage, done in self._stages(resize))

    def _stages(self, resize: Resize) -> list[tuple[int, bool]]:
        """The stage that each member has come to, and whether it has done its part; not of those who set aside all that they hold."""
        node = self._node
        members = {member.node for member in node.cluster.ring.members} - marked_nodes(node.cluster.value)
        return [stage_of(self._published(member), resize) for member in members]

    def _published(self, node: NodeId) -> object:
        return self._node.membership.application_value(node, RESIZE)

    def _lead(self, resize: Resize) -> None:
        """Take the cluster to the next stage, if that is this node's business and all are ready."""
        node = self._node
        live = node.topology.usable()
        if self._advancing or min(live) != node.me:
            return
        if self._all_done(resize):
            self._advancing = True
            node.operations.start(self._advance(resize), on_done=self._advanced)

    def _advanced(self, _: bytes) -> None:
        self._advancing = False

    def _advance(self, resize: Resize) -> Steps:
        cluster = self._node.cluster
        if cluster.value.resize != resize:
            return b""
        value = next_stage(cluster.value, stamp=cluster.clock.next(), actor=cluster.actor, members=cluster.members_count)
        return (yield from cluster.spread(value)) or b"+OK\r\n"
