from __future__ import annotations

import pytest

from respkv.cli.units import show_bytes, show_count, show_duration, show_nodes, show_share


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "?"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (10 * 1024, "10.0 KiB"),
        (1300000000, "1.21 GiB"),
        (2**80, "1073741824 PiB"),
    ],
)
def test_bytes(count: int | None, shown: str) -> None:
    assert show_bytes(count) == shown


@pytest.mark.parametrize(("count", "shown"), [(None, "?"), (0, "0"), (999, "999"), (1000, "1.00k"), (12400, "12.4k"), (999_950, "1.00M")])
def test_counts(count: int | None, shown: str) -> None:
    assert show_count(count) == shown


def test_shares() -> None:
    assert [show_share(ratio) for ratio in (None, 0.0, 0.254, 1.0)] == ["?", "0.0%", "25.4%", "100.0%"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "?"), (0.4, "0s"), (58, "58s"), (131, "2m11s"), (3 * 3600 + 5 * 60, "3h05m"), (86400 * 3 + 4 * 3600, "3d04h")],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert show_duration(seconds) == shown


def test_nodes() -> None:
    assert [show_nodes(count) for count in (1, 2)] == ["1 node", "2 nodes"]
