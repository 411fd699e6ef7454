"""Which integer multiplications a processor met, by the emulator's log of translations (pure).

`qemu -d in_asm` writes every block of instructions once, as `0xADDRESS:  OPCODE  mnemonic ...`.
Whether a kernel really ran is seen here, and nowhere else: the runtime does not say.
"""

import re
from collections import Counter
from collections.abc import Iterable

# Name -> (mask, value) of the opcodes, vector and by element: Arm ARM (DDI 0487), C7.2.
# Disassemblers of the day do not know them all, so the opcode decides and not the mnemonic.
ARM = {
    "udot": ((0xBFE0FC00, 0x2E809400), (0xBFC0F400, 0x2F80E000)),
    "sdot": ((0xBFE0FC00, 0x0E809400), (0xBFC0F400, 0x0F80E000)),
    # Once as Advanced SIMD and once as SVE.
    "ummla": ((0xFFE0FC00, 0x6E80A400), (0xFFE0FC00, 0x45C09800)),
    "smmla": ((0xFFE0FC00, 0x4E80A400), (0xFFE0FC00, 0x45009800)),
    "usmmla": ((0xFFE0FC00, 0x4E80AC00),),
    "umull": ((0xBF20FC00, 0x2E20C000),),
    "smull": ((0xBF20FC00, 0x0E20C000),),
    "umlal": ((0xBF20FC00, 0x2E208000), (0xBF00F400, 0x2F002000)),
    "smlal": ((0xBF20FC00, 0x0E208000), (0xBF00F400, 0x0F002000)),
}
X86 = ("vpmaddubsw", "pmaddubsw", "vpmaddwd", "vpdpbusd", "vpdpbusds")
_ARM_LINE = re.compile(r"^0x[0-9a-f]+:\s+([0-9a-f]{8})\s")
_X86_WORD = re.compile(rf"\s({'|'.join(X86)})\s")


def arm(lines: Iterable[str]) -> Counter[str]:
    """Count the instructions of `ARM` in a log."""
    found: Counter[str] = Counter()
    for line in lines:
        if match := _ARM_LINE.match(line):
            opcode = int(match[1], 16)
            for name, patterns in ARM.items():
                if any(opcode & mask == value for mask, value in patterns):
                    found[name] += 1
    return found


def x86(lines: Iterable[str]) -> Counter[str]:
    """Count the instructions of `X86` in a log."""
    return Counter(match[1] for line in lines if (match := _X86_WORD.search(line)))


READERS = {"aarch64": arm, "x86_64": x86}
