"""What each node publishes about itself by gossip, for status and for who is asked first. Pure.

`keys`     how many keys it holds copies of
`bytes`    what their names and values take, estimated
`hints`    "ID:COUNT,ID:COUNT,...": for which owners it holds hint rows, by the first digits of their ids
`refused`  the same of records that got no hint row, since its process began
`away`     "ID,ID,...": the members that it cannot reach
`pace`     how fast work behind the scenes may go for its clients' sake, in bytes a second; 0: it has no clients
`works`    1 while it does such work, else 0
`refuses`  why it stores no writes, in words; "": it does
`resize`   "CHANGE.STAGE.PERCENT": how far it is with a change of replication-factor; "done" instead of the percentage
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.membership.members import APPLICATION_TEXT_LEN_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from respkv.commands.context import Context
    from respkv.config.replication import Resize
    from respkv.ids import NodeId
    from respkv.membership.gossip import Membership
    from respkv.repair.hints import HintBook

KEYS = "keys"
BYTES = "bytes"
HINTS = "hints"
REFUSED = "refused"
AWAY = "away"
PACE = "pace"
WORKS = "works"
REFUSES = "refuses"
RESIZE = "resize"
DONE = "done"
ID_DIGITS = 8


def encode_hints(counts: Mapping[NodeId, int]) -> str:
    """The text of the rows held for each owner; where there is no room for all, of those with most rows."""
    text = ""
    for owner, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        part = f"{owner[:ID_DIGITS]}:{count}"
        if len(text) + 1 + len(part) > APPLICATION_TEXT_LEN_MAX:
            break
        text += f",{part}" if text else part
    return text


def decode_hints(text: object) -> dict[str, int]:
    """Rows by the first digits of the owner's id. Nonsense of another node counts as nothing."""
    counts: dict[str, int] = {}
    if isinstance(text, str):
        for part in text.split(","):
            owner, _, count = part.partition(":")
            if count.isascii() and count.isdigit():
                counts[owner] = int(count)
    return counts


def encode_away(nodes: Iterable[NodeId]) -> str:
    """The text of some members; where there is no room for all, of the first."""
    return ",".join(sorted(node[:ID_DIGITS] for node in nodes)[: APPLICATION_TEXT_LEN_MAX // (ID_DIGITS + 1)])


def reached_by(others: Iterable[NodeId], nodes: Iterable[NodeId], *, membership: Membership) -> set[NodeId]:
    """Which of these nodes any of the others can reach, by what they have published. Who has not said anything yet denies nothing."""
    told = [membership.application_value(other, AWAY) for other in others]
    away_for = [text.split(",") for text in told if isinstance(text, str)]
    return {node for node in nodes if any(node[:ID_DIGITS] not in away for away in away_for)}


def hints_outstanding(nodes: Iterable[NodeId], *, me: NodeId, membership: Membership, hints: HintBook) -> dict[NodeId, int]:
    """How many hint rows all nodes that can be heard hold for each of these nodes; only those for which there are any."""
    totals: dict[str, int] = {}
    nodes = list(nodes)
    for node in nodes:
        if node != me and membership.usable(node):
            for owner, count in decode_hints(membership.application_value(node, HINTS)).items():
                totals[owner] = totals.get(owner, 0) + count
    for owner, rows in hints.rows.items():
        totals[owner[:ID_DIGITS]] = totals.get(owner[:ID_DIGITS], 0) + len(rows)
    return {node: outstanding for node in nodes if (outstanding := totals.get(node[:ID_DIGITS]))}


def decode_pace(text: object) -> int | None:
    """A rate in bytes a second, 0 where there is no wish; None where nothing was heard. Nonsense of another node counts as that."""
    return text if isinstance(text, int) and text >= 0 else None


def stage_name(resize: Resize) -> str:
    """How a change and its stage are called among nodes."""
    return f"{resize.stamp:x}.{resize.stage}"


def stage_of(published: object, resize: Resize) -> tuple[int, bool]:
    """The stage of a change that a member has come to by what it published, and whether it has done its part; 0: not even the first."""
    if not isinstance(published, str) or published.count(".") != 2:
        return 0, False
    stamp, stage, how_far = published.split(".")
    if stamp != f"{resize.stamp:x}" or not (stage.isascii() and stage.isdigit()):
        return 0, False
    return int(stage), how_far == DONE


def resize_told(context: Context) -> dict[str, object] | None:
    """The change of replication-factor that is on its way, for INFO and status."""
    resize = context.cluster_value().resize
    if resize is None:
        return None
    members = [member.node for member in context.ring.members]
    stages = [stage_of(context.membership.application_value(node, RESIZE), resize) for node in members]
    done = sum(stage > resize.stage or (stage == resize.stage and is_done) for stage, is_done in stages)
    return {
        "from": min(resize.old_n, len(members)),
        "to": min(context.settings.replication_factor, len(members)),
        "stage": ("preparing", "switched", "dropping")[resize.stage - 1],
        "done": f"{done}/{len(members)}",
    }
