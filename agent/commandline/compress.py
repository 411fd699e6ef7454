"""Shrink an ONNX model on this device until it fits a measured budget.

The same job, worker and trials as the agent's. Writes DIR/ladder.json, DIR/report.html and the
variants beside them. A run that was killed goes on where it was when it is called again with the
same arguments. Without --calibration the inputs are made up, and nothing is verified.
"""

import argparse
import asyncio
import importlib.util
import sys
import time
from pathlib import Path

from rich.console import Console

from agent import outputs
from agent.commandline import budget_options, job_folder, recipes, shapes
from agent.commandline.failures import as_exit_error
from agent.commandline.telling import Telling
from agent.device import profile
from agent.errors import BadInput, Refused
from agent.host import compressor
from agent.version import __version__
from compression import durable, findings, job, ladder, report
from compression.errors import NEEDS_TORCH, CompressionError
from compression.page import document

PAGE = "report.html"
EXAMPLES = """examples:
  trimtab compress model.onnx --calibration inputs.npz --size-ratio 0.3 --out smaller
  trimtab compress model.onnx --calibration inputs.npz --latency-ratio 0.7 \\
      --min-agreement 0.99 --threads 2 --out faster --json
  trimtab compress detector.onnx --calibration inputs.npz --out small \\
      --outputs out=detections:0.4,columns=box+score+class --largest-shape image=1x3x960x960
  trimtab compress model.onnx --calibration inputs.npz --recipe smaller/ladder.json --out again
  kinds of outputs: as `trimtab-fleet publish --help` has them, or JSON, or the name of a JSON file
exit codes:
  0 a variant, or the original, meets the budget   2 bad input or usage
  3 refused: nothing meets it; the nearest is named   4 unavailable: out of time, memory or disk;
  called again with the same arguments it goes on where it was
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--calibration", type=Path, metavar="X.npz",
                        help="unlabelled inputs: one array per input, samples first")  # fmt: skip
    parser.add_argument("--evaluation", type=Path, metavar="X.npz",
                        help="inputs that only judge, never calibrate")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR",
                        help="made where it is missing; one model in a folder")  # fmt: skip
    parser.add_argument("--outputs", action="append", default=[], metavar="OUTPUTS",
                        help=f"what an output means: {outputs.FORMAT}, JSON, or a file of JSON; "
                        "repeatable; what is not named is guessed")  # fmt: skip
    parser.add_argument("--shape", action="append", default=[], metavar=shapes.FORMAT,
                        help="usual shape of an input, for made-up inputs; repeatable")  # fmt: skip
    parser.add_argument("--largest-shape", action="append", default=[], metavar=shapes.FORMAT,
                        help="what memory is measured at, where larger than every sample; "
                        "repeatable")  # fmt: skip
    parser.add_argument("--recipe", action="append", default=[], type=Path, metavar="FILE",
                        help="try only these recipes: JSON of one, of several, or a ladder.json; "
                        "repeatable")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=10.0, help="time for the search (10)")
    parser.add_argument("--recover-minutes", type=float, default=0.0, metavar="T",
                        help="beside --minutes: train, without labels, what promises to gain by "
                        "it; needs trimtab[recover] (0)")  # fmt: skip
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
    with job_folder.held(work) as folder:
        console = Console(stderr=True)
        _say_how_it_begins(folder, console)
        try:
            found = asyncio.run(_compress(work, arguments.worker_memory_mib, console))
        except CompressionError as error:
            raise as_exit_error(error) from error
        page = _write_page(found, folder.path)
    if arguments.json:
        sys.stdout.write(found.model_dump_json(indent=2, exclude_none=True) + "\n")
    else:
        sys.stdout.write(f"{report.table(found)}\nas a page: {page}\n")
    if not any(rung.meets_budget for rung in found.rungs):
        raise Refused(_nothing_fits(arguments.model.name, found))
    return 0


def _job(arguments: argparse.Namespace) -> job.CompressJob:
    limits = (arguments.minutes, arguments.work_memory_mib, arguments.worker_memory_mib)
    if not all(0 < limit < float("inf") for limit in limits):
        raise BadInput("cannot compress: --minutes and the memory options must be above 0")

    if not 0 <= arguments.recover_minutes < float("inf"):
        raise BadInput("cannot compress: --recover-minutes must be 0 or above")
    if arguments.recover_minutes and importlib.util.find_spec("torch") is None:
        raise BadInput(NEEDS_TORCH)

    def absolute(path: Path | None) -> str | None:
        return str(path.resolve()) if path else None

    return job.CompressJob(
        model_name=arguments.model.stem,
        model_path=str(arguments.model.resolve()),
        calibration_path=absolute(arguments.calibration),
        evaluation_path=absolute(arguments.evaluation),
        inputs=shapes.read(usual=arguments.shape, largest=arguments.largest_shape),
        outputs=outputs.read(arguments.outputs),
        budget=budget_options.read(arguments),
        device_class=profile.device_class(),
        out_dir=str(arguments.out.resolve()),
        minutes=arguments.minutes,
        recover_minutes=arguments.recover_minutes,
        work_memory_mib=arguments.work_memory_mib,
        recipes=recipes.read(arguments.recipe),
    )


def _say_how_it_begins(folder: job_folder.Folder, console: Console) -> None:
    if folder.changed:
        what = ", ".join(folder.changed)
        line = (
            f"{folder.path.name} was begun with other arguments ({what}): what was measured is "
            "used where it still holds, and its ladder is replaced"
        )
    elif folder.resumed:
        line = f"{folder.path.name}: going on from what was measured there before"
    else:
        return
    console.print(line, markup=False, highlight=False, soft_wrap=True)


async def _compress(work: job.CompressJob, memory_mib: float, console: Console) -> findings.Ladder:
    with Telling(console) as telling:
        return await compressor.compress(
            work, memory_mib=memory_mib, on_progress=telling.progress, on_tried=telling.tried
        )


def _write_page(found: findings.Ladder, folder: Path) -> Path:
    made = document.Made(by=f"trimtab {__version__}", at_s=time.time())
    path = folder / PAGE
    try:
        durable.replace(path, document.render(found, made=made).encode())
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from error
    return path


def _nothing_fits(name: str, found: findings.Ladder) -> str:
    nearest = ladder.nearest(found, found.budget)
    if nearest is None:
        return f"cannot fit {name} into the budget: no variant was made"
    return (
        f"cannot fit {name} into the budget: nearest is {nearest.recipe.label!r}: "
        f"{'; '.join(nearest.misses)}"
    )
