"""Shrink an ONNX model on this device until it fits a measured budget.

The same job, worker and trials as the agent's. Writes DIR/ladder.json and the variants
beside it. Exit code 0: a variant (or the original) meets the budget; 3: none does, and the
nearest is named.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from agent.commandline import budget_options
from agent.commandline.failures import as_exit_error
from agent.device import profile
from agent.errors import BadInput, Refused
from agent.host import compressor
from compression import job, report
from compression.errors import CompressionError

EXAMPLES = """examples:
  trimtab compress model.onnx --calibration inputs.npz --size-ratio 0.3 --out smaller
  trimtab compress model.onnx --calibration inputs.npz --latency-ratio 0.7 \\
      --min-agreement 0.99 --threads 2 --out faster --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--calibration", type=Path, required=True, metavar="X.npz",
                        help="unlabelled inputs: one array per input, samples first")  # fmt: skip
    parser.add_argument("--evaluation", type=Path, metavar="X.npz",
                        help="inputs that only judge, never calibrate")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=10.0, help="time for the search (10)")
    parser.add_argument("--work-memory-mib", type=float, default=256.0,
                        help="memory for statistics (256)")  # fmt: skip
    parser.add_argument("--worker-memory-mib", type=float, default=4096.0,
                        help="ceiling of the worker process (4096)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the ladder as JSON")
    budget_options.add(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compress, show, and say by exit code whether the budget is met."""
    for path in (arguments.model, arguments.calibration, arguments.evaluation):
        if path is not None and not path.is_file():
            raise BadInput(f"cannot find {path}")
    work = _job(arguments)
    console = Console(stderr=True)
    try:
        ladder = asyncio.run(_compress(work, arguments.worker_memory_mib, console))
    except CompressionError as error:
        raise as_exit_error(error) from error
    if arguments.json:
        sys.stdout.write(ladder.model_dump_json(indent=2, exclude_none=True) + "\n")
    else:
        sys.stdout.write(report.table(ladder) + "\n")
    if not any(rung.meets_budget for rung in ladder.rungs):
        nearest = ladder.rungs[0]
        raise Refused(
            f"cannot fit {arguments.model.name} into the budget: nearest is "
            f"{nearest.recipe.label!r}: {'; '.join(nearest.misses)}"
        )
    return 0


def _job(arguments: argparse.Namespace) -> job.CompressJob:
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write to {arguments.out}: {error}") from error
    evaluation = arguments.evaluation
    if arguments.minutes <= 0 or arguments.work_memory_mib <= 0 or arguments.worker_memory_mib <= 0:
        raise BadInput("cannot compress: --minutes and the memory options must be above 0")
    return job.CompressJob(
        model_name=arguments.model.stem,
        model_path=str(arguments.model.resolve()),
        calibration_path=str(arguments.calibration.resolve()),
        evaluation_path=str(evaluation.resolve()) if evaluation else None,
        budget=budget_options.read(arguments),
        device_class=profile.device_class(),
        out_dir=str(arguments.out.resolve()),
        minutes=arguments.minutes,
        work_memory_mib=arguments.work_memory_mib,
    )


async def _compress(work: job.CompressJob, memory_mib: float, console: Console) -> job.Ladder:
    columns = (BarColumn(20), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)

        def on_progress(step: job.Progress) -> None:
            bar.update(task, completed=step.fraction, description=step.message)

        def on_tried(tried: job.Tried) -> None:
            console.print(report.line(tried), highlight=False)

        return await compressor.compress(
            work, memory_mib=memory_mib, on_progress=on_progress, on_tried=on_tried
        )
