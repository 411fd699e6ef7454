"""What each live variant has done since it was loaded.

Specification: Triton's extension_statistics.md. There is no batching and no cache here: each
request is one execution, whatever its shape.
"""

import time
from typing import Any

from agent.serving.api import Answer, Match, Request, as_json
from agent.serving.meter import Totals
from agent.serving.service import Service
from agent.serving.variant import Variant

_NOTHING = {"count": 0, "ns": 0}


def one(service: Service, _request: Request, match: Match) -> Answer:
    """The statistics of one model."""
    variant = service.slots.find(match["name"], match["version"])
    return as_json({"model_stats": [_variant(variant)]})


def all_models(service: Service, _request: Request, _match: Match) -> Answer:
    """The statistics of all models."""
    return as_json({"model_stats": [_variant(variant) for variant in service.slots]})


def _variant(variant: Variant) -> dict[str, Any]:
    document = describe(
        variant.meter.totals(), now_ms=time.time_ns() // 10**6, now_ns=time.perf_counter_ns()
    )
    held = {"type": "CPU", "id": 0, "byte_size": round(variant.held_mib * 2**20)}
    name, version = variant.request.name, str(variant.request.version)
    return {"name": name, "version": version, **document, "memory_usage": [held]}


def describe(totals: Totals, *, now_ms: int, now_ns: int) -> dict[str, Any]:
    """The counts and durations; `now_ms` since the epoch is the moment `now_ns` of the meter."""

    def duration(ns: int) -> dict[str, int]:
        return {"count": totals.answered, "ns": ns}

    times = totals.times
    compute = {
        "compute_input": duration(times.decode),
        "compute_infer": duration(times.run),
        "compute_output": duration(times.encode),
    }
    return {
        "last_inference": now_ms - (now_ns - totals.last_ns) // 10**6 if totals.answered else 0,
        "inference_count": totals.answered,
        "execution_count": totals.answered,
        "inference_stats": {
            "success": duration(sum(times)),
            "fail": {"count": totals.failed, "ns": totals.failed_ns},
            "queue": duration(times.queue),
            **compute,
            "cache_hit": _NOTHING,
            "cache_miss": _NOTHING,
        },
        "batch_stats": [{"batch_size": 1, **compute}] if totals.answered else [],
    }
