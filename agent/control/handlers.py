"""What each kind of command does: a table of kind -> handler for the dispatcher."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent.control.deployer import Deployer
from agent.control.dispatcher import Handler
from agent.protocol.commands import (
    Cancel,
    Command,
    Deploy,
    Forget,
    Infer,
    Recompress,
    Remove,
    Rollback,
    SetBudget,
)
from agent.protocol.events import Outcome

_Answer = tuple[Outcome, str, dict[str, Any]]


def table(
    deployer: Deployer,
    describe: Callable[[], dict[str, Any]],
    infer: Callable[[Infer], Awaitable[dict[str, Any]]],
) -> Mapping[str, Handler]:
    """One handler for each of `commands.KINDS`."""

    async def deploy(command: Command) -> _Answer:
        assert isinstance(command.body, Deploy)
        return "accepted", await deployer.start(command.id, command.body), {}

    async def again(command: Command) -> _Answer:
        assert isinstance(command.body, SetBudget | Recompress)
        return "accepted", await deployer.again(command.id, command.body), {}

    async def ask(command: Command) -> _Answer:
        assert isinstance(command.body, Infer)
        return "done", "", await infer(command.body)

    async def rollback(command: Command) -> _Answer:
        body = command.body
        assert isinstance(body, Rollback)
        return "accepted", await deployer.rollback(command.id, body.model, body.version), {}

    async def forget(command: Command) -> _Answer:
        assert isinstance(command.body, Forget)
        return "done", await deployer.forget_inputs(command.body.model), {}

    async def remove(command: Command) -> _Answer:
        assert isinstance(command.body, Remove)
        return "done", await deployer.remove(command.body.model), {}

    async def cancel(command: Command) -> _Answer:
        assert isinstance(command.body, Cancel)
        return "done", await deployer.cancel(command.body.model), {}

    async def tell(_: Command) -> _Answer:
        return "done", "", describe()

    async def ping(_: Command) -> _Answer:
        return "done", "here", {}

    return {
        "deploy": deploy,
        "set-budget": again,
        "recompress": again,
        "rollback": rollback,
        "remove": remove,
        "cancel": cancel,
        "forget-inputs": forget,
        "infer": ask,
        "describe": tell,
        "ping": ping,
    }
