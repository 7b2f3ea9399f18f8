"""Arguments that each directive takes, made up."""

from __future__ import annotations

from hypothesis import strategies as st

from respkv.config.directive import Directive, Kind
from respkv.config.directives import DIRECTIVES
from respkv.config.settings import Settings
from respkv.config.values import QUORUM_WORDS, UnfitArgumentError

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
ZONES = st.text("abcXYZ019-_.", max_size=8)
FOUNDERS = st.builds("{}:{}".format, st.sampled_from(["10.0.0.1", "node-1.example", "[::1]"]), st.integers(1, 55535))
ADDRESSES = st.sampled_from(["127.0.0.1", "-::1", "*", "10.1.2.3"])


def numbers(directive: Directive) -> st.SearchStrategy[str]:
    return st.integers(directive.minimum, directive.maximum).map(str)


def sizes(directive: Directive) -> st.SearchStrategy[str]:
    units = {"": 1, "kb": 1024, "mb": 1024**2, "k": 1000}
    written = st.tuples(st.integers(0, 1 << 40), st.sampled_from(sorted(units)))
    fitting = written.filter(lambda pair: directive.minimum <= pair[0] * units[pair[1]] <= directive.maximum)
    return st.one_of(numbers(directive), fitting.map(lambda pair: f"{pair[0]}{pair[1]}"))


def strings(directive: Directive) -> st.SearchStrategy[str]:
    if directive.name == "availability-zone":
        return ZONES
    if directive.name == "cluster-secret":
        return st.one_of(st.just(""), st.text(min_size=16, max_size=40).filter(is_encodable))
    return WORDS


def is_encodable(text: str) -> bool:
    return not any(0xD800 <= ord(character) < 0xE000 for character in text)


PREFIX_POLICIES = st.builds("{} {}".format, st.sampled_from(["cart:", "a=b", "\u00e9"]), st.sampled_from(["lww", "siblings"]))


def lists(directive: Directive) -> st.SearchStrategy[str]:
    items = {"bind": ADDRESSES, "cluster-nodes": FOUNDERS, "conflict-resolution-prefix": PREFIX_POLICIES}[directive.name]
    return st.lists(items, min_size=directive.minimum, max_size=4).map(" ".join)


def buffer_limits() -> st.SearchStrategy[str]:
    one = st.builds(
        "{} {} {} {}".format,
        st.sampled_from(["normal", "slave", "replica", "pubsub"]),
        st.sampled_from(["0", "1mb", "12345"]),
        st.sampled_from(["0", "1kb", "99"]),
        st.integers(0, 1000),
    )
    return st.lists(one, min_size=1, max_size=3).map(" ".join)


def arguments(directive: Directive) -> st.SearchStrategy[str]:
    """What CONFIG SET might be given for a directive, by an operator who knows it."""
    match directive.kind:
        case Kind.BOOL:
            return st.sampled_from(["yes", "no", "YES"])
        case Kind.INTEGER:
            if directive.name == "ring-size":
                return st.integers(4, 14).map(lambda exponent: str(1 << exponent))
            return numbers(directive)
        case Kind.MEMORY:
            return sizes(directive)
        case Kind.ENUM:
            return st.sampled_from(directive.choices)
        case Kind.STRING:
            return strings(directive)
        case Kind.LIST:
            return lists(directive)
        case Kind.QUORUM:
            return st.one_of(st.sampled_from(QUORUM_WORDS), numbers(directive))
        case Kind.BUFFER_LIMITS:
            return buffer_limits()


@st.composite
def changed_settings(draw: st.DrawFn) -> Settings:
    """Settings with some directives set, each one for itself good."""
    settings = Settings()
    for directive in draw(st.lists(st.sampled_from(DIRECTIVES), max_size=8)):
        settings.assign(directive, [draw(arguments(directive))])
    return settings


def fits(settings: Settings, directive: Directive, text: str) -> bool:
    try:
        settings.copy().assign(directive, [text])
    except UnfitArgumentError:
        return False
    return True
