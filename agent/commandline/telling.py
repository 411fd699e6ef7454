"""What a long job says while it works: a bar in a terminal, plain lines anywhere else."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from compression import report
from compression.stream import Progress, Tried


class Telling:
    """Shows progress and candidates on a console. Names from models are never read as markup."""

    def __init__(self, console: Console) -> None:
        """Show on `console`."""
        self._console = console
        self._said = ""
        self._bar: Bar | None = None
        if console.is_terminal:
            columns = (BarColumn(20), TextColumn("{task.description}"), TimeElapsedColumn())
            self._bar = Bar(*columns, console=console, transient=True)
            self._task = self._bar.add_task("starting", total=1.0)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def progress(self, step: Progress) -> None:
        """Show what is being done; without a terminal each thing once."""
        said = step.message if step.stage == step.message else f"{step.stage}: {step.message}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step.fraction, description=escape(said))
        elif said != self._said:
            self._said = said
            self._line(f"{step.fraction:4.0%}  {said}")

    def tried(self, tried: Tried) -> None:
        """Show what became of one candidate."""
        self._line(report.line(tried))

    def _line(self, text: str) -> None:
        # A log keeps lines whole; in a terminal they are wrapped.
        self._console.print(
            text, markup=False, highlight=False, soft_wrap=not self._console.is_terminal
        )
