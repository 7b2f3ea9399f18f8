from __future__ import annotations

from respkv.cli.restarts import Restarts


def test_a_node_that_keeps_dying_is_given_ever_more_time() -> None:
    restarts = Restarts()
    delays = []
    for now in range(8):
        restarts.started(float(now))
        delays.append(restarts.died(float(now)))
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_node_that_had_run_for_a_minute_is_back_at_once() -> None:
    restarts = Restarts()
    restarts.started(0.0)
    restarts.died(1.0)
    restarts.died(2.0)
    restarts.started(10.0)
    assert restarts.died(70.0) == 1.0


def test_it_is_due_once() -> None:
    restarts = Restarts()
    restarts.started(0.0)
    assert not restarts.is_due(100.0)
    assert not restarts.is_pending()
    restarts.died(100.0)
    assert restarts.is_pending()
    assert not restarts.is_due(100.9)
    assert restarts.is_due(101.0)
    restarts.started(101.0)
    assert not restarts.is_due(102.0)
