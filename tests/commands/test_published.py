from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from respkv.commands.partition_walk import speakers
from respkv.commands.published import ID_DIGITS, decode_hints, encode_away, encode_hints
from respkv.membership.members import APPLICATION_TEXT_LEN_MAX
from tests.commands.node_alone import World

NODES = st.text("0123456789abcdef", min_size=40, max_size=40)


@given(st.dictionaries(NODES, st.integers(1, 10**9), max_size=40))
def test_hints_survive_their_way_through_gossip(counts: dict[str, int]) -> None:
    text = encode_hints(counts)
    assert len(text) <= APPLICATION_TEXT_LEN_MAX
    told = decode_hints(text)
    assert (
        told.items() <= {owner[:ID_DIGITS]: count for owner, count in sorted(counts.items(), key=lambda item: (item[1], item[0]))}.items()
    )
    if len(counts) <= 12:
        assert len(told) == len({owner[:ID_DIGITS] for owner in counts})


def test_nonsense_counts_as_nothing() -> None:
    assert [decode_hints(text) for text in (None, 7, "", "x", "a:", "a:-1", "a:b,c:3,:")] == [{}, {}, {}, {}, {}, {}, {"c": 3}]


def test_a_node_that_lacks_writes_does_not_speak_until_it_has_them() -> None:
    world = World(3)
    context = world.processes[0].node.context
    first = speakers(context)
    assert set(first) == {address.node for address in world.addresses}
    lagging = world.addresses[1].node
    # Another node says so.
    world.processes[2].node.hints.restore(lagging, [b"a", b"b"], world.now, changed=False)
    world.processes[2].node.handoff.usable = frozenset()
    world.processes[2].node.pulse.due = world.now
    world.advance(0.9)
    assert lagging not in speakers(context)


@given(st.lists(NODES, max_size=40, unique_by=lambda node: node[:ID_DIGITS]))
def test_the_text_of_who_is_away_has_room_in_gossip(nodes: list[str]) -> None:
    text = encode_away(nodes)
    assert len(text) <= APPLICATION_TEXT_LEN_MAX
    if len(nodes) <= 28:
        assert set(filter(None, text.split(","))) == {node[:ID_DIGITS] for node in nodes}
