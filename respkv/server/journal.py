"""The node's log file: Redis's levels and form of lines, repeated lines limited, to a file, standard output or syslog."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
import time
from typing import TYPE_CHECKING

from respkv.errors import ConfigurationError

if TYPE_CHECKING:
    from respkv.config.settings import Settings

LEVELS = {"debug": 10, "verbose": 20, "notice": 30, "warning": 40, "nothing": 100}
MARKS = {"debug": ".", "verbose": "-", "notice": "*", "warning": "#"}
SAME_LINES_PER_WINDOW = 5
WINDOW_S = 10.0
KINDS_MAX = 1000


class Journal:
    """Writes lines. A line whose words (digits aside) come more than a few times in ten seconds is counted, not written."""

    def __init__(self, settings: Settings) -> None:
        """Open the file, or standard output, and syslog if it is enabled. Raises ConfigurationError."""
        self._settings = settings
        self._logger = logging.getLogger("respkv")
        handler: logging.Handler = logging.StreamHandler(sys.stdout)
        if settings.logfile:
            try:
                handler = logging.FileHandler(settings.logfile, encoding="utf-8")
            except OSError as error:
                raise ConfigurationError(f"cannot open the logfile {settings.logfile}: {error.strerror}") from None
        handler.setFormatter(logging.Formatter("%(message)s"))
        self._logger.addHandler(handler)
        if settings.syslog_enabled:
            syslog = logging.handlers.SysLogHandler(address="/dev/log")
            syslog.ident = f"{settings.syslog_ident}[{os.getpid()}]: "
            self._logger.addHandler(syslog)
        self._window_started = time.monotonic()
        self._seen: dict[str, int] = {}
        self._held_back = 0

    def write(self, level: str, text: str) -> None:
        """One line, if `loglevel` lets it through."""
        if LEVELS[level] < LEVELS[self._settings.loglevel]:
            return
        now = time.monotonic()
        if now - self._window_started > WINDOW_S:
            self._window_started = now
            self._seen.clear()
            if self._held_back:
                self._line("notice", f"{self._held_back} lines like earlier ones were not written in the last {WINDOW_S:g} s")
                self._held_back = 0
        kind = "".join(character for character in text[:200] if not character.isdigit())
        count = self._seen[kind] = self._seen.get(kind, 0) + 1 if len(self._seen) < KINDS_MAX else SAME_LINES_PER_WINDOW + 1
        if count > SAME_LINES_PER_WINDOW:
            self._held_back += 1
            return
        self._line(level, text)

    def _line(self, level: str, text: str) -> None:
        moment_ms = time.time_ns() // 1_000_000
        stamp = time.strftime("%d %b %Y %H:%M:%S", time.localtime(moment_ms // 1000)) + f".{moment_ms % 1000:03d}"
        clean = text.replace("\r", " ").replace("\n", " | ")
        self._logger.log(LEVELS[level], "%d:M %s %s %s", os.getpid(), stamp, MARKS[level], clean)

    def close(self) -> None:
        """Flush and close."""
        for handler in self._logger.handlers:
            handler.close()
