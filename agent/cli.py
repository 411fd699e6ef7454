"""The `trimtab` command on the device."""

from collections.abc import Sequence

from agent import subcommands

TABLE = {
    "agent": ("agent.commandline.agent", "run the daemon: obey the fleet, serve, report"),
    "import": ("agent.commandline.import_bundle", "bring a model version by hand, as a bundle"),
    "serve": ("agent.commandline.serve", "serve models alone, without fleet or agent"),
    "compress": ("agent.commandline.compress", "shrink a model until it fits a budget"),
    "measure": ("agent.commandline.measure", "measure a model here, beside its original"),
    "device": ("agent.commandline.device", "show what this device is and can afford"),
    "config": ("agent.commandline.config", "show the settings in force"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    return subcommands.main("trimtab", "An inference agent for edge devices.", TABLE, argv)
