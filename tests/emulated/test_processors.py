"""What a processor is taken for, which kernels run on it, and whether their products are exact.

Run by `./dev prove emulated`; the first run fetches an arm64 Python and its packages.
"""

from pathlib import Path

import pytest

from tests.emulated import emulation, processors
from tests.emulated.processors import Processor

pytestmark = pytest.mark.prove
each = pytest.mark.parametrize("one", processors.EMULATED, ids=lambda one: one.name)
DOT = {"udot", "sdot", "ummla", "smmla", "usmmla", "vpdpbusd", "vpdpbusds"}


@each
def test_a_processor_is_taken_for_what_it_does(one: Processor) -> None:
    emulation.need(one)
    found = emulation.device_class(one)
    assert found.machine == one.machine
    assert found.int8_dot is not one.without_dot
    exact = emulation.ask(one, "products")
    # Not what the flags promise, but what came out of the runtime's kernels decides.
    assert found.int8_saturates is (not exact["uint8 x int8"])
    assert found.int8_saturates is one.saturates
    assert exact["uint8 x uint8"]
    assert exact["int8 x int8"]


def test_a_weight_of_minus_128_is_wrong_without_a_dot_product() -> None:
    """The widening kernels of Arm sum two products in 16 bits, which 2 x 128 x 128 exceeds."""
    old, new = (processors.BY_NAME[name] for name in ("Cortex-A72", "Cortex-A76"))
    emulation.need(old)
    assert not emulation.ask(old, "products")["int8 x int8 whole"]
    assert emulation.ask(new, "products")["int8 x int8 whole"]


@each
def test_the_kernels_that_run_are_those_of_the_processor(
    one: Processor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    emulation.need(one)
    found = emulation.instructions(one, tmp_path / "log", "products")
    with capsys.disabled():
        counted = ", ".join(f"{count} {name}" for name, count in found.most_common())
        print(f"\n{one.name} ({one.stands_for}): {counted}")
    assert bool(DOT & set(found)) is not one.without_dot
    assert ("vpmaddubsw" in found) is one.saturates
    assert found  # integer multiplications of some kind
