"""The JSON that goes in and out, as JSON Schema: the words of the OpenAPI document."""

from typing import Any

from agent.protocol.tensors import DATATYPES

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0}
FLAG: Json = {"type": "boolean"}


def record(required: Json, **optional: Json) -> Json:
    return {
        "type": "object", "properties": {**required, **optional}, "required": list(required)
    }  # fmt: skip


def rows(items: Json) -> Json:
    return {"type": "array", "items": items}


def schema(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_DATATYPE: Json = {"type": "string", "enum": list(DATATYPES)}
_SHAPE = rows(COUNT)
_SHARED: Json = {
    "shared_memory_region": TEXT,
    "shared_memory_byte_size": COUNT,
    "shared_memory_offset": COUNT,
}
_DURATION = record({"count": COUNT, "ns": COUNT})
_COMPUTE = dict.fromkeys(("compute_input", "compute_infer", "compute_output"), _DURATION)
_TENSOR = record({"name": TEXT, "datatype": TEXT, "shape": rows({"type": "integer"})})
_REGION = record({"name": TEXT, "key": TEXT, "offset": COUNT, "byte_size": COUNT})
_CONFIGURED = record({"name": TEXT, "data_type": TEXT, "dims": rows({"type": "integer"})})
_KINDS = ("success", "fail", "queue", "cache_hit", "cache_miss")

SCHEMAS: Json = {
    "Error": record({"error": {**TEXT, "pattern": "^cannot "}}),
    "Tensor": _TENSOR,
    "Region": _REGION,
    "InferRequest": record(
        {
            "inputs": rows(
                record(
                    {"name": TEXT, "shape": _SHAPE, "datatype": _DATATYPE},
                    data={"type": "array", "description": "flat, or nested like the shape"},
                    parameters={
                        "type": "object",
                        "properties": {**_SHARED, "binary_data_size": COUNT},
                    },
                )
            )
        },
        id=TEXT,
        outputs=rows(
            record(
                {"name": TEXT},
                parameters={
                    "type": "object",
                    "properties": {**_SHARED, "binary_data": FLAG, "classification": COUNT},
                },
            )
        ),
        parameters={
            "type": "object",
            "properties": {
                "binary_data_output": FLAG,
                "timeout": {**COUNT, "description": "microseconds; 0 waits without end"},
            },
        },
    ),
    "InferResponse": record(
        {
            "model_name": TEXT,
            "model_version": TEXT,
            "outputs": rows(
                record(
                    {"name": TEXT, "shape": _SHAPE, "datatype": _DATATYPE},
                    data={"type": "array"},
                    parameters={"type": "object"},
                )
            ),
        },
        id=TEXT,
    ),
    "ModelStatistics": record(
        {
            "name": TEXT,
            "version": TEXT,
            "last_inference": {**COUNT, "description": "milliseconds since the epoch"},
            "inference_count": COUNT,
            "execution_count": COUNT,
            "inference_stats": record({**dict.fromkeys(_KINDS, _DURATION), **_COMPUTE}),
            "batch_stats": rows(record({"batch_size": COUNT, **_COMPUTE})),
            "memory_usage": rows(record({"type": TEXT, "id": COUNT, "byte_size": COUNT})),
        }
    ),
    "IndexEntry": record({"name": TEXT, "version": TEXT, "state": TEXT, "reason": TEXT}),
}

STATISTICS = record({"model_stats": rows(schema("ModelStatistics"))})
METADATA = record(
    {
        "name": TEXT,
        "versions": rows(TEXT),
        "platform": {"const": "onnx_onnxv1"},
        "inputs": rows(schema("Tensor")),
        "outputs": rows(schema("Tensor")),
    }
)
CONFIG = record(
    {
        "name": TEXT,
        "platform": TEXT,
        "backend": TEXT,
        "max_batch_size": {"const": 0},
        "input": rows(_CONFIGURED),
        "output": rows(_CONFIGURED),
    }
)
SERVER = record({"name": TEXT, "version": TEXT, "extensions": rows(TEXT)})
REGISTRATION = record({"key": TEXT, "byte_size": COUNT}, offset=COUNT)
PARAMETERS: Json = {"type": "object", "properties": {"parameters": {"type": "object"}}}
EMPTY: Json = {"type": "object"}
