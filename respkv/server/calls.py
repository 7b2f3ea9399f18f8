"""What other nodes may ask of this one, beside reads and writes: the cluster's value, counts, keys, versions, its state. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from respkv.placement.slots import key_slot
from respkv.server.copying import serve_keep, serve_rows
from respkv.server.exchange_calls import ExchangeCalls
from respkv.server.holds import Holds
from respkv.server.scans import Scans

if TYPE_CHECKING:
    from respkv.coordinator.operations import Call
    from respkv.server.node import Node


class KeyState(msgspec.Struct, array_like=True):
    """What one node holds of a key."""

    record: bytes
    hints: list[str]
    """Owners for which it holds a hint row."""


class Calls:
    """The handlers of calls, by name."""

    def __init__(self, node: Node) -> None:
        """`node` is whose state they tell."""
        self._node = node
        self._scans = Scans(node)

    def table(self) -> dict[str, Callable[[Call], None]]:
        """Name -> handler."""
        own: dict[str, Callable[[Call], None]] = {
            "value": self._node.cluster.serve_value,
            "count": self._scans.count,
            "scan": self._scans.scan,
            "random": self._scans.random,
            "key": self._key,
            "rows": partial(serve_rows, self._node),
            "keep": partial(serve_keep, self._node),
            "mark": self._node.downtime.serve_mark,
            "repair": self._node.anti_entropy.repair,
            "repair-progress": self._node.anti_entropy.tell_progress,
        }
        return own | ExchangeCalls(self._node).table() | self._node.reaping.table() | Holds(self._node).table()

    def _key(self, call: Call) -> None:
        """What this node holds of a key, for RESPKV KEY."""
        node, key = self._node, call.argument

        def tell() -> None:
            owners = [owner for owner, rows in node.hints.rows.items() if key in rows]
            call.answer(msgspec.msgpack.encode(KeyState(node.store.get(key), owners)))

        partition = key_slot(key) >> node.store.shift
        assert partition < len(node.store.shards)
        node.parking.when_loaded([key], tell)
