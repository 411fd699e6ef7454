"""Deploy commands as most tests give them, and how deployments ended."""

from agent.control.deployer import Deployer
from agent.control.record import Record
from agent.control.states import State
from agent.protocol.commands import Deploy
from compression.job import Budget

SMALL = Budget(size_mib=1.0)


async def deploy(
    deployer: Deployer, version: int = 1, command: str = "command-1", **order: object
) -> Record:
    unwatched = {"observe_minutes": 0, "collect_inputs": 0}
    body = Deploy.model_validate(
        {"model": "m", "version": version, "budget": SMALL} | unwatched | order
    )
    await deployer.start(command, body)
    return await deployer.wait("m")


def ended(record: Record) -> tuple[State, str]:
    assert record.deployment is not None
    return record.deployment.state, record.deployment.message
