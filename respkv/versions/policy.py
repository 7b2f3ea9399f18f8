"""Which keys keep siblings: `conflict-resolution` and its exceptions by prefix. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SIBLINGS_WORD = "siblings"


class ConflictPolicy:
    """What happens to concurrent writes of a key: the last one wins, or all are kept until somebody resolves them."""

    __slots__ = ("_default", "_prefixes", "is_used")

    def __init__(self, default: str = "lww", prefixes: Iterable[tuple[bytes, str]] = ()) -> None:
        """`default` and the policy of each prefix are `lww` or `siblings`."""
        self._default = default == SIBLINGS_WORD
        # The longest prefix that fits decides, so it is asked first.
        self._prefixes = [
            (prefix, policy == SIBLINGS_WORD) for prefix, policy in sorted(prefixes, key=lambda item: len(item[0]), reverse=True)
        ]
        self.is_used = self._default or any(keeps for _, keeps in self._prefixes)
        """Whether any key keeps siblings."""

    def keeps_siblings(self, key: bytes) -> bool:
        """Whether concurrent writes of this key are all kept."""
        for prefix, keeps in self._prefixes:
            if key.startswith(prefix):
                return keeps
        return self._default
