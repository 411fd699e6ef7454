"""Run the daemon: obey the fleet over MQTT, compress and serve models, report.

Under systemd this is the unit's main process. Settings come from /etc/trimtab/trimtab.toml (or
--config) and TRIMTAB_* variables; `trimtab config` shows them.
"""

import argparse
import asyncio
import logging
from pathlib import Path

from agent import app, config

EXAMPLES = """examples:
  trimtab agent
  trimtab agent --config pole-7.toml
  TRIMTAB_BROKER__HOST=10.0.0.2 TRIMTAB_STATE_DIR=/tmp/state trimtab agent
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="settings")


def run(arguments: argparse.Namespace) -> int:
    """Run until a signal."""
    settings = config.load(arguments.config)
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # it would tell of its own start
    asyncio.run(app.serve(settings))
    return 0
