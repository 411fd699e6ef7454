"""Who used the server's CPU: each poll's process time, shared among the models by busy time (pure).

A process has one CPU clock, whichever model it works for. Between two polls, each model gets
the share of the process's CPU seconds that its busy seconds are of all busy seconds. What is
spent while no model was busy (loading, heartbeats) is kept apart and charged to none. A load
that coincides with requests is charged to the models that served in that second.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

from agent.device.energy import CpuEnergy
from agent.protocol.private import ModelStatus, ServerStatus


class Variant(NamedTuple):
    """What served: telling the version alone would mix the original with its rungs."""

    name: str
    version: int
    sha256: str


@dataclass(frozen=True)
class Spent:
    """What something has cost so far."""

    cpu_seconds: float = 0.0
    joules: float = 0.0

    def plus(self, cpu_seconds: float, source: CpuEnergy) -> "Spent":
        """This, and `cpu_seconds` more at what they cost by `source`."""
        return Spent(self.cpu_seconds + cpu_seconds, self.joules + source.joules(cpu_seconds))


class Poll(NamedTuple):
    """What must be remembered of the last poll to take the next difference."""

    pid: int
    sequence: int
    process_cpu_s: float


@dataclass(frozen=True)
class Account:
    """What each variant has cost, what no variant is charged with, and the last poll."""

    models: Mapping[Variant, Spent] = field(default_factory=lambda: MappingProxyType({}))
    nobody: Spent = Spent()
    last: Poll | None = None


def variant_of(model: ModelStatus) -> Variant:
    """The key under which a model's counters are kept."""
    return Variant(model.name, model.version, model.sha256)


def is_repeat(account: Account, status: ServerStatus) -> bool:
    """Whether these counters were taken already: the server repeats what was not acknowledged."""
    last = account.last
    return last is not None and (last.pid, last.sequence) == (status.pid, status.sequence)


def observe(account: Account, status: ServerStatus, *, source: CpuEnergy) -> Account:
    """The account after one poll; a repeated one changes nothing."""
    if is_repeat(account, status):
        return account
    delta_s = _cpu_since(account.last, status)
    busy = [(variant_of(model), model.busy_s) for model in status.models if model.busy_s > 0]
    all_busy_s = sum(seconds for _, seconds in busy)
    models, nobody = dict(account.models), account.nobody
    if not busy:
        nobody = nobody.plus(delta_s, source)
    for variant, busy_s in busy:
        # The share first: a product with a tiny busy time would lose its digits.
        models[variant] = models.get(variant, Spent()).plus(delta_s * (busy_s / all_busy_s), source)
    last = Poll(status.pid, status.sequence, status.process_cpu_s)
    return Account(MappingProxyType(models), nobody, last)


def emptied(account: Account) -> Account:
    """The same account after its figures were reported; the last poll is still known."""
    return replace(Account(), last=account.last)


def _cpu_since(last: Poll | None, status: ServerStatus) -> float:
    """CPU seconds since the last poll. A new process starts from zero; ids come round again."""
    same = (
        last is not None
        and last.pid == status.pid
        and last.sequence < status.sequence
        and last.process_cpu_s <= status.process_cpu_s
    )
    return status.process_cpu_s - (last.process_cpu_s if same and last is not None else 0.0)
