"""Each 8-bit form of real models on each emulated processor: one table a model.

Variants are made here and answered there, beside the original. Run by `./dev prove emulated`:
about five minutes a model and processor. Figures for programs: .cache/emulated/MODEL.json.
"""

from pathlib import Path

import pytest

from tests.emulated import emulation, matrix, processors, proposals, roots, variants

pytestmark = [pytest.mark.prove, pytest.mark.timeout(7200)]
EXACT = ("float32", "stored")
"""Forms without integer products: right everywhere."""
LARGEST = 2e-3
"""Difference of float answers between processors, in parts of the largest."""


@pytest.mark.parametrize("name", variants.SUBJECTS)
def test_what_the_rules_propose_is_as_right_there_as_anywhere(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [one for one in processors.EMULATED if processors.lacking(one) is None]
    if not where:
        pytest.skip("; ".join({str(processors.lacking(one)) for one in processors.EMULATED}))
    for one in where:
        emulation.need(one)
    rows = matrix.run(name, variants.RECIPES, where, tmp_path)
    (roots.folder() / f"{name}.json").write_text(matrix.document(rows))
    with capsys.disabled():
        print(f"\n{matrix.text(rows)}")
    classes = {one.name: emulation.device_class(one) for one in where}
    forms = {recipe.label: proposals.formats(recipe) for recipe in variants.RECIPES}
    for row in rows:
        wrong = set(row.wrong()) & set(classes)
        if row.recipe in EXACT:
            assert not wrong, row
            assert all(cell.difference < LARGEST for cell in row.cells.values()), row
        for one in wrong:
            assert not forms[row.recipe] <= proposals.proposed(classes[one]), (one, row)
