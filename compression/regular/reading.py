"""Reads an ONNX file, and refuses in one line what cannot be read or must not be run."""

import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import onnx

from compression import bodies
from compression.errors import BadModel
from compression.packed import reading

MOST_BYTES = 2 * 1024**3
"""Protobuf's own limit for one message."""
KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "com.microsoft"})


def load(model_path: Path) -> onnx.ModelProto:
    """Read an ONNX file with all its weights, also those in external files of its folder.

    The file may be packed.

    Raises:
        BadModel: no file, not ONNX, truncated, over 2 GiB, external data that is missing, too
            short or outside of the model's folder, or an operator of an unknown domain.
    """
    try:
        _bounded(model_path, model_path.stat().st_size)
        model = _read(model_path)
    except OSError as error:
        raise bad(model_path, error.strerror or str(error)) from error
    except BadModel:
        raise
    except Exception as error:  # protobuf and onnx each raise kinds of their own
        raise bad(model_path, f"not ONNX, or truncated ({_first_line(error)})") from error
    if not model.graph.node or not model.graph.output:
        raise bad(model_path, "not ONNX, or truncated (it holds no graph)")
    _known(model_path, model)
    if external := [tensor for tensor in tensors(model) if _is_external(tensor)]:
        _inside(model_path, external)
        try:
            onnx.load_external_data_for_model(model, str(model_path.parent))
        except Exception as error:  # onnx has checks of its own, newer versions stricter ones
            raise bad(model_path, f"its external data: {_first_line(error)}") from error
    return model


def has_external_data(model_path: Path) -> bool:
    """Whether some weights of a readable model lie in other files.

    Raises:
        BadModel: the file cannot be read.
    """
    try:
        model = _read(model_path)
    except BadModel:
        raise
    except Exception as error:
        raise bad(model_path, f"not ONNX, or truncated ({_first_line(error)})") from error
    return any(_is_external(tensor) for tensor in tensors(model))


def _read(model_path: Path) -> onnx.ModelProto:
    with reading.opened(model_path) as plain:
        return onnx.load(plain, load_external_data=False)


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every constant of a model: initializers and attributes, in bodies and functions too."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)


def bad(path: Path, what: str) -> BadModel:
    """The one line that says why a model is refused."""
    return BadModel(f"cannot use model {path.name}: {what}")


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
    for body in bodies.of(node):
        yield from _graph_tensors(body)


def _known(model_path: Path, model: onnx.ModelProto) -> None:
    """Refuse what would need a library of custom operators."""
    known = KNOWN_DOMAINS | {function.domain for function in model.functions}
    used = [*bodies.nodes(model.graph), *(node for each in model.functions for node in each.node)]
    unknown = Counter((node.op_type, node.domain) for node in used if node.domain not in known)
    if unknown:
        (operator, domain), _ = unknown.most_common(1)[0]
        raise bad(model_path, f"operator {operator} of the unknown domain {domain!r}")


def _is_external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def _inside(model_path: Path, external: list[onnx.TensorProto]) -> None:
    """Refuse external data that leaves the folder: a model could read any file of the device."""
    total = model_path.stat().st_size
    for tensor in external:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        path = PurePosixPath(location)
        where = f"weights {tensor.name!r} lie in {location!r}"
        if not location or path.is_absolute() or ".." in path.parts or "\0" in location:
            raise bad(model_path, f"{where}, outside of the model's folder")
        steps = [model_path.parent.joinpath(*path.parts[:n]) for n in range(1, len(path.parts) + 1)]
        try:
            kinds = [step.lstat() for step in steps]
        except OSError as error:
            raise bad(model_path, f"{where}: {error.strerror}") from error
        if any(stat.S_ISLNK(kind.st_mode) for kind in kinds):
            raise bad(model_path, f"{where}, a symbolic link: it may leave the model's folder")
        if not stat.S_ISREG(kinds[-1].st_mode):
            raise bad(model_path, f"{where}, which is no regular file")
        total += _held(model_path, entries, kinds[-1].st_size, where)
    _bounded(model_path, total)


def _held(model_path: Path, entries: dict[str, str], file_bytes: int, where: str) -> int:
    """How many bytes one tensor takes of its file, which must really hold them."""
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else file_bytes - offset
    except ValueError as error:
        raise bad(model_path, f"{where}: {error}") from error
    if offset < 0 or length < 0 or offset + length > file_bytes:
        raise bad(
            model_path, f"{where}: bytes {offset} to {offset + length} of a file of {file_bytes}"
        )
    return length


def _bounded(model_path: Path, size_bytes: int) -> None:
    if size_bytes >= MOST_BYTES:
        raise bad(model_path, f"{size_bytes / 2**30:.1f} GiB, and ONNX files end at 2 GiB")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
