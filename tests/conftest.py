"""What all tests share: programs that are not ours are used where they exist."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import HealthCheck, settings

from tools.programs import PACKAGES

# How long an example takes says something about the machine only.
settings.register_profile("respkv", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("respkv")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the remedy, what needs a program that this machine lacks."""
    for item in items:
        needed = [program for marker in item.iter_markers("stock") for program in marker.args]
        missing = [program for program in needed if shutil.which(program) is None]
        if missing:
            packages = sorted({PACKAGES[program] for program in missing})
            item.add_marker(pytest.mark.skip(reason=f"{', '.join(missing)} missing: install Debian's {', '.join(packages)}"))
