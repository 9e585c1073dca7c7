"""Results are counted when they are written: exactly once, also if their object is deleted soon."""

from __future__ import annotations

from typing import Any

from tunesmith.metrics.activity import GPU_SECONDS, VERDICTS

Object = dict[str, Any]


def count_results(source: Object, status: Object) -> None:
    """What this status, which was just written over that of ``source``, says for the first time."""
    namespace, before = source["metadata"]["namespace"], source.get("status", {})
    if "verdict" in status and "verdict" not in before:
        VERDICTS.labels(namespace, status["verdict"]).inc()
    if (used := _gpu_seconds(status) - _gpu_seconds(before)) > 0:
        GPU_SECONDS.labels(namespace).inc(used)


def _gpu_seconds(status: Object) -> int:
    return int(status.get("usage", {}).get("gpuSeconds", 0))
