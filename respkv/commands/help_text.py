"""What `CONTAINER HELP` answers, in Redis's form."""

from __future__ import annotations

from respkv.resp.writer import array, simple


def help_reply(container: str, text: str) -> bytes:
    """The lines of a text: subcommands at its margin, what they do indented by four."""
    first = f"{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    return array([simple(line) for line in (first, *text.strip("\n").split("\n"), "HELP", "    Print this help.")])
