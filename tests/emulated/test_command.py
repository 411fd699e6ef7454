"""The product's own commands on an emulated board, with their children: device, compress.

Run by `./dev prove emulated`. What takes how long means nothing there; what comes out does.
"""

from pathlib import Path

import pytest

from compression.findings import Ladder
from tests.emulated import emulation, processors
from tests.fixtures.trained import collection

pytestmark = [pytest.mark.prove, pytest.mark.timeout(7200)]
INT8 = {"quantization": "s8", "dynamic": "u8"}
"""Weights that a recipe for Arm has: the full range, without a dot product too."""


@pytest.mark.parametrize(
    ("name", "says"), [("Cortex-A72", "no dot product"), ("Cortex-A76", "dot product")]
)
def test_the_device_command_says_what_int8_is_worth(name: str, says: str, tmp_path: Path) -> None:
    one = processors.BY_NAME[name]
    emulation.need(one)
    done = emulation.trimtab(one, "device", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("int8"))
    assert says in line
    assert ("no dot product" in line) is one.without_dot


def test_a_model_is_compressed_on_a_board_without_a_dot_product(tmp_path: Path) -> None:
    one = processors.BY_NAME["Cortex-A72"]
    emulation.need(one)
    model = collection.load("keywords")
    model.write_inputs(tmp_path / "inputs.npz", 60, collection.CALIBRATION_SEED)
    out = tmp_path / "out"
    done = emulation.trimtab(
        one, "compress", str(model.onnx), "--calibration", str(tmp_path / "inputs.npz"),
        "--out", str(out), "--minutes", "40", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ladder = Ladder.model_validate_json((out / "ladder.json").read_text())
    assert ladder.device_class.isa == ("asimd",)
    made = [rung for rung in ladder.rungs if rung.recipe.passes]
    assert made
    assert all(rung.measurement.agreement.value >= 0.98 for rung in made)
    tried = [*(rung.recipe for rung in ladder.rungs), *(one.recipe for one in ladder.rejected)]
    formats = {
        (spec.name, spec.parameters["weights"])
        for recipe in tried
        for spec in recipe.passes
        if spec.name in INT8
    }
    assert formats == set(INT8.items())
