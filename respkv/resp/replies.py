"""Whether bytes are a reply: asked of what another node made, before it goes to a client. Pure.

It looks at the frame alone and makes nothing of it: a parser would reserve memory for whatever length is claimed.
"""

from __future__ import annotations

_TEXTS = frozenset(b"+-")
_NUMBERS = frozenset(b":(")
_WORDS = frozenset(b",#_")
_BLOBS = frozenset(b"$!=")
_LISTS = {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2}
"""How many replies each unit of their length stands for."""
_DIGITS_MAX = 10


def is_one_reply(data: bytes) -> bool:
    """Whether this is one reply of RESP2 or RESP3, with nothing lacking and nothing left."""
    wanted, position = 1, 0
    while wanted:
        end = data.find(b"\r\n", position)
        if end <= position or wanted > len(data):
            return False
        kind, rest = data[position], data[position + 1 : end]
        position = end + 2
        wanted -= 1
        if kind in _TEXTS or kind in _WORDS or rest == b"-1":
            continue
        if kind in _NUMBERS:
            if not rest.removeprefix(b"-").isdigit():
                return False
            continue
        if not rest.isdigit() or len(rest) > _DIGITS_MAX:
            return False
        if kind in _BLOBS:
            position += int(rest) + 2
            if data[position - 2 : position] != b"\r\n":
                return False
        elif kind in _LISTS:
            wanted += int(rest) * _LISTS[kind]
        else:
            return False
    return position == len(data)
