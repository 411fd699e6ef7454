"""Write a model version into one signed file, for devices without a broker: a USB stick will do.

On the device: `trimtab import FILE`. The file is a plain tar of what `publish` would send; the same
inputs make the same bytes, so its time is that of the newest of them, unless it is given.
"""

import argparse
import hashlib
import os
from pathlib import Path

from agent.errors import BadInput
from deploy import bundle
from deploy.commandline import offering, options
from deploy.commandline.bars import Bars
from deploy.publish import Offer

EXAMPLES = """examples:
  trimtab-fleet bundle net.onnx --name net --version 3 --out net-3.trimtab
  trimtab-fleet bundle net.onnx --name net --version 3 --calibration inputs.npz \\
      --created-at 1790000000 --out /media/usb/net-3.trimtab
"""
EXAMPLES += offering.KINDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    offering.add_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--created-at", type=float, metavar="S",
        help="seconds since 1970; default: $SOURCE_DATE_EPOCH, or the newest file's time",
    )  # fmt: skip
    options.add_key(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write it, with a bar per file."""
    signer = options.read_signer(arguments)
    offer = offering.read(arguments)
    with Bars() as bars:
        manifest = bundle.write(
            offer,
            arguments.out,
            by=signer,
            created_at_s=_created_at_s(arguments, offer),
            on_progress=bars.show,
        )
    size_mib = arguments.out.stat().st_size / 2**20
    with arguments.out.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    print(f"wrote {arguments.out}: {manifest.name}@{manifest.version}, {size_mib:.1f} MiB")
    print(f"  sha256 {digest}")
    return 0


def _created_at_s(arguments: argparse.Namespace, offer: Offer) -> float:
    if arguments.created_at is not None:
        return float(arguments.created_at)
    given = os.environ.get("SOURCE_DATE_EPOCH")  # https://reproducible-builds.org/specs
    try:
        if given is not None:
            return float(given)
        paths = (offer.model, offer.calibration, offer.evaluation)
        return max(path.stat().st_mtime for path in paths if path is not None)
    except ValueError as error:
        raise BadInput(f"cannot use SOURCE_DATE_EPOCH={given!r}: {error}") from error
    except OSError as error:
        raise BadInput(f"cannot read {error.filename}: {error.strerror}") from error
