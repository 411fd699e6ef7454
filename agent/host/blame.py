"""Who brought the server down, and who must not be loaded again (pure; the clock is passed in)."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.protocol.private import LoadRequest

CRASHES = 2
WINDOW_S = 600.0


@dataclass(frozen=True)
class Verdict:
    """One death, judged by what was being loaded or run."""

    how: str
    suspects: tuple[LoadRequest, ...] = ()
    expelled: bool = False
    guilty: bool = True
    """Whether what it was running may have brought it down."""

    @property
    def blamed(self) -> LoadRequest | None:
        """The one that was being executed, where it was only one."""
        return self.suspects[0] if self.guilty and len(self.suspects) == 1 else None

    @property
    def unclear(self) -> bool:
        """Whether several were being executed: running one at a time tells the next time."""
        return self.guilty and len(self.suspects) > 1

    @property
    def cause(self) -> str:
        """How it came about, and what follows for the one that is blamed."""
        expelled = f"; expelled: {CRASHES} crashes within {WINDOW_S / 60:.0f} min"
        return self.how + (expelled if self.expelled else "")

    def __str__(self) -> str:
        names = ", ".join(sorted({suspect.name for suspect in self.suspects}))
        return f"{self.cause} (it was running {names})" if names else self.cause


class Blame:
    """Remembers the deaths within the window."""

    def __init__(self) -> None:
        self._deaths: dict[tuple[str, str], list[float]] = {}

    def judge(
        self, how: str, suspects: Sequence[LoadRequest], *, now_s: float, by_others: bool = False
    ) -> Verdict:
        """Judge a death that came about `how`; `now_s` is a monotonic time.

        `by_others`: somebody outside killed it, so what it was running is told, not blamed.
        """
        if by_others:
            return Verdict(f"{how}, from outside", tuple(suspects), guilty=False)
        if len(suspects) != 1:
            return Verdict(how, tuple(suspects))
        key = (suspects[0].name, suspects[0].sha256)
        recent = [at for at in self._deaths.get(key, []) if now_s - at < WINDOW_S]
        self._deaths[key] = [*recent, now_s]
        return Verdict(how, tuple(suspects), expelled=len(recent) + 1 >= CRASHES)
