"""What the emulator tells is read as the kernel and the Arm manual mean it; needs no emulator."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.device import kernel
from tests.emulated import census, features
from tests.simulators import boards


def test_the_bits_of_a_pi_5_are_the_features_that_its_kernel_prints() -> None:
    assert " ".join(features.arm_flags(0x119FFF, 0)) == boards.PI5_FEATURES


@given(st.sets(st.sampled_from(features.HWCAP + features.HWCAP2)))
def test_every_bit_comes_back_out_of_cpuinfo_under_its_name(names: set[str]) -> None:
    hwcap, hwcap2 = (
        sum(1 << at for at, name in enumerate(all_names) if name in names)
        for all_names in (features.HWCAP, features.HWCAP2)
    )
    text = features.arm_cpuinfo(features.arm_flags(hwcap, hwcap2), part=0xD08)
    (block,) = kernel.cpu_blocks(text)
    assert set(block["Features"].split()) == names
    assert set(kernel.isa([block])) == names & set(kernel.INT8_FLAGS)


def test_what_numpy_sees_of_vnni_is_what_the_profile_looks_for() -> None:
    flags = features.x86_flags({"AVX2": True, "AVX512F": True, "AVX512VNNI": True, "XOP": True})
    text = features.x86_cpuinfo(flags, name="a Xeon")
    assert kernel.isa(kernel.cpu_blocks(text)) == ("avx2", "avx512f", "avx512_vnni")


@pytest.mark.parametrize(
    ("opcode", "name"),
    [
        ("6e829420", "udot"),  # udot v0.4s, v1.16b, v2.16b
        ("6f82e020", "udot"),  # udot v0.4s, v1.16b, v2.4b[0]
        ("4e829420", "sdot"),
        ("4f82e020", "sdot"),
        ("4e82a420", "smmla"),
        ("6e82a420", "ummla"),
        ("45c29820", "ummla"),  # ummla z0.s, z1.b, z2.b
        ("2e22c020", "umull"),  # umull v0.8h, v1.8b, v2.8b
        ("0e22c020", "smull"),
        ("2e228020", "umlal"),
        ("0e228020", "smlal"),
    ],
)
def test_an_opcode_is_known_whatever_the_disassembler_calls_it(opcode: str, name: str) -> None:
    log = ["IN: \n", f"0x5500817850:  {opcode}  .byte 0x20\n", "0x5500817854:  d503201f  nop\n"]
    assert census.arm(log) == {name: 1}


def test_float_multiplications_and_loads_are_not_counted() -> None:
    others = ("4e22d420", "6e22dc20", "1f020020", "9b027c20", "4c407020", "d65f03c0")
    assert not census.arm(f"0x10:  {opcode}  x" for opcode in others)


def test_the_saturating_product_of_x86_is_told_from_the_exact_ones() -> None:
    log = [
        "0x400d49dc59:  c4 e2 3d 04 e4           vpmaddubsw %ymm4, %ymm8, %ymm4\n",
        "0x400d49dc66:  c5 bd f5 d2              vpmaddwd %ymm2, %ymm8, %ymm2\n",
        "0x400d49dc6a:  c4 e2 3d 50 d2           vpdpbusd %ymm2, %ymm8, %ymm2\n",
        "0x400d49dc70:  48 89 e5                 movq     %rsp, %rbp\n",
    ]
    assert census.x86(log) == {"vpmaddubsw": 1, "vpmaddwd": 1, "vpdpbusd": 1}
