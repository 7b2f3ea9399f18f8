"""Numbers as people read them. Pure."""

from __future__ import annotations

UNKNOWN = "?"
SECONDS_PER_MINUTE = 60
SECONDS_PER_HOUR = 3600
SECONDS_PER_DAY = 86400


def show_nodes(count: int) -> str:
    """`1 node`, `5 nodes`."""
    return "1 node" if count == 1 else f"{count} nodes"


def show_bytes(count: int | None) -> str:
    """`1.21 GiB`."""
    if count is None:
        return UNKNOWN
    return _scaled(count, step=1024, units=("B", "KiB", "MiB", "GiB", "TiB", "PiB"), gap=" ")


def show_count(count: int | None) -> str:
    """`12.4k`."""
    if count is None:
        return UNKNOWN
    return _scaled(count, step=1000, units=("", "k", "M", "G", "T"), gap="")


def show_share(ratio: float | None) -> str:
    """`25.4%`."""
    return UNKNOWN if ratio is None else f"{ratio * 100:.1f}%"


def show_duration(seconds: float | None) -> str:
    """`58s`, `2m11s`, `3h05m`, `3d04h`: the two units that matter."""
    if seconds is None:
        return UNKNOWN
    whole = int(seconds)
    if whole < SECONDS_PER_MINUTE:
        return f"{whole}s"
    if whole < SECONDS_PER_HOUR:
        return f"{whole // SECONDS_PER_MINUTE}m{whole % SECONDS_PER_MINUTE:02}s"
    if whole < SECONDS_PER_DAY:
        return f"{whole // SECONDS_PER_HOUR}h{whole % SECONDS_PER_HOUR // SECONDS_PER_MINUTE:02}m"
    return f"{whole // SECONDS_PER_DAY}d{whole % SECONDS_PER_DAY // SECONDS_PER_HOUR:02}h"


def _scaled(count: int, *, step: int, units: tuple[str, ...], gap: str) -> str:
    """Three significant figures and the unit they need."""
    amount, place = float(count), 0
    # 999.95 would be shown as 1000 of the smaller unit.
    while amount >= step - 0.5 and place < len(units) - 1:
        amount /= step
        place += 1
    if place == 0:
        return f"{count}{gap}{units[0]}"
    decimals = 2 if amount < 9.995 else 1 if amount < 99.95 else 0
    return f"{amount:.{decimals}f}{gap}{units[place]}"
