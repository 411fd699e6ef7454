"""What was trained is found again: by recipes that begin alike, and never by others."""

from pathlib import Path

import onnx
import pytest

from compression import workplace
from compression.job import PassSpec
from compression.workplace import Workplace
from tests.simulators import models

CUT = PassSpec(name="structured_pruning", parameters={"keep": 0.5})
TRAINED = PassSpec(name="recovery", parameters={"seconds": 9.0})
INTEGERS = PassSpec(name="quantization")
CORRECTION = PassSpec(name="correction")
STORED = PassSpec(name="stored")
EXACT = frozenset({"structured_pruning"})


@pytest.fixture
def model(tmp_path: Path) -> onnx.ModelProto:
    return onnx.load(models.mlp(tmp_path / "model.onnx"))


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path / "work", lambda _message, _fraction: None)


def kept(place: Workplace, model: onnx.ModelProto, *passes: PassSpec) -> None:
    folder = workplace.place(passes, place).folder
    (folder / "checkpoint").write_bytes(b"x")
    workplace.keep(model, passes, place)
    assert not folder.exists()


def test_a_recipe_goes_on_behind_what_was_trained(place: Workplace, model: onnx.ModelProto) -> None:
    kept(place, model, CUT, TRAINED)
    found, count, comparable = workplace.find((CUT, TRAINED, INTEGERS, STORED), place, exact=EXACT)
    assert (count, comparable) == (2, True)
    assert found == model


@pytest.mark.parametrize(
    "passes",
    [
        (CUT, INTEGERS, STORED),
        (CUT, TRAINED.model_copy(update={"parameters": {"seconds": 8.0}}), STORED),
        (CUT.model_copy(update={"parameters": {"keep": 0.4}}), TRAINED, STORED),
        (),
    ],
)
def test_another_beginning_finds_nothing(
    place: Workplace, model: onnx.ModelProto, passes: tuple[PassSpec, ...]
) -> None:
    kept(place, model, CUT, TRAINED)
    assert workplace.find(passes, place, exact=EXACT)[1] == 0


def test_behind_rounding_only_what_compares_with_nothing_goes_on(
    place: Workplace, model: onnx.ModelProto
) -> None:
    kept(place, model, INTEGERS, TRAINED)
    _, count, comparable = workplace.find((INTEGERS, TRAINED, STORED), place, exact=EXACT)
    assert (count, comparable) == (2, False)
    assert workplace.find((INTEGERS, TRAINED, CORRECTION), place, exact=EXACT)[1] == 0


def test_a_damaged_file_is_trained_again(place: Workplace, model: onnx.ModelProto) -> None:
    kept(place, model, CUT, TRAINED)
    (path,) = place.folder.glob("trained-*.onnx")
    path.write_bytes(b"\xff" * 40)
    assert workplace.find((CUT, TRAINED), place, exact=EXACT)[1] == 0
