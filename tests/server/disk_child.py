"""A process that writes through a disk shell until it is killed, or dies by itself at a named point.

Arguments: directory, point ("" for none), how often the point is passed before, seed.
Prints a line for each write that is in the log; a reader may count on them.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import trio

from respkv.server.disk import Disk
from respkv.server.turns import FLUSHED, LOG_WRITES, Arrival, Departures
from respkv.storage.directory import DataDirectory

OWNER = b"o" * 20
KEYS_COUNT = 400
EXIT_AT_POINT = 86


def read_back(directory: DataDirectory) -> tuple[dict[bytes, bytes], list[str]]:
    """Everything that is on the disk, as a node would merge it; and what is lost."""
    recovery = directory.recover(owner=OWNER)
    records = {key: record for _, key, record in recovery.tables.rows()}
    for _, body, _ in recovery.replay():
        pairs = msgspec.msgpack.decode(body, type=list[bytes])
        for key, record in zip(pairs[::2], pairs[1::2], strict=True):
            records[key] = max(record, records.get(key, b""))
    recovery.tables.close()
    return records, recovery.damages


class Freeze:
    """What is in memory and not in the tables."""

    def __init__(self, number: int, memory: dict[bytes, bytes], keys: set[bytes]) -> None:
        self.number = number
        self._memory = memory
        self._keys = keys

    def batches(self) -> Iterator[list[tuple[int, bytes, bytes | None]]]:
        keys = sorted(self._keys)
        for start in range(0, len(keys), 20):
            yield [(1, key, self._memory[key]) for key in keys[start : start + 20]]


async def write_on(directory: DataDirectory, *, point: str, passes: int, seed: int) -> None:
    rng = random.Random(seed)
    recovery = directory.recover(owner=OWNER)
    assert recovery.damages == []
    replayed = list(recovery.replay())
    log = recovery.open_log(segment_bytes_max=20_000)
    left = [passes]

    def crash(passed: str) -> None:
        if passed == point:
            left[0] -= 1
            if left[0] < 0:
                os._exit(EXIT_AT_POINT)

    arrivals: list[Arrival] = []
    disk = Disk(log=log, tables=recovery.tables, directory=directory.path, post=arrivals.append, crash_hook=crash)
    memory: dict[bytes, bytes] = {}
    dirty: set[bytes] = set()
    for _, body, _ in replayed:
        # Rule of the node: what the log holds is dirty, for the next freeze drops the log.
        pairs = msgspec.msgpack.decode(body, type=list[bytes])
        for key, record in zip(pairs[::2], pairs[1::2], strict=True):
            memory[key] = max(record, memory.get(key, b""))
            dirty.add(key)
    is_freezing = False
    async with trio.open_nursery() as nursery:
        await nursery.start(disk.run)
        for turn in itertools.count(1):
            departures = Departures()
            pairs = []
            for _ in range(rng.randrange(1, 6)):
                key, record = b"%d" % rng.randrange(KEYS_COUNT), seed.to_bytes(4) + turn.to_bytes(4) + rng.randbytes(20)
                memory[key] = record
                dirty.add(key)
                pairs += [key, record]
            departures.log = [(LOG_WRITES, msgspec.msgpack.encode(pairs))]
            departures.sync = turn if rng.random() < 0.2 else 0
            if any(arrival[0] == FLUSHED for arrival in arrivals):
                is_freezing = False
            arrivals.clear()
            if not is_freezing and turn % 40 == 0:
                departures.freeze = Freeze(turn, memory, dirty)
                dirty = set()
                is_freezing = True
            disk.obey(departures)
            acknowledged = b"".join(b"%b %b\n" % (key, memory[key].hex().encode()) for key in pairs[::2])
            os.write(1, acknowledged)
            await trio.lowlevel.checkpoint()


if __name__ == "__main__":
    path, at_point, passes_before, child_seed = sys.argv[1:]
    trio.run(
        lambda: write_on(DataDirectory(Path(path)), point=at_point, passes=int(passes_before), seed=int(child_seed)),
    )
