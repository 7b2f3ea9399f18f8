"""The directory of a node: what is where, who holds it, and how it is read back at a start.

    lock      one process at a time
    state/    small files by name
    log/      the commit log and its mark
    tables/   RocksDB

Rule 1: what is missing is noticed. The tables carry a watermark, the first segment of the log that they do not
cover; the mark says which segments were dropped because the tables had them. If the tables are behind, or gone,
or another log's, that is damage, however well they open.
Rule 2: a node that found damage is incomplete until it has copied what it lacks. `state/complete` says that it is
complete; it is deleted before anything on the disk moves on and would let the damage be forgotten. Segments with
damage stay until a freeze drops them; `state/damage-known` keeps them from being news at every start.
Rule 3: what is missing is in `state/losses` before anything is done that lets it go unnoticed, and until a node has gone
on without it: a start that finds damage may be killed, or refuse.
"""

from __future__ import annotations

import re
import shutil
import struct
from typing import TYPE_CHECKING, Final

from respkv.errors import ConfigurationError, DamageError, StorageError
from respkv.storage.files import DirectoryLock, make_directory, read_checked, sync_directory, write_atomic
from respkv.storage.log import CommitLog
from respkv.storage.log_format import OWNER_BYTES, SALT_BYTES
from respkv.storage.log_recovery import LogRecovery, RecoveryReport
from respkv.storage.tables import Tables, TablesOptions
from respkv.storage.tables_salvage import salvage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMPLETE_NAME: Final = "complete"
"""A small file: nothing is lacking that this node acknowledged. Its content does not matter."""
TABLES_DAMAGED_NAME: Final = "tables-damaged"
"""A small file: what was met in the tables while the node served."""
_STATE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]*")
DAMAGE_KNOWN_NAME: Final = "damage-known"
"""A small file: damage of segments that are still there, a line each, for which `complete` was deleted."""
LOSSES_NAME: Final = "losses"
"""A small file: what starts have found missing beside records of the log, a line each, as long as none of them has gone on."""
LOG_BEGUN_NAME: Final = "log-begun"
"""A small file: there is a log, and if there is none it is lost."""
_WATERMARK = struct.Struct(f">{SALT_BYTES}s{OWNER_BYTES}sQ")


def state_path(directory: Path, name: str) -> Path:
    """Where a small file is."""
    assert _STATE_NAME.fullmatch(name), name
    return directory / "state" / name


def pack_watermark(log: CommitLog, segment: int) -> bytes:
    """The tables hold all that this log had in segments below this one."""
    return _WATERMARK.pack(log.salt, log.owner, segment)


class Recovery:
    """A directory read back. First `replay`, to its end; then `open_log`."""

    def __init__(self, directory: DataDirectory, tables: Tables, log_recovery: LogRecovery) -> None:
        self.tables = tables
        self._directory = directory
        self._log_recovery = log_recovery

    @property
    def report(self) -> RecoveryReport:
        """What became of the log; complete after `replay`."""
        return self._log_recovery.report

    @property
    def position(self) -> int:
        """Of the log, behind the last record that was replayed."""
        return self._log_recovery.position

    @property
    def damages(self) -> list[str]:
        """All that was durable and is missing, unless an earlier start said so; a sentence each. Complete after `replay`."""
        known = self._directory.small_files.get(DAMAGE_KNOWN_NAME, b"").decode().splitlines()
        return self._directory.losses + [sentence for sentence in self._log_damages() if sentence not in known]

    def replay(self) -> Iterator[tuple[int, bytes, int]]:
        """Yield (kind, body, position behind it) of every record of the log that the tables may lack."""
        return self._log_recovery.records()

    def rows(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield (partition, key, record) of all rows of the tables.

        Where a DamageError ends this: `close`, and recover the directory again. The tables are rebuilt then.
        """
        try:
            yield from self.tables.rows()
        except DamageError as error:
            self._directory.note_damaged_tables(str(error))
            raise

    def close(self) -> None:
        """Close the tables; of the log nothing is open."""
        self.tables.close()

    def open_log(self, *, segment_bytes_max: int) -> CommitLog:
        """Cut the torn tail and begin a new segment. A node with damage has ceased to be complete before."""
        directory = self._directory
        if self.damages:
            directory.forget(COMPLETE_NAME)
            lasting = self._log_damages(lasting=True)
            write_atomic(state_path(directory.path, DAMAGE_KNOWN_NAME), "\n".join(lasting).encode())
            directory.forget(LOSSES_NAME)
        log = CommitLog(self._log_recovery, segment_bytes_max=segment_bytes_max)
        if LOG_BEGUN_NAME not in directory.small_files:
            write_atomic(state_path(directory.path, LOG_BEGUN_NAME), log.salt.hex().encode())
        return log

    def _log_damages(self, *, lasting: bool = False) -> list[str]:
        return [
            f"the log from position {each.start_position} to {each.end_position}: {each.reason}".replace("\n", " ")
            for each in self.report.damages
            if not lasting or each.end_position is not None
        ]


class DataDirectory:
    """Held by one process from its start to its end."""

    def __init__(self, path: Path) -> None:
        """Make the directory if need be, lock it, and read its small files."""
        self.path = path
        make_directory(path)
        self._lock = DirectoryLock(path)
        for name in ("state", "log"):
            make_directory(path / name)
        self.small_files: dict[str, bytes] = {}
        self.losses: list[str] = []
        """What is missing beside records of the log, a sentence each."""
        self._damaged_names: set[str] = set()
        try:
            names = sorted(entry.name for entry in (path / "state").iterdir())
        except OSError as error:
            raise StorageError(f"cannot list {path / 'state'}: {error}") from error
        for name in names:
            if _STATE_NAME.fullmatch(name):
                self._read_small_file(name)
        self.losses += self.small_files.get(LOSSES_NAME, b"").decode(errors="replace").splitlines()
        for name in sorted(self._damaged_names):
            self._lose(f"state/{name} fails its checksum")

    def recover(self, *, owner: bytes, options: TablesOptions | None = None) -> Recovery:
        """Open the tables and look at the log of this owner (20 bytes)."""
        log_recovery = LogRecovery(self.path / "log", owner=owner)
        if log_recovery.is_new and LOG_BEGUN_NAME in self.small_files:
            self._lose("the log is missing")
        tables = self._open_tables(options)
        self._check_watermark(tables, log_recovery)
        return Recovery(self, tables, log_recovery)

    def note_damaged_tables(self, met: str) -> None:
        """See that the next recovery rebuilds the tables."""
        content = met.encode()
        write_atomic(state_path(self.path, TABLES_DAMAGED_NAME), content)
        self.small_files[TABLES_DAMAGED_NAME] = content

    def forget(self, name: str) -> None:
        """Delete a small file, durably."""
        self.small_files.pop(name, None)
        self._damaged_names.discard(name)
        path = state_path(self.path, name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot delete {path}: {error}") from error
        sync_directory(path.parent)

    def set_aside_data(self, *also: str) -> None:
        """Begin with nothing but the small files that say who this node is, and without these. What there was stays beside, once."""
        # First of all it is no longer complete; the log's absence is no loss from then on.
        for name in (COMPLETE_NAME, DAMAGE_KNOWN_NAME, LOSSES_NAME, TABLES_DAMAGED_NAME, LOG_BEGUN_NAME, *also):
            self.forget(name)
        self.losses.clear()
        for name in ("log", "tables"):
            path = self.path / name
            aside = path.with_name(f"{name}.set-aside")
            # After a crash in the middle of this, what was set aside by then is all there is to keep.
            if path.exists() and any(path.iterdir()):
                shutil.rmtree(aside, ignore_errors=True)
                _rename(path, aside)
        make_directory(self.path / "log")

    def close(self) -> None:
        """Let go of the lock."""
        self._lock.close()

    def _read_small_file(self, name: str) -> None:
        try:
            content = read_checked(state_path(self.path, name))
        except DamageError:
            self._damaged_names.add(name)
        else:
            assert content is not None
            self.small_files[name] = content

    def _lose(self, sentence: str) -> None:
        """Something is missing: note it, durably, before it can be forgotten."""
        sentence = " ".join(sentence.splitlines())
        if sentence not in self.losses:
            self.losses.append(sentence)
            write_atomic(state_path(self.path, LOSSES_NAME), "\n".join(self.losses).encode(errors="replace"))

    def _open_tables(self, options: TablesOptions | None) -> Tables:
        path = self.path / "tables"
        if TABLES_DAMAGED_NAME in self.small_files or TABLES_DAMAGED_NAME in self._damaged_names:
            self._rebuild_tables(options)
        try:
            return Tables(path, options)
        except DamageError as error:
            self._lose(f"the tables were damaged and are set aside: {error}")
            self.forget(COMPLETE_NAME)
            self._set_aside(path)
            return Tables(path, options)

    def _rebuild_tables(self, options: TablesOptions | None) -> None:
        """Tables that turned out to be damaged while the node served: copy what can be read."""
        path, fresh = self.path / "tables", self.path / "tables.new"
        met = self.small_files.get(TABLES_DAMAGED_NAME, b"").decode(errors="replace")
        self._lose(f"the tables are damaged: {met}")
        self.forget(COMPLETE_NAME)
        # Without the old ones, a rebuilding was interrupted between the two renames at its end.
        if path.exists():
            shutil.rmtree(fresh, ignore_errors=True)
            try:
                source = Tables(path, options)
            except DamageError as error:
                self._lose(f"the tables cannot be opened and are set aside: {error}")
            else:
                target = Tables(fresh, options)
                saved = salvage(source, target)
                source.close()
                target.close()
                self._lose(f"{saved.rows_count} rows were saved, {len(saved.damaged_partitions)} partitions lost some")
            self._set_aside(path)
        if fresh.exists():
            _rename(fresh, path)
        self.forget(TABLES_DAMAGED_NAME)

    def _check_watermark(self, tables: Tables, log_recovery: LogRecovery) -> None:
        """See that the tables reach to where the log begins; if they do not, say so once, and go on from here."""
        problem = self._watermark_problem(tables, log_recovery)
        if problem is None:
            return
        self._lose(problem)
        self.forget(COMPLETE_NAME)
        content = _WATERMARK.pack(log_recovery.salt, log_recovery.owner, log_recovery.first_segment)
        while not tables.write_watermark(content):
            tables.flush()
        tables.flush()

    def _watermark_problem(self, tables: Tables, log_recovery: LogRecovery) -> str | None:
        first_segment = log_recovery.first_segment
        try:
            content = tables.watermark()
        except DamageError as error:
            return str(error)
        if content is None:
            return f"the tables lack what the log had before segment {first_segment}" if first_segment else None
        salt, owner, segment = _WATERMARK.unpack(content)
        if owner != log_recovery.owner:
            raise ConfigurationError(f"{self.path} holds the tables of node {owner.hex()}, this is node {log_recovery.owner.hex()}")
        if salt != log_recovery.salt:
            return "the log is not the one that the tables go with"
        if segment < first_segment:
            return f"the tables end at segment {segment} of the log, which begins at {first_segment}"
        return None

    def _set_aside(self, path: Path) -> None:
        number = 1
        while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
            number += 1
        _rename(path, aside)


def _rename(path: Path, target: Path) -> None:
    try:
        path.rename(target)
    except OSError as error:
        raise StorageError(f"cannot rename {path}: {error}") from error
    sync_directory(path.parent)
