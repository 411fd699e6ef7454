"""The `trimtab-fleet` command of the operator."""

from collections.abc import Sequence

from agent import subcommands

TABLE = {
    "keygen": ("deploy.commandline.keygen", "make the key pair that signs for the fleet"),
    "publish": ("deploy.commandline.publish", "put a model on the broker, signed"),
    "bundle": ("deploy.commandline.bundle", "write a model version into one signed file"),
    "unpublish": ("deploy.commandline.unpublish", "take a model off the broker"),
    "deploy": ("deploy.commandline.deploy", "have devices pull, fit and serve a version"),
    "set-budget": ("deploy.commandline.set_budget", "let what serves keep another budget"),
    "recompress": ("deploy.commandline.recompress", "look for better variants while idle"),
    "remove": ("deploy.commandline.remove", "have devices stop serving a model and forget it"),
    "cancel": ("deploy.commandline.cancel", "stop the work on a deployment"),
    "rollback": ("deploy.commandline.rollback", "serve again what served before"),
    "forget-inputs": ("deploy.commandline.forget_inputs", "delete live inputs that were collected"),
    "infer": ("deploy.commandline.infer", "ask a device's model once, over the broker"),
    "describe": ("deploy.commandline.describe", "ask a device what it is and what it serves"),
    "ping": ("deploy.commandline.ping", "ask devices for a sign of life"),
    "status": ("deploy.commandline.status", "show every device as it last reported"),
    "watch": ("deploy.commandline.watch", "show events as they come"),
    "demo": ("deploy.commandline.demo", "show the whole way on this machine"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    return subcommands.main("trimtab-fleet", "The operator's hand on a fleet.", TABLE, argv)
