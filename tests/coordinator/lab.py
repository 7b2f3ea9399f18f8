"""A coordinator on a bench: it is real, the other nodes are what a transcript says they are.

A transcript is blocks of lines, one turn a line, and behind `----` what the coordinator did in these turns:

    nodes abcde n=3 r=2 w=2       five nodes; this one is the first; key `k` belongs to a, b, c, key `k2` to c, d, e, and so on
                                  (ring=abced...: who owns the partitions, in their order)
    view down=b stale=c           who is away, lacks data, is lagging (also: sloppy=no handoff=no n= r= w= pr= pw=)
                                  (while N changes: core= are counted for W, stored= are written to, of whom all= have to have it)
    c1 set k v ; c1 get k         plain commands of client c1
    op read k,m r=1               an operation reads
    op write k=v,m=~ w=3          an operation writes (v!99: with an expiry; v@5!99: gives version 5 an expiry)
    b ack 1 | b newer 1 0 | b refuse 1 | b records 1 v@5 -      answers to section #1
    b newer 1 0:30 | b late 1 0   a newer version is held for 30 ms only; none is held, and it came too late
    b newer 1 0:30+50             the same, and its stamp lies 50 ms ahead
    b closes                      the link to b breaks
    wait 50                       milliseconds pass
    durable                       the log is durable
    always                        appendfsync always
    read-repair async             blocking, async or off
    hints 100 | window-closed b   max-hints-size in bytes; an owner was away for longer than max-hint-window
    reaped 9                      deletions up to this stamp were dropped
    hold k v@5 | held k m         put a version into this node's memory; look at it
    state                         what is left

A version is written value@stamp, ~@stamp is a tombstone, and - is nothing.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec

from respkv.config.quorums import Quorums
from respkv.config.replication import Replication, steady
from respkv.coordinator.batches import Waiter
from respkv.coordinator.coordinator import Coordinator
from respkv.coordinator.recent_writes import FOR_LONG_US, NOT_AT_ALL
from respkv.coordinator.replica import Replica
from respkv.coordinator.routes import RouteTable, View
from respkv.errors import ClientError
from respkv.placement.ring import Member, Ring
from respkv.placement.slots import key_slot
from respkv.repair.hints import HintBook
from respkv.storage.parking import Parking
from respkv.storage.store import Store
from respkv.transport import frames
from respkv.transport.turn import Turn
from respkv.versions import records
from respkv.versions.clock import HybridClock

PARTITIONS = 16
ACTOR = b"actor-me"
KINDS = {
    frames.WRITE: "write",
    frames.STAND_IN: "stand-in",
    frames.READ: "read",
    frames.READ_STAND_IN: "read-stand-in",
    frames.REPAIR: "repair",
    frames.REFUSED: "refused",
    frames.WRITE_ACK: "ack",
    frames.WRITE_ACK_NEWER: "newer",
    frames.RECORDS: "records",
    frames.REQUEST: "call",
}


def node_id(letter: str) -> str:
    return letter * 40


def wire_key(name: str) -> bytes:
    """Key `k3` lies in partition 3, `k` in partition 0."""
    wanted = int(name[1:] or 0)
    salt = next(salt for salt in range(10_000) if key_slot(b"%s/%d" % (name.encode(), salt)) >> 10 == wanted)
    return b"%s/%d" % (name.encode(), salt)


def key_name(key: bytes) -> str:
    return key.decode().partition("/")[0]


def show(record: bytes) -> str:
    if not record:
        return "-"
    value = records.value_of(record, 0)
    text = "~" if value is None else value.decode()
    expiry = records.expiry_of(record)
    return f"{text}@{records.stamp_of(record)}" + (f"!{expiry}" if expiry is not None else "")


def version(text: str) -> bytes:
    """The record that a transcript writes as value@stamp, or value@stamp!expiry."""
    if text == "-":
        return b""
    value, _, rest = text.partition("@")
    stamp, _, expiry = rest.partition("!")
    actor = b"actor-xx"
    if value == "~":
        return records.tombstone(stamp=int(stamp), actor=actor)
    return records.string(value.encode(), stamp=int(stamp), actor=actor, expire_at_ms=int(expiry) if expiry else None)


def show_held(index: int, held_us: int) -> str:
    """`0`: a newer version has been there for long; `0:30`: for so many ms; `0:late`: there is none, and it may be much too old."""
    if held_us == NOT_AT_ALL:
        return f"{index}:late"
    return str(index) if held_us == FOR_LONG_US else f"{index}:{round(held_us / 1000)}"


def show_pairs(pairs: list[bytes]) -> str:
    return " ".join(f"{key_name(key)}={show(record)}" for key, record in zip(pairs[::2], pairs[1::2], strict=True))


class Connection(Waiter):
    """A client as the coordinator sees it."""

    def __init__(self, name: str, lab: Lab) -> None:
        super().__init__(b"nil")
        self.name = name
        self._lab = lab

    def drain(self) -> None:
        while self.pending and self.pending[0][0] is not None:
            self.say(self.pending.popleft()[0])

    def say(self, reply: bytes) -> None:
        self._lab.out.append(f"{self.name} {reply.decode().strip().replace(chr(13) + chr(10), ' ')}")


class Gathering:
    """An operation as the coordinator sees it."""

    def __init__(self, lab: Lab, keys: list[bytes]) -> None:
        self._lab = lab
        self._keys = keys
        self.left = 0

    def receive(self, index: int, record: bytes) -> None:
        self._lab.out.append(f"op {key_name(self._keys[index])}={show(record)}")

    def failed(self, error: ClientError) -> None:
        self._lab.out.append(f"op {error.reply().decode().strip()}")

    def written(self) -> None:
        self.left -= 1
        if not self.left:
            self._lab.out.append("op written")


class Lab:
    """The bench."""

    def __init__(self, letters: str = "abcde", **options: str) -> None:
        self.out: list[str] = []
        self.letters = letters
        self.me = letters[0]
        members = tuple(Member(node_id(letter)) for letter in sorted(letters))
        pattern = options.pop("ring", letters)
        order = sorted(letters)
        self.ring = Ring(1, members, tuple(order.index(pattern[partition % len(pattern)]) for partition in range(PARTITIONS)))
        self.turn = Turn()
        self.store = Store(ring_size=PARTITIONS)
        self.parking = Parking(self.store)
        self.clock = HybridClock(100)
        self.hints = HintBook(bytes_max=0)
        self.coordinator = Coordinator(
            me=node_id(self.me), actor=ACTOR, store=self.store, clock=self.clock, turn=self.turn, hints=self.hints, parking=self.parking
        )
        recent = self.coordinator.recent
        self.replica = Replica(store=self.store, turn=self.turn, hints=self.hints, parking=self.parking, clock=self.clock, recent=recent)
        self.connections: dict[str, Connection] = {}
        self.rng = random.Random(1)
        self.options = {"n": "3", "r": "2", "w": "2", "pr": "0", "pw": "0", "down": "", "stale": "", "rebuilding": ""}
        self.options |= {"sloppy": "yes", "handoff": "yes", "core": "", "stored": "", "all": "", **options}
        self.view()

    def view(self, **changed: str) -> None:
        self.options |= changed
        named = self.options
        usable = frozenset(node_id(letter) for letter in self.letters if letter not in named["down"])
        view = View(
            me=node_id(self.me),
            usable=usable,
            rebuilding=frozenset(map(node_id, named["rebuilding"])),
            stale=frozenset(map(node_id, named["stale"])),
            sloppy=named["sloppy"] == "yes",
            handoff=named["handoff"] == "yes",
        )
        quorum = Quorums(*(int(named[name]) for name in ("n", "r", "w", "pr", "pw")))
        replication = steady(quorum)
        if named["core"]:
            stored_n = int(named["stored"])
            replication = Replication(quorum, int(named["core"]), stored_n, int(named["all"]), stored_n)
        table = RouteTable(self.ring, view=view, replication=replication)
        while self.coordinator.seal():
            pass
        self.coordinator.use_routes(table, quorum)
        compensation = self.coordinator.compensation
        compensation.usable, compensation.sloppy, compensation.handoff = view.usable - view.rebuilding, view.sloppy, view.handoff
        self.replica.holds = table.holds
        self.replica.others = frozenset(map(node_id, self.letters)) - {node_id(self.me)}
        self.replica.rebuilding = self.me in named["rebuilding"]

    def run(self, line: str) -> None:
        """One turn."""
        self.turn.number += 1
        for command in line.split(" ; "):
            self._act(command.split())
        due = self.coordinator.next_due()
        if due is not None and due <= self.turn.now:
            self.coordinator.expire()
        while self.coordinator.seal():
            pass
        self.replica.flush_acks()
        self._gather()

    def _act(self, words: list[str]) -> None:
        match words:
            case ["op", "read", keys, *pairs]:
                self._read([wire_key(name) for name in keys.split(",")], self._quorum(pairs))
            case ["op", "write", items, *pairs]:
                self._write(items, self._quorum(pairs))
            case [who, "set", name, value]:
                self._client(who, lambda conn: self.coordinator.set_plain(conn, wire_key(name), value.encode()))
            case [who, "get", name]:
                self._client(who, lambda conn: self.coordinator.get_plain(conn, wire_key(name)))
            case [who, verb, *rest] if len(who) == 1:
                self._answer(node_id(who), verb, rest)
            case _:
                self._arrange(words)

    def _arrange(self, words: list[str]) -> None:
        match words:
            case ["view", *pairs]:
                self.view(**dict(pair.split("=") for pair in pairs))
            case ["wait", milliseconds]:
                self.turn.now += int(milliseconds) / 1000
            case ["durable"]:
                self.turn.durable(self.turn.number)
            case ["always"]:
                self.turn.sync_each_turn = True
            case ["hold", name, text]:
                self.store.merge_pairs([wire_key(name), version(text)])
            case ["read-repair", mode]:
                self.coordinator.repairs.mode = mode
            case ["hints", limit]:
                self.hints.bytes_max = int(limit)
            case ["window-closed", letters]:
                self.hints.closed |= set(map(node_id, letters))
            case ["reaped", stamp]:
                self.store.reaped_below = records.pack_stamp(int(stamp) + 1)
            case ["disk-full"]:
                self.replica.writes_disabled = self.coordinator.writes_disabled = "the disk is nearly full (min-free-disk)"
            case ["clock-off", milliseconds]:
                self.coordinator.skew_ms = int(milliseconds)
            case ["held", *names]:
                self.out += [f"held {name}={show(self.store.get(wire_key(name)))}" for name in names]
            case ["state"]:
                self._state()
            case _:
                raise AssertionError(words)

    def _quorum(self, pairs: list[str]) -> Quorums | None:
        if not pairs:
            return None
        named = self.options | dict(pair.split("=") for pair in pairs)
        return Quorums(*(int(named[name]) for name in ("n", "r", "w", "pr", "pw")))

    def _client(self, who: str, command: Any) -> None:
        conn = self.connections.setdefault(who, Connection(who, self))
        try:
            reply = command(conn)
        except ClientError as error:
            reply = error.reply()
        if reply is None:
            return
        if conn.pending:
            conn.pending.append([reply])
        else:
            conn.say(reply)

    def _read(self, keys: list[bytes], quorum: Quorums | None) -> None:
        gathering = Gathering(self, keys)
        try:
            self.coordinator.read(gathering, keys, quorum)
        except ClientError as error:
            gathering.failed(error)

    def _write(self, items: str, quorum: Quorums | None) -> None:
        pairs = []
        for item in items.split(","):
            name, _, value = item.partition("=")
            value, _, expiry = value.partition("!")
            value, _, held = value.partition("@")
            stamp = self.clock.next()
            if held:
                record = records.string(value.encode(), stamp=int(held), actor=ACTOR)
                record = records.with_expiry(record, stamp=stamp, expire_at_ms=int(expiry))
            elif value == "~":
                record = records.tombstone(stamp=stamp, actor=ACTOR)
            else:
                record = records.string(value.encode(), stamp=stamp, actor=ACTOR, expire_at_ms=int(expiry) if expiry else None)
            pairs.append((wire_key(name), record))
        gathering = Gathering(self, [])
        try:
            gathering.left = sum(not batch.instant for batch in self.coordinator.write(gathering, pairs, quorum))
        except ClientError as error:
            gathering.failed(error)
            return
        if not gathering.left:
            self.out.append("op written")

    def _answer(self, peer: str, verb: str, rest: list[str]) -> None:
        writes, reads = self.coordinator.writes, self.coordinator.reads
        match verb, rest:
            case "ack", numbers:
                writes.on_ack(peer, list(map(int, numbers)))
                self.coordinator.repairs.on_ack(peer, list(map(int, numbers)))
            case "newer", [number, *held]:
                # A frame's header brings the sender's clock.
                self.clock.absorb(self.clock.last + 10)
                told = [self.clock.last]
                for each in held:
                    index, _, milliseconds = each.partition(":")
                    milliseconds, _, ahead = milliseconds.partition("+")
                    stamp = self.clock.last + (int(ahead or 0) << 16)
                    told += (int(index), int(milliseconds) * 1000 if milliseconds else FOR_LONG_US, stamp)
                writes.on_newer(peer, int(number), told)
            case "late", [number, *indices]:
                writes.on_newer(peer, int(number), [0, *(word for index in indices for word in (int(index), NOT_AT_ALL, 0))])
            case "records", [number, *versions]:
                found = [version(text) for text in versions]
                for record in found:
                    self.clock.absorb(records.newest_stamp_of(record))
                reads.on_records(peer, int(number), found)
            case "refuse", [number]:
                self.coordinator.on_refused(peer, int(number))
            case "closes", []:
                self.view(down=self.options["down"] + peer[0])
                self.coordinator.on_peer_closed(peer)
            case "write", [number, *pairs]:
                self.replica.write(peer, int(number), self._body(pairs))
            case "stand-in", [number, owners, *pairs]:
                self.replica.stand_in(peer, int(number), frames.pack_owners(tuple(map(node_id, owners))) + self._body(pairs))
            case "repair", [number, *pairs]:
                self.replica.repair(peer, int(number), self._body(pairs))
            case "read" | "read-stand-in", [number, *names]:
                body = msgspec.msgpack.encode([wire_key(name) for name in names])
                self.replica.read(peer, int(number), body, stand_in=verb == "read-stand-in")
            case _:
                raise AssertionError(verb)

    @staticmethod
    def _body(pairs: list[str]) -> bytes:
        flat = []
        for pair in pairs:
            name, _, text = pair.partition("=")
            flat += [wire_key(name), version(text)]
        return msgspec.msgpack.encode(flat)

    def _gather(self) -> None:
        log, self.turn.log = self.turn.log, []
        for kind, body in log:
            if kind == 5:
                self.out.append(f"log dropped {' '.join(map(key_name, msgspec.msgpack.decode(body, type=list[bytes])))}")
            elif kind == 1:
                self.out.append(f"log writes {show_pairs(msgspec.msgpack.decode(body, type=list[bytes]))}")
            else:
                owner, pairs = msgspec.msgpack.decode(body, type=tuple[str, list[bytes]])
                self.out.append(f"log hints {owner[0]} {show_pairs(pairs)}".rstrip())
        for peer, sections in self.turn.sections.items():
            for section in sections:
                self.out += [f"-> {peer[0]} {self._section(*found)}" for found in frames.sections(bytes(frames.HEADER_BYTES) + section)]
        self.turn.sections.clear()
        for token, wanted in self.parking.requests:
            self.out.append(f"load {token} {' '.join(key_name(key) for _, key in wanted)}")
        self.parking.requests = []

    @staticmethod
    def _section(kind: int, sequence: int, body: bytes) -> str:
        head = f"#{sequence} {KINDS[kind]}"
        if kind == frames.STAND_IN:
            owners, body = frames.unpack_owners(body)
            head += " for " + "".join(owner[0] for owner in owners)
        if kind == frames.REFUSED:
            return f"{head} {body.decode()}"
        if kind in {frames.WRITE_ACK, frames.WRITE_ACK_NEWER}:
            numbers = msgspec.msgpack.decode(body, type=list[int])
            if kind == frames.WRITE_ACK_NEWER:
                return f"{head} {' '.join(map(show_held, numbers[1::3], numbers[2::3]))}"
            return f"{head} {' '.join(map(str, numbers))}"
        parts = msgspec.msgpack.decode(body, type=list[bytes])
        if kind in {frames.READ, frames.READ_STAND_IN}:
            return f"{head} {' '.join(map(key_name, parts))}"
        if kind == frames.REQUEST:
            return f"{head} {parts[0].decode()}"
        if kind == frames.RECORDS:
            return f"{head} {' '.join(map(show, parts))}"
        return f"{head} {show_pairs(parts)}"

    def _state(self) -> None:
        coordinator = self.coordinator
        coordinator.next_due()
        held = [f"{owner[0]}:{','.join(map(key_name, keys))}" for owner, keys in sorted(self.hints.rows.items())]
        in_flight = f"reads={len(coordinator.reads)} writes={len(coordinator.writes)} waiting={coordinator.waiting_count}"
        self.out.append(f"{in_flight} hints={' '.join(held) or '-'}")


def play(transcript: str) -> str:
    """Run a transcript; it comes back with what happened instead of what was expected."""
    lab = Lab()
    shown: list[str] = []
    for block in transcript.strip().split("\n\n"):
        asked = block.partition("----")[0]
        lines = [line.strip() for line in asked.strip().splitlines()]
        for line in lines:
            if line.startswith("#"):
                continue
            if line.startswith("nodes "):
                _, letters, *pairs = line.split()
                lab = Lab(letters, **dict(pair.split("=") for pair in pairs))
            else:
                lab.run(line)
        shown += [*lines, "----", *lab.out, ""]
        lab.out.clear()
    return "\n".join(shown).strip()


def expected(transcript: str) -> str:
    """A transcript without its indentation."""
    return "\n".join(line.strip() for line in transcript.strip().splitlines())
