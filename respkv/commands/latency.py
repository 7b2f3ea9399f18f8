"""LATENCY: what was slow on this node, and how long the clients of each command waited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from respkv.commands.help_text import help_reply
from respkv.commands.table import COMMANDS, command, find
from respkv.errors import ClientError
from respkv.resp.writer import encode, integer, verbatim

if TYPE_CHECKING:
    from collections.abc import Iterator

    from respkv.commands.context import Context, Request
    from respkv.commands.table import Command
    from respkv.metrics import Event, LatencyHistogram

_ADMIN = "admin noscript loading stale"
GRAPH_COLUMNS_MAX = 80
GRAPH_ROWS = 4
GRAPH_MARKS = "_o#"
HELP = """
DOCTOR
    Return a human readable latency analysis report.
GRAPH <event>
    Return an ASCII latency graph for the <event> class.
HISTORY <event>
    Return time-latency samples for the <event> class.
LATEST
    Return the latest latency samples for all events.
RESET [<event> ...]
    Reset latency data of one or more <event> classes.
    (default: reset all data for all event classes)
HISTOGRAM [COMMAND ...]
    Return a cumulative distribution of latencies in the format of a histogram for the specified command names.
    If no commands are specified then all histograms are replied."""
DISABLED = (
    "I'm sorry, Dave, I can't do that. Latency monitoring is disabled in this node. You may use "
    '"CONFIG SET latency-monitor-threshold <milliseconds>." in order to enable it.\n'
)
NOTHING = "Dave, no latency spike was observed during the lifetime of this node, not in the slightest bit.\n"
ADVICE = {
    "command": "Clients waited this long for a command: SLOWLOG GET shows which. With many keys in one command, or replicas far away, "
    "that is to be expected; otherwise compare RESPKV STATUS and the quorum section of INFO on the other nodes.",
    "quorum-timeout": "Too few replicas answered a read or a write in time: SLOWLOG GET shows some of them, RESPKV STATUS which nodes are "
    "away. If all are up, they are too busy, or the values too long for request-timeout.",
    "loop-lag": "The node's own loop came late: its processor was busy elsewhere, or the machine swapped or paused. "
    "Meanwhile it suspects others more patiently and asks no further replicas (loop-lag-threshold).",
}


def histograms(context: Context) -> Iterator[tuple[Command, LatencyHistogram]]:
    """How long the clients of each command waited, where there is anything to tell.

    Plain GETs and SETs are not timed one by one: theirs are the latencies of all reads and writes by quorum.
    """
    by_quorum = {"GET": context.coordinator.statistics.read_latencies, "SET": context.coordinator.statistics.write_latencies}
    for entry in COMMANDS.values():
        for each in (entry, *entry.subcommands.values()):
            told = by_quorum.get(each.name, each.statistics.latencies)
            histogram = told if told.count else each.statistics.latencies
            if each.statistics.calls and histogram.count:
                yield each, histogram


@command("LATENCY", arity=-2, group="server", since="2.8.13", complexity="Depends on subcommand.")
def latency(request: Request) -> bytes:
    """A container for latency diagnostics commands."""
    raise NotImplementedError(request)


@command("LATENCY|LATEST", arity=2, flags=_ADMIN, group="server", since="2.8.13", complexity="O(1)")
def latency_latest(request: Request) -> bytes:
    """Returns the latest latency samples for all events."""
    events = request.context.slow_events.events
    return encode([[name, *event.samples[-1], event.longest_ms] for name, event in events.items()], request.resp)


@command("LATENCY|HISTORY", arity=3, flags=_ADMIN, group="server", since="2.8.13", complexity="O(1)")
def latency_history(request: Request) -> bytes:
    """Returns timestamp-latency samples for an event."""
    event = _event(request)
    return encode([list(sample) for sample in event.samples] if event else [], request.resp)


@command("LATENCY|RESET", arity=-2, flags=_ADMIN, group="server", since="2.8.13", complexity="O(1)")
def latency_reset(request: Request) -> bytes:
    """Resets the latency data for one or more events."""
    events = request.context.slow_events.events
    names = [word.decode("utf-8", "surrogateescape") for word in request.args[2:]] or list(events)
    return integer(sum(events.pop(name, None) is not None for name in names))


@command("LATENCY|HISTOGRAM", arity=-2, flags=_ADMIN, group="server", since="7.0.0", complexity="O(N) where N is the number of commands")
def latency_histogram(request: Request) -> bytes:
    """Returns the cumulative distribution of latencies of a subset or all commands."""
    names = {entry.name for word in request.args[2:] if (entry := find(word)) is not None}
    told = {
        each.shown_name: {"calls": histogram.count, "histogram_usec": dict(histogram.powers_of_two())}
        for each, histogram in histograms(request.context)
        if len(request.args) == 2 or each.name.partition("|")[0] in names
    }
    return encode(told, request.resp)


@command("LATENCY|DOCTOR", arity=2, flags=_ADMIN, group="server", since="2.8.13", complexity="O(1)")
def latency_doctor(request: Request) -> bytes:
    """Returns a human-readable latency analysis report."""
    context = request.context
    events = context.slow_events.events
    if not events:
        return verbatim(NOTHING if context.settings.latency_monitor_threshold else DISABLED, request.resp)
    lines = ["Dave, I have observed latency spikes in this node.", ""]
    for number, (name, event) in enumerate(events.items(), start=1):
        values = [milliseconds for _, milliseconds in event.samples]
        mean = sum(values) // len(values)
        lines.append(f"{number}. {name}: {len(values)} latency spikes (average {mean}ms). Worst all time event {event.longest_ms}ms.")
    lines += ["", "I have a few advices for you:", ""]
    lines += [f"- {ADVICE[name]}" for name in events if name in ADVICE]
    return verbatim("\n".join(lines) + "\n", request.resp)


@command("LATENCY|GRAPH", arity=3, flags=_ADMIN, group="server", since="2.8.13", complexity="O(1)")
def latency_graph(request: Request) -> bytes:
    """Returns a latency graph for an event."""
    event = _event(request)
    name = request.args[2].decode("utf-8", "surrogateescape")
    if event is None:
        raise ClientError(f"No samples available for event '{name}'")
    return verbatim(graph(name, event, now_s=request.now_ms // 1000), request.resp)


@command("LATENCY|HELP", arity=2, flags="loading stale", group="server", since="2.8.13", complexity="O(1)")
def latency_help(request: Request) -> bytes:
    """Returns helpful text about the different subcommands."""
    del request
    return help_reply("LATENCY", HELP)


def _event(request: Request) -> Event | None:
    return request.context.slow_events.events.get(request.args[2].decode("utf-8", "surrogateescape"))


def graph(name: str, event: Event, *, now_s: int) -> str:
    """Columns of marks, a column for each sample, and under each how long ago it was, from top to bottom."""
    samples = list(event.samples)[-GRAPH_COLUMNS_MAX:]
    values = [milliseconds for _, milliseconds in samples]
    low, high = min(values), max(values)
    steps = GRAPH_ROWS * len(GRAPH_MARKS) - 1
    heights = [(value - low) * steps // (high - low) if high > low else 0 for value in values]
    lines = [f"{name} - high {high} ms, low {low} ms (all time high {event.longest_ms} ms)", "-" * GRAPH_COLUMNS_MAX]
    for row in reversed(range(GRAPH_ROWS)):
        marks = [height - row * len(GRAPH_MARKS) for height in heights]
        drawn = [GRAPH_MARKS[mark] if 0 <= mark < len(GRAPH_MARKS) else "|" if mark >= len(GRAPH_MARKS) else " " for mark in marks]
        lines.append("".join(drawn))
    ages = [_age(now_s - unix_s) for unix_s, _ in samples]
    lines.append("")
    lines += ["".join(age[place] if place < len(age) else " " for age in ages) for place in range(max(map(len, ages)))]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _age(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{max(seconds, 0)}s"
