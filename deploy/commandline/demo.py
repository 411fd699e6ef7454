"""Show the whole way on this machine: publish, pull, serve, compress, admit, swap, compare.

Starts a broker and an agent of its own in a temporary folder, needs neither root nor network
nor torch, and takes everything down at the end. Without options it deploys Magika's file-type
model and judges it on real files of this machine, of which at most 8 KiB each are read.
"""

import argparse
import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from agent import outputs
from agent.errors import BadInput
from deploy.commandline.options import read_budget
from deploy.demo import plan, show, stage
from deploy.demo.screen import Screen, console

EXAMPLES = """examples:
  trimtab-fleet demo
  trimtab-fleet demo --budget size_mib=0.85 --budget min_agreement=0.99 --keep
  trimtab-fleet demo --model net.onnx --calibration calib.npz --evaluation eval.npz \\
      --outputs logits=logits
"""
LEAST_FILES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--model", type=Path, metavar="FILE.onnx", help="any model of yours")
    parser.add_argument("--calibration", type=Path, metavar="X.npz", help="inputs for it")
    parser.add_argument(
        "--evaluation", type=Path, metavar="X.npz", help="other inputs, to judge it by"
    )
    parser.add_argument(
        "--outputs", action="append", default=[], metavar=outputs.FORMAT,
        help="what an output means, such as logits=logits; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--budget", action="append", default=[], metavar="FIELD=VALUE",
        help="what the model may cost, such as size_mib=0.85; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--files", type=int, default=480, metavar="N", help="files to judge Magika by (480)"
    )
    parser.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 0 only when the whole way worked."""
    out = console()
    out.print("trimtab demo: a fleet of one device, on this machine, without network")
    with TemporaryDirectory(prefix="trimtab-demo-inputs-") as folder, Screen(out) as screen:
        chosen = _plan(arguments, Path(folder))
        with _sigterm_as_ctrl_c(), stage.standing(screen) as standing:
            try:
                asyncio.run(show.perform(standing, chosen, screen, keep=arguments.keep))
            except KeyboardInterrupt:
                if not standing.complete:
                    raise
    return 0


def _plan(arguments: argparse.Namespace, folder: Path) -> plan.Plan:
    budget = read_budget(arguments.budget)
    if arguments.model is None:
        given = [
            name for name in ("calibration", "evaluation", "outputs") if getattr(arguments, name)
        ]
        if given:
            raise BadInput(f"cannot use --{given[0]} without --model")
        if arguments.files < LEAST_FILES:
            raise BadInput(f"cannot judge by {arguments.files} files: at least {LEAST_FILES}")
        return plan.magika(folder, budget=budget, files=arguments.files)
    if arguments.calibration is None:
        raise BadInput(f"cannot improve {arguments.model} without --calibration X.npz")
    return plan.own(
        arguments.model,
        calibration=arguments.calibration,
        evaluation=arguments.evaluation,
        outputs=outputs.read(arguments.outputs),
        budget=budget,
    )


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Whoever ends us politely gets the same clean-up as Ctrl-C."""

    def interrupt(*_: object) -> None:
        # asyncio.run has a handler for this one, which lets its tasks end in order.
        signal.raise_signal(signal.SIGINT)

    # A shell without job control has its background jobs ignore Ctrl-C, and then asyncio would too.
    handlers: dict[signal.Signals, Callable[[int, FrameType | None], object]] = {
        signal.SIGTERM: interrupt,
        signal.SIGHUP: interrupt,
        signal.SIGINT: signal.default_int_handler,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
