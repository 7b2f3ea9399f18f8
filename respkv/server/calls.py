"""What other nodes may ask of this one, beside reads and writes: the cluster's value, counts, keys, versions, its state. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from respkv.placement.slots import key_slot

if TYPE_CHECKING:
    from respkv.coordinator.operations import Call
    from respkv.server.node import Node

_decode_partitions = msgspec.msgpack.Decoder(list[int]).decode


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

    def table(self) -> dict[str, Callable[[Call], None]]:
        """Name -> handler."""
        return {
            "value": self._node.cluster.serve_value,
            "count": self._count,
            "key": self._key,
            "rows": self._node.rebuild.serve,
        }

    def _count(self, call: Call) -> None:
        """Live keys in the partitions that are asked for."""
        live = self._node.store.live
        partitions = _decode_partitions(call.argument)
        call.answer(b"%d" % sum(live[partition] for partition in partitions if 0 <= partition < len(live)))

    def _key(self, call: Call) -> None:
        """What this node holds of a key, for RESPKV KEY."""
        node, key = self._node, call.argument

        def tell() -> None:
            owners = [owner for owner, rows in node.hints.rows.items() if key in rows]
            call.answer(msgspec.msgpack.encode(KeyState(node.store.get(key), owners)))

        partition = key_slot(key) >> node.store.shift
        assert partition < len(node.store.shards)
        node.parking.when_loaded([key], tell)
