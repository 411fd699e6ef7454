"""Compares our int8 variants with the best settings of public tools, model by model.

    python -m tests.benchmarks.int8_peers --out /tmp/peers [--models magika,svhn] [--peers-only]

The peers (onnxruntime's quantization tools and NNCF) run in a virtual environment of their own,
at every setting of a stated grid; the points that nothing beats are their best. Ours is what
`trimtab compress` makes with default options. All are measured on this machine, side by side, on
inputs that neither calibrated nor chose. The peers' variants and answers are kept by content: a
second run measures ours.
"""

import argparse
from pathlib import Path

from rich.console import Console

from tests.benchmarks.peers import grid, judgement, ours, table
from tests.benchmarks.peers.judgement import Judged
from tests.benchmarks.peers.material import MATERIALS, Material

ROUNDS = 100
SAMPLES = 2000


def main() -> int:
    """Print the table; 0 where every point of the peers is met."""
    arguments = _arguments()
    console = Console()
    found: list[Judged] = []
    failed: dict[str, str] = {}
    for name in arguments.models:
        try:
            one = _judge(MATERIALS[name](), arguments, console)
        except Exception as error:  # a model that fails is a line, not the end
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            console.print(f"{name} fails: {failed[name]}", markup=False)
            continue
        found.append(one)
        (arguments.out / f"{name}.md").write_text(table.markdown(one))
        (arguments.out / "peers.json").write_text(table.as_json(found, failed))
        if not arguments.json:
            console.print(table.rich_table(one))
    if arguments.json:
        print(table.as_json(found, failed))
    console.print(table.summary(found, failed), markup=False)
    met = all(verdict.met for one in found for verdict in one.verdicts)
    return 0 if arguments.peers_only or (met and not failed) else 1


def _judge(material: Material, arguments: argparse.Namespace, console: Console) -> Judged:
    settings = {
        label: setting
        for label, setting in grid.settings().items()
        if not any(word in label for word in arguments.without)
    }
    built = judgement.build_all(
        material, settings, lambda text: console.print(text, markup=False, soft_wrap=True)
    )
    if arguments.peers_only:
        mine = ours.Ours({})
    elif arguments.ours is not None:
        mine = ours.read(arguments.ours / material.name)
    else:
        mine = ours.compress(material, arguments.out / material.name)
    return judgement.judge(material, built, mine, count=arguments.samples, rounds=arguments.rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.int8_peers")
    parser.add_argument("--models", type=_names, default=list(MATERIALS),
                        help=f"joined by commas; of {', '.join(MATERIALS)}")  # fmt: skip
    parser.add_argument("--peers-only", action="store_true", help="do not compress with ours")
    parser.add_argument("--ours", type=Path, metavar="DIR", help="judge DIR/MODEL/ladder.json")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="keeps everything")
    parser.add_argument("--without", type=lambda text: text.split(","), default=[],
                        metavar="WORDS", help="leave out settings named so")  # fmt: skip
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"at most ({SAMPLES})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of the race ({ROUNDS})")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    return arguments


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(MATERIALS):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return names


if __name__ == "__main__":
    raise SystemExit(main())
