from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from respkv.config.changes import apply
from respkv.config.checks import start_problem
from respkv.config.conf_lines import line_for
from respkv.config.directives import BY_NAME, DIRECTIVES
from respkv.config.reference import reference_conf
from respkv.config.rewrite import GENERATED, rewrite
from respkv.config.settings import Settings
from respkv.config.start import configure
from tests.config.strategies import changed_settings

FILE = """\
# top comment
port 7001

# about timeout
timeout   5
timeout 7
  tcp-keepalive 100
N-VAL 2
of-another-program yes
maxmemory 100mb
"""


def with_changes(**directives: str) -> Settings:
    settings = Settings()
    apply(settings, {"port": "7001", "timeout": "7", "tcp-keepalive": "100", "replication-factor": "2", "maxmemory": "100mb"})
    apply(settings, {name.replace("_", "-"): text for name, text in directives.items()})
    return settings


def test_a_file_that_says_what_is_set_stays_as_it_is() -> None:
    assert rewrite(FILE, with_changes()) == FILE


def test_lines_are_replaced_where_they_first_stand() -> None:
    assert rewrite(FILE, with_changes(timeout="0", replication_factor="5", maxmemory="1gb")) == (
        FILE.replace("timeout   5\ntimeout 7\n", "timeout 0\n").replace("N-VAL 2", "replication-factor 5").replace("100mb", "1gb")
    )


def test_what_is_new_is_appended_once() -> None:
    settings = with_changes(maxclients="500", requirepass='a b\x01"\\')
    text = rewrite(FILE, settings)
    assert text == f'{FILE}\n{GENERATED}\nmaxclients 500\nrequirepass "a b\\x01\\"\\\\"\n'
    assert rewrite(text, settings) == text
    more = with_changes(maxclients="500", requirepass='a b\x01"\\', loglevel="debug")
    assert rewrite(text, more) == f"{text}loglevel debug\n"


def test_what_was_set_back_to_its_default_is_written_if_somebody_set_it() -> None:
    assert rewrite("", Settings(), overridden={"timeout"}) == f"{GENERATED}\ntimeout 0\n"
    assert rewrite("", Settings()) == ""


def test_an_included_file_does_not_undo_a_change() -> None:
    settings = with_changes(timeout="9")
    text = rewrite("timeout 1\ninclude more.conf\nport 7001\n", settings)
    assert text.split("\n")[0] == "include more.conf"
    read = {"a.conf": text, "more.conf": "timeout 2\nport 1\n"}
    assert configure(["a.conf"], read=lambda path: [(path, read[path])]).settings == settings
    assert rewrite(text, settings) == text


def test_buffer_limits_of_several_lines_become_one() -> None:
    text = "client-output-buffer-limit normal 1mb 0 0\nclient-output-buffer-limit pubsub 2mb 0 0\n"
    settings = Settings()
    apply(settings, {"client-output-buffer-limit": "normal 1mb 0 0 pubsub 2mb 0 0"})
    assert rewrite(text, settings) == text
    apply(settings, {"client-output-buffer-limit": "pubsub 3mb 0 0"})
    assert rewrite(text, settings) == "client-output-buffer-limit normal 1mb 0 0 slave 256mb 64mb 60 pubsub 3mb 0 0\n"


def test_lines_that_are_broken_are_left_to_their_owner() -> None:
    text = 'timeout "5\ntimeout many\n'
    assert rewrite(text, with_changes(timeout="5")).startswith('timeout "5\ntimeout 5\n')


@given(changed_settings(), changed_settings(), st.booleans())
def test_the_file_brings_the_settings_back(before: Settings, settings: Settings, from_reference: bool) -> None:  # noqa: FBT001
    lines = [line_for(directive, before.value(directive)) for directive in DIRECTIVES if directive.name in before.changed()]
    text = reference_conf() if from_reference else "# mine\n" + "\n".join(lines)
    written = rewrite(text, settings)
    assert rewrite(written, settings) == written
    if start_problem(settings) is None:
        assert configure(["a.conf"], read=lambda path: [(path, written)]).settings == settings


@given(changed_settings())
def test_comments_and_their_order_survive(settings: Settings) -> None:
    def comments(text: str) -> list[str]:
        return [line for line in text.split("\n") if line.startswith("#") and line != GENERATED]

    assert comments(rewrite(reference_conf(), settings)) == comments(reference_conf())


def test_every_directive_can_be_written() -> None:
    settings = Settings()
    for name in ("bind", "cluster-nodes", "requirepass"):
        assert name in BY_NAME
        assert rewrite("", settings, overridden={name}).count("\n") == 2
