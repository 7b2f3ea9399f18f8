"""README.md tells the truth: its tables are the code's, and every command in it does what it shows.

Fenced blocks by their language:
    console   commands after `$ `, and what they print: run, and compared line by line, whatever numbers of more than a digit are.
              Lines may be left out. `...` stands for some that were.
    sh        commands: run; they must succeed
    python    programs: run; they must succeed
    conf      configurations: read as a node would
    text      shown only
A block that cannot be run here stands behind the line `<!-- not run: REASON -->`.

Rule 1: the blocks are one story, told to one cluster, in the order of the file.
Rule 2: only ports, process ids and the folder differ from what a reader would type.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

import pytest

from respkv.cli.processes import dying_with
from respkv.config.directives import lookup
from respkv.config.start import configure
from tools.generate_readme import README, generated

ROOT = README.parent
TEXT = README.read_text()
LANGUAGES = {"console", "sh", "python", "conf", "text"}
BLOCK = re.compile(r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)

HOST = "127.0.0.1"
FIRST_PORT = 7001
NODE_COUNT = 5
CLUSTER_PORT_OFFSET = 10000
# Two ranges apart, and both below the one from which the kernel takes the ports of outgoing connections.
FIRST_PORTS = range(20000, 22700, NODE_COUNT)

READY = "Ctrl-C stops all nodes."
START_S = 60.0
COMMAND_S = 60.0
DIGITS = set("0123456789")
SETTLE_S = 30.0
POLL_S = 0.2

NOT_DIRECTIVES = {"apt-get", "argv-mem", "multi-mem", "py-spy", "redis-cli", "redis-tools", "set-timeout", "tot-mem"}


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block."""

    language: str
    body: str
    line: int
    reason: str | None

    @property
    def place(self) -> str:
        """Where to look when it fails."""
        return f"README.md:{self.line}"


def blocks_of(text: str) -> list[Block]:
    return [
        Block(found["language"], found["body"], text.count("\n", 0, found.start("body")) + 1, found["reason"])
        for found in BLOCK.finditer(text)
    ]


BLOCKS = blocks_of(TEXT)


# --- what is printed, whatever the numbers are


VARIABLE = re.compile(
    r"""
    \d+\.\d+@[0-9a-f]{16}               # a version
    | \b[0-9a-f]{8,}\b                  # an id
    | \b\d+\.\d+\.\d+\.\d+:\d+          # an address
    | (?<![\w.])\d[\d.]*(?:\ ?[KMG]?i?B|ms|[smhd]\d\d[smhd]|[%kMsmhd])?(?!\w)
    """,
    re.VERBOSE,
)


def shape(line: str) -> str:
    """A line without what differs from run to run. A bare digit stays: a quorum, how many nodes are up, that no hint is left."""
    return " ".join(VARIABLE.sub(lambda found: found[0] if found[0] in DIGITS else "#", line).split())


def is_told_by(expected: str, printed: str) -> bool:
    """Whether all lines that are expected were printed, in their order."""
    shapes = iter([shape(line) for line in printed.splitlines()])
    return all(shape(line) in shapes for line in expected.splitlines() if line.strip() not in {"", "..."})


# --- somebody who types what the README says


def free_first_port() -> int:
    """The first of as many consecutive ports as there are nodes, all free, and so those for the nodes' own talk."""
    for first in SystemRandom().sample(FIRST_PORTS, len(FIRST_PORTS)):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + NODE_COUNT):
                for each in (port, port + CLUSTER_PORT_OFFSET):
                    stack.enter_context(socket.socket()).bind((HOST, each))
            return first
    raise AssertionError("no free ports")


class Reader:
    """Types the commands of the README in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first_port = free_first_port()
        self.process_ids: dict[str, str] = {}
        self.started: list[subprocess.Popen[bytes]] = []
        for name in ("tools", "conf", ".venv"):
            (folder / name).symlink_to(ROOT / name)

    def adapted(self, text: str) -> str:
        """What the reader types instead: with the ports and processes of this run."""
        shift = self.first_port - FIRST_PORT
        text = re.sub(rf"\b{FIRST_PORT // 10}[1-{NODE_COUNT}]\b", lambda found: str(int(found[0]) + shift), text)
        for theirs, ours in self.process_ids.items():
            text = re.sub(rf"\b{theirs}\b", ours, text)
        return text

    def start(self, command: str, output: Path) -> None:
        """Start what goes on in the background; it ends with this process at the latest."""
        with output.open("wb") as file, warnings.catch_warnings():
            # Python 3.12 and later warn of what runs before exec while other threads run. What runs there takes no lock.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.started.append(
                subprocess.Popen(
                    ["bash", "-c", self.adapted(command)],
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    process_group=0,
                    preexec_fn=dying_with(os.getpid()),  # noqa: PLW1509
                )
            )

    def start_cluster(self, command: str, expected: str) -> str:
        """Run `respkv up`, wait for its banner, and learn which processes it speaks of."""
        output = self.folder / "up.log"
        self.start(f"{command} --port {FIRST_PORT}", output)
        deadline = time.monotonic() + START_S
        while READY not in output.read_text() and self.started[-1].poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        printed = output.read_text()
        row = re.compile(r"^  n\d +(\d+) +(\d+) ", re.MULTILINE)
        ours: dict[str, str] = dict(row.findall(printed))
        self.process_ids |= {process: ours[self.adapted(port)] for port, process in row.findall(expected) if ours}
        return printed

    def run(self, program: list[str], text: str) -> subprocess.CompletedProcess[str]:
        """Run something to its end."""
        # redis-cli writes as it does for people; `respkv status` asks the first node unless it is told otherwise.
        environment = os.environ | {"FAKETTY": "1", "COLUMNS": "140", "NO_COLOR": "1", "RESPKV_PORT": str(self.first_port)}
        return subprocess.run(
            [*program, self.adapted(text)],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )

    def type(self, command: str, expected: str) -> str:
        """Type one command, again if need be until it prints what is expected; what it printed at last."""
        if command.endswith("&"):
            self.start(command.removesuffix("&"), self.folder / f"background-{len(self.started)}.log")
            return expected
        if command.endswith("respkv up"):
            return self.start_cluster(command, expected)
        # What has an effect besides its output is done once.
        patience_s = 0.0 if command.startswith("kill") or "--pipe" in command else SETTLE_S
        deadline = time.monotonic() + patience_s
        while True:
            done = self.run(["bash", "-c"], command)
            printed = done.stdout + done.stderr
            if is_told_by(self.adapted(expected), printed) or time.monotonic() >= deadline:
                return printed
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop what was started, each with the shell that started it."""
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
        for process in self.started:
            try:
                process.wait(COMMAND_S / 2)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def steps_of(body: str) -> Iterator[tuple[str, str]]:
    """The commands of a `console` block, each with the output below it."""
    for step in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        command, _, expected = step.partition("\n")
        while command.endswith("\\"):
            line, _, expected = expected.partition("\n")
            command = f"{command}\n{line}"
        yield command, expected


def work_through(block: Block, reader: Reader) -> None:
    """Do what a block says, and see that it comes out as the README says."""
    match block.language:
        case "console":
            for command, expected in steps_of(block.body):
                printed = reader.type(command, expected)
                assert is_told_by(reader.adapted(expected), printed), (
                    f"{block.place}: {command}\n--- expected\n{expected}\n--- printed\n{printed}"
                )
        case "sh" | "python":
            program = ["bash", "-euc"] if block.language == "sh" else [sys.executable, "-c"]
            done = reader.run(program, block.body)
            assert done.returncode == 0, f"{block.place}: exit code {done.returncode}\n{block.body}\n---\n{done.stdout}{done.stderr}"
        case _:
            pass


# --- tests


def test_tables_are_those_of_the_code() -> None:
    assert generated(TEXT) == TEXT, "run tools/generate_readme.py"


def test_blocks_say_what_they_are() -> None:
    assert TEXT.count("\n```") == 2 * len(BLOCKS)
    assert {block.language for block in BLOCKS} <= LANGUAGES
    for block in BLOCKS:
        if block.language == "console":
            assert block.body.startswith("$ "), block.place


def test_configurations_are_accepted() -> None:
    for block in BLOCKS:
        if block.language == "conf":
            configure([block.place], read=lambda path, block=block: [(path, block.body)])  # type: ignore[misc]


def test_directives_that_are_named_exist() -> None:
    prose = BLOCK.sub("", TEXT)
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)(?: [^`]*)?`", prose)) - NOT_DIRECTIVES
    assert [name for name in sorted(named) if lookup(name) is None] == []


def test_links_lead_somewhere() -> None:
    headings = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", BLOCK.sub("", TEXT)):
        assert target.removeprefix("#") in headings if target.startswith("#") else (ROOT / target).exists(), target


@pytest.mark.cluster
@pytest.mark.stock("redis-cli")
def test_every_command_does_what_it_shows(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    try:
        for block in BLOCKS:
            if block.reason is None:
                work_through(block, reader)
        info = reader.run(["bash", "-c"], f"redis-cli -p {FIRST_PORT} INFO everything").stdout
    finally:
        reader.stop()
    assert "All nodes ended." in (tmp_path / "up.log").read_text()
    fields = {line.split(":")[0] for line in info.splitlines()}
    # Those that end in _ are named after a node.
    named = {name for name in re.findall(r"\brespkv_[a-z0-9_]+", TEXT) if not name.endswith("_")}
    assert sorted(named - fields) == []
