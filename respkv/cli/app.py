"""The commands, their options and their help. What they do is in the other files, imported when it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EVERYTHING_ELSE = {"ignore_unknown_options": True, "allow_extra_args": True}

app = typer.Typer(
    name="respkv",
    help="A Redis-protocol server cluster that keeps its data the way Amazon's Dynamo does.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["--help"]},
)

HostOption = Annotated[str, typer.Option("--host", "-h", envvar="RESPKV_HOST", help="The node to ask; any will do.")]
PortOption = Annotated[int, typer.Option("--port", "-p", envvar="RESPKV_PORT", min=1, max=65535, help="Its port.")]
PasswordOption = Annotated[
    str | None, typer.Option("--pass", "-a", envvar="REDISCLI_AUTH", show_default=False, help="The password (requirepass).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the node's reply as JSON.")]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7001


def run_app(arguments: list[str]) -> int:
    """Run one command; typer ends the process with its exit code."""
    app(args=arguments, prog_name="respkv")
    return 0


def show_version(wanted: bool) -> None:  # noqa: FBT001  (typer calls it)
    """Print the version where `--version` was given, and end."""
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def options(
    *,
    show: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """A Redis-protocol server cluster that keeps its data the way Amazon's Dynamo does."""
    del show


@app.command(context_settings=EVERYTHING_ELSE, options_metavar="[CONF_FILE] [--directive value ...]", short_help="Run one node.")
def server() -> None:
    """Run one node.

    CONF_FILE holds directives as redis.conf does (- is standard input). Every directive can also be given
    as an option, as redis-server takes them, and then wins over the file: `respkv server my.conf --port 7001
    --maxmemory 1gb`. The directives, their units and their defaults are explained in conf/respkv.conf.

    SIGTERM and SIGINT shut the node down cleanly. Exit code 0: it was told to stop; 1: it could not start (configuration,
    ports, directory in use); 2: the disk failed; 3: durable data is damaged and no other node has a copy; 70: a bug.
    """
    raise AssertionError("`entry` runs the server before typer is imported")


@app.command(
    context_settings=EVERYTHING_ELSE,
    options_metavar="[OPTIONS] [--directive value ...]",
    short_help="Run a local cluster of real processes.",
)
def up(
    context: typer.Context,
    *,
    nodes: Annotated[int | None, typer.Option(min=1, max=100, help="How many nodes.", show_default="5, or what the folder holds")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="The first node's port; the others follow.", show_default="7001, or what the folder holds"),
    ] = None,
    folder: Annotated[Path, typer.Option("--dir", help="Where the data is kept.")] = Path("respkv-data"),
    restart: Annotated[bool, typer.Option("--restart", help="Start nodes again that die; not those that were told to stop.")] = False,
) -> None:
    """Run a local cluster: one process for each node, on consecutive ports, until Ctrl-C.

    Each node has its own folder and respkv.conf under DIR; started again on the same DIR, the cluster finds
    its data. Further directives (--directive value ...) are written into each node's respkv.conf and stay
    there: `respkv up --write-quorum all --maxmemory 100mb`. A running cluster is tuned with CONFIG SET, and
    what was set there for the whole cluster wins over the files.

    A node that dies stays down, so that you can watch the others go on; the line that starts it again is
    shown at the start. A node that you start with it is yours: Ctrl-C here does not stop it, but says how to.

    Exit code 0: stopped as asked; 1: the cluster could not start, or no node is left.
    """
    from respkv.cli.up import run_cluster

    raise typer.Exit(run_cluster(folder, nodes=nodes, first_port=port, restart=restart, arguments=context.args))


@app.command(short_help="Show every node and how it is.")
def status(
    *,
    host: HostOption = DEFAULT_HOST,
    port: PortOption = DEFAULT_PORT,
    password: PasswordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every node: up or down, its share of the ring, keys, bytes, hints held for it, phi, uptime.

    Exit code 0: all nodes are up; 1: some are not; 2: the node that was asked did not answer.
    """
    from respkv.cli.connection import Address
    from respkv.cli.status import show_status

    raise typer.Exit(show_status(Address(host, port, password), as_json=as_json))


@app.command(short_help="Show where a key lives and what its replicas hold.")
def key(
    *,
    name: Annotated[str, typer.Argument(metavar="KEY", help="The key, as you would give it to redis-cli.")],
    host: HostOption = DEFAULT_HOST,
    port: PortOption = DEFAULT_PORT,
    password: PasswordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where a key lives, and what each replica holds: version, type, size, time to live.

    Exit code 0: all replicas are in step; 1: some are not; 2: the node that was asked did not answer.
    """
    from respkv.cli.connection import Address
    from respkv.cli.key import show_key

    raise typer.Exit(show_key(Address(host, port, password), name, as_json=as_json))


@app.command("compile", short_help="Compile the hot files, for a faster node.")
def compile_hot() -> None:
    """Compile the files that every request passes through, with Cython and the system's C compiler, for this Python environment.

    A node works without this, more slowly. `./tools/respkv` does it by itself; where respkv is installed with pip, install it as
    `respkv[compile]` and run this once, and again after each upgrade. A node loads what is compiled only if it was made from exactly
    the text of its present files; RESPKV_COMPILED=no in its environment makes it run interpreted. Its first log lines and
    `INFO respkv` say which it is.

    Exit code 0: all is compiled; 1: it is not, and the reason was shown.
    """
    from respkv.cli.compilation import compile_hot_modules

    raise typer.Exit(compile_hot_modules())


@app.command(short_help="Compare replicas now, and bring them together.")
def repair(
    *,
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition.", show_default="all")] = None,
    node: Annotated[str | None, typer.Option(help="Only the pairs of this node: its id, or HOST:PORT.", show_default="all")] = None,
    host: HostOption = DEFAULT_HOST,
    port: PortOption = DEFAULT_PORT,
    password: PasswordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the replicas of all keys, partition by partition, and send each what it lacks.

    The nodes do this by themselves every anti-entropy-interval; this does it now and tells when it is done.

    Exit code 0: all that was asked for was compared; 1: not all of it; 2: the node that was asked did not answer.
    """
    from respkv.cli.connection import Address
    from respkv.cli.repair import run_repair

    raise typer.Exit(run_repair(Address(host, port, password), partition=partition, node=node, as_json=as_json))


@app.command()
def version() -> None:
    """Show the version of respkv, of Python, and of the system."""
    import platform

    from respkv import __version__

    print(f"respkv {__version__} (Python {platform.python_version()}, {platform.system()} {platform.release()} {platform.machine()})")
