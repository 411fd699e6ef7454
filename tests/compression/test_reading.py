"""What is no model, too large, truncated or hostile is refused in one line, before it runs."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compression import graph, runtime
from compression.errors import BadModel, OutOfBudget
from compression.regular import reading
from tests.simulators import models


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def text(path: Path) -> None:
    path.write_text("hello, I am no model\n" * 50)


def foreign(path: Path) -> None:
    node = helper.make_node("Magic", ["x"], ["y"], domain="com.acme")
    models.save(path, [node], {}, {"x": ("N", 2)}, {"y": ("N", 2)})


def foreign_inside(path: Path) -> None:
    node = helper.make_node("Magic", ["x"], ["m"], domain="com.acme")
    given = helper.make_tensor_value_info("m", TensorProto.FLOAT, None)
    body = helper.make_graph([node], "body", [], [given])
    choice = helper.make_node("If", ["flag"], ["y"], then_branch=body, else_branch=body)
    kinds = {"flag": TensorProto.BOOL}
    models.save(path, [choice], {}, {"x": ("N", 2), "flag": ()}, {"y": ("N", 2)}, dtypes=kinds)


def unloadable(path: Path) -> None:
    node = helper.make_node("NoSuchOperator", ["x"], ["y"])
    models.save(path, [node], {}, {"x": ("N", 2)}, {"y": ("N", 2)})


def strings(path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    kinds = {"x": TensorProto.STRING, "y": TensorProto.STRING}
    models.save(path, [node], {}, {"x": ("N",)}, {"y": ("N",)}, dtypes=kinds)


def does_not_run(path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    models.save(path, nodes, {"s": np.array([7, 7], np.int64)}, {"x": ("N", 2)}, {"y": (7, 7)})


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2 * 1024**3)


def newer_than_the_runtime(path: Path) -> None:
    model = onnx.load(path)
    model.opset_import[0].version = 999
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncated, "cannot use model m.onnx: not ONNX, or truncated"),
        (text, "cannot use model m.onnx: not ONNX, or truncated"),
        (lambda path: path.write_bytes(b""), "cannot use model m.onnx: not ONNX, or truncated"),
        (Path.unlink, "cannot use model m.onnx: No such file"),
        (foreign, "operator Magic of the unknown domain 'com.acme'"),
        (foreign_inside, "operator Magic of the unknown domain 'com.acme'"),
        (unloadable, "cannot load m.onnx: "),
        (strings, "'x' of type tensor"),
        (does_not_run, "cannot run the model on inputs of {'x': "),
        (huge, "cannot use model m.onnx: 2.0 GiB"),
        (newer_than_the_runtime, "cannot load m.onnx: "),
    ],
)
def test_a_bad_model_is_one_clear_line(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    spoil(path)
    with pytest.raises(BadModel) as caught:
        graph.regular(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [1, 2, 10, 100, 400, 900])
def test_a_truncated_model_never_passes(tmp_path: Path, keep: int) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadModel):
        graph.regular(path)


def external(folder: Path, location: str = "weights.bin") -> Path:
    """The MLP with its weights in another file, which really lies at `location`."""
    path = models.mlp(folder / "m.onnx", hidden=64)
    apart(path)
    if location != "weights.bin":
        relocate(path, location)
    return path


def apart(path: Path) -> None:
    """Move the weights of a model into weights.bin beside it."""
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)


def relocate(path: Path, location: str, **more: str) -> None:
    """Have the model name another file for its weights."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
            elif entry.key in more:
                entry.value = more[entry.key]
    path.write_bytes(model.SerializeToString())


def test_external_data_in_the_models_folder_is_read(tmp_path: Path) -> None:
    path = external(tmp_path)
    assert reading.has_external_data(path)
    feeds = models.sample_inputs(path, 3)
    want = runtime.run(runtime.session(path), feeds)
    model = graph.regular(path)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert graph.difference(want, runtime.run(runtime.session(model), feeds)) < 1e-6


def test_external_data_becomes_one_file_that_needs_no_other(tmp_path: Path) -> None:
    path = external(tmp_path)
    whole = graph.single_file(path, tmp_path / "elsewhere.onnx")
    feeds = models.sample_inputs(path, 3)
    want = runtime.run(runtime.session(path), feeds)
    (tmp_path / "weights.bin").unlink()
    assert not reading.has_external_data(whole)
    assert graph.difference(want, runtime.run(runtime.session(whole), feeds)) == 0
    plain = models.mlp(tmp_path / "plain.onnx")
    assert graph.single_file(plain, tmp_path / "none.onnx") == plain
    assert not (tmp_path / "none.onnx").exists()


def leave(folder: Path, path: Path) -> None:
    (folder.parent / "secret.bin").write_bytes((folder / "weights.bin").read_bytes())
    relocate(path, "../secret.bin")


def absolute(folder: Path, path: Path) -> None:
    relocate(path, str(folder / "weights.bin"))


def link(folder: Path, path: Path) -> None:
    (folder / "weights.bin").rename(folder.parent / "away.bin")
    (folder / "weights.bin").symlink_to(folder.parent / "away.bin")


def linked_folder(folder: Path, path: Path) -> None:
    (folder.parent / "away").mkdir()
    (folder / "weights.bin").rename(folder.parent / "away" / "weights.bin")
    (folder / "sub").symlink_to(folder.parent / "away")
    relocate(path, "sub/weights.bin")


def shortened(folder: Path, path: Path) -> None:
    os.truncate(folder / "weights.bin", 100)


def fifo(folder: Path, path: Path) -> None:
    (folder / "weights.bin").unlink()
    os.mkfifo(folder / "weights.bin")


def vast(folder: Path, path: Path) -> None:
    os.truncate(folder / "weights.bin", 3 * 2**30)
    relocate(path, "weights.bin", length=str(2**30), offset="0")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (leave, "lie in '../secret.bin', outside of the model's folder"),
        (absolute, "outside of the model's folder"),
        (link, "lie in 'weights.bin', a symbolic link"),
        (linked_folder, "lie in 'sub/weights.bin', a symbolic link"),
        (lambda folder, _: (folder / "weights.bin").unlink(), "No such file"),
        (shortened, "of a file of 100"),
        (fifo, "which is no regular file"),
        (vast, "4.0 GiB, and ONNX files end at 2 GiB"),
        (lambda _, path: relocate(path, "weights.bin", offset="-8"), "bytes -8 to"),
        (lambda _, path: relocate(path, "weights.bin", length="many"), "invalid literal"),
    ],
)
def test_external_data_that_leaves_or_lies_is_refused(
    tmp_path: Path, spoil: Callable[[Path, Path], object], message: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = external(folder)
    spoil(folder, path)
    with pytest.raises(BadModel) as caught:
        graph.regular(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_of_functions_is_read_and_answers_as_before(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    model = onnx.load(path)
    body = [helper.make_node("Relu", ["a"], ["b"])]
    standard = [helper.make_opsetid("", 17)]
    model.functions.append(
        helper.make_function("house", "Activation", ["a"], ["b"], body, standard)
    )
    model.opset_import.append(helper.make_opsetid("house", 1))
    model.graph.node[1].op_type, model.graph.node[1].domain = "Activation", "house"
    path.write_bytes(model.SerializeToString())
    feeds = models.sample_inputs(path, 3)
    want = runtime.run(runtime.session(path), feeds)
    changed = graph.regular(path)
    assert {node.domain for node in changed.graph.node} == {""}
    assert graph.difference(want, runtime.run(runtime.session(changed), feeds)) < 1e-6


def test_a_folder_that_cannot_be_written_is_named_and_left_empty(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    missing = tmp_path / "missing"
    with pytest.raises(OutOfBudget, match=r"cannot work in .*missing: No such file"):
        graph.regular(path, folder=missing)
    (tmp_path / "regular-left-by-a-kill").mkdir()
    graph.regular(path, folder=tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["m.onnx"]
