from __future__ import annotations

from respkv.server.housekeeping import process_facts


def test_the_memory_of_the_process_is_part_of_the_machines() -> None:
    facts = process_facts()
    assert 0 < facts["rss_bytes"] < facts["total_system_memory"]
    assert 0 < facts["rss_peak_bytes"] < facts["total_system_memory"]
