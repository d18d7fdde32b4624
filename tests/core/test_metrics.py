"""Counters add up, durations become percentiles."""

from edge.core.metrics import Metrics


def test_metrics_count_and_time():
    metrics = Metrics()
    metrics.count("events.match")
    metrics.count("events.match", 2)
    for value in range(1, 101):
        metrics.record_ms("detect", value)
    with metrics.timed("embed") as watch:
        sum(range(1000))
    assert metrics.counts() == {"events.match": 3}
    assert metrics.percentiles_ms()["detect"] == {"p50": 50.5, "p95": 95.05}
    assert metrics.totals_ms()["detect"] == 5050
    assert metrics.totals_ms()["embed"] == watch.spent_ms > 0
