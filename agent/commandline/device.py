"""Show what this device is, what it has free now, and what a model may cost on it by default."""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from agent import config
from agent.device import energy, headroom, profile
from agent.device.headroom import Allowance, Headroom
from agent.device.profile import Profile
from agent.errors import BadInput

EXAMPLES = """\
examples:
  trimtab device                    a table to read
  trimtab device --rate 5           with the budget for five requests a second
  trimtab device --json | jq .default_budget
"""
_LOOK_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.add_argument(
        "--state-dir", type=Path, metavar="DIR",
        help="the folder whose disk counts (default: state_dir of the settings)",
    )  # fmt: skip
    parser.add_argument(
        "--rate", type=float, metavar="HZ", help="requests a second that a model must keep up with"
    )


def run(arguments: argparse.Namespace) -> int:
    """Read the device and print it."""
    if arguments.rate is not None and not 0 < arguments.rate < float("inf"):
        raise BadInput(f"cannot plan for {arguments.rate} requests a second: give more than 0")
    settings = config.load()
    device = profile.read()
    free = headroom.read(
        state_dir=arguments.state_dir or settings.state_dir,
        idle_cpu_share=headroom.idle_over(_LOOK_S, cpus=profile.allowed_cpus()),
        quota_cores=device.cpu_quota_cores,
    )
    allowance = headroom.allowance(free, device, request_rate_hz=arguments.rate)
    source = energy.for_board(
        device.board, machine=device.machine, override=settings.joules_per_cpu_second
    )
    if arguments.json:
        sys.stdout.write(json.dumps(_document(device, free, allowance, source), indent=2) + "\n")
    else:
        _print(device, free, allowance, source)
    return 0


def _document(
    device: Profile, free: Headroom, allowance: Allowance, source: energy.CpuEnergy
) -> dict[str, object]:
    return {
        "device": device.model_dump(),
        "device_class": device.device_class.model_dump(),
        "headroom": free.model_dump(),
        "default_budget": allowance.budget.model_dump(exclude_none=True),
        "because": list(allowance.lines),
        "energy": {
            "joules_per_cpu_second": source.joules_per_cpu_second,
            "relative_uncertainty": source.relative_uncertainty,
            "method": source.method,
        },
    }


def _print(device: Profile, free: Headroom, allowance: Allowance, source: energy.CpuEnergy) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in _rows(device, free):
        table.add_row(name, value)
    table.add_row("energy", source.method)
    table.add_section()
    for number, line in enumerate(allowance.lines):
        table.add_row("" if number else "default budget", line)
    for gap in device.kernel_gaps:
        table.add_row("kernel lacks", f"{gap.feature}: {gap.lost}")
        table.add_row("", f"to turn it on, add to {gap.file} and restart: {gap.flags}")
    Console(highlight=False, markup=False).print(table)


def _rows(device: Profile, free: Headroom) -> list[tuple[str, str]]:
    cores = f"{device.cores} usable of {device.cores_present}"
    if device.cores_allowed != device.cores_present:
        cores += f"; affinity allows {device.cores_allowed}"
    if device.cpu_quota_cores is not None:
        cores += f"; quota {device.cpu_quota_cores:g} by {device.cpu_quota_where}"
    return [
        ("board", f"{device.board} (from {device.board_source})"),
        ("processor", f"{device.cpu}, {device.machine}, Linux {device.kernel}"),
        ("cores", cores),
        ("int8", f"{_int8(device)} ({' '.join(device.isa) or 'no flag known'})"),
        ("onnxruntime", device.onnxruntime),
        (
            "memory",
            f"{free.memory_available_mib:,.0f} MiB available of {device.memory_total_mib:,.0f}, "
            f"by {free.memory_bound_by}; {free.swap_free_mib:,.0f} MiB of swap free",
        ),
        ("CPU idle", f"{free.idle_cpu_share:.0%} over {_LOOK_S:g} s"),
        ("disk", f"{free.disk_free_mib:,.0f} MiB free on {free.disk_path}"),
    ]


def _int8(device: Profile) -> str:
    if device.device_class.int8_dot:
        return "fast: dot products in one instruction"
    if device.device_class.int8_saturates:
        return "careful: pairs are summed in 16 bits, weights need 7 bits"
    return "uncertain: no dot product instruction; may be no faster than float"
