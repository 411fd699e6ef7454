"""What the demo shows while it runs: lines with their time, one bar, plain text in a pipe."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from deploy.demo.story import Line, Step

MOST_COLUMNS = 100
_WORD = 11
_STYLES = {"good": "green", "bad": "red", "plain": "cyan"}


def console() -> Console:
    """A console on standard output, at most 100 columns wide, without guessed highlighting."""
    made = Console(highlight=False, emoji=False)
    made.width = min(made.width, MOST_COLUMNS)
    return made


class Screen:
    """Lines go up the terminal; the bar stays below them while a stage works."""

    def __init__(self, out: Console) -> None:
        """Write to `out`; the clock starts now."""
        self.out = out
        self._begun_s = time.monotonic()
        self._bar = Progress(
            TextColumn("         {task.fields[stage]:<11}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %  {task.description}"),
            console=out,
            transient=True,
            disable=not out.is_terminal,
        )
        self._task: TaskID | None = None
        self._last = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def heading(self, text: str) -> None:
        """Begin a part."""
        self._end_bar()
        self.out.print()
        self.out.print(f"[bold]{escape(text)}[/bold]")

    def show(self, what: Line | Step | None) -> None:
        """Show one event."""
        if isinstance(what, Step):
            self._step(what)
        elif what is not None:
            self.line(what)

    def line(self, line: Line) -> None:
        """Print one line with the seconds since the start."""
        self._end_bar()
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=8, justify="right", style="dim", no_wrap=True)
        grid.add_column(width=_WORD, style=_STYLES[line.tone], no_wrap=True)
        grid.add_column(ratio=1, overflow="fold")
        grid.add_row(f"{time.monotonic() - self._begun_s:.1f} s", line.word, escape(line.text))
        if line.detail:
            grid.add_row("", "", f"[dim]{escape(line.detail)}[/dim]")
        self.out.print(grid)

    def say(self, word: str, text: str, *, tone: str = "plain") -> None:
        """Print one line of our own."""
        self.line(Line(word, text, tone=tone))

    def _step(self, step: Step) -> None:
        if not self.out.is_terminal:
            self._step_in_a_pipe(step)
            return
        if self._task is None:
            self._task = self._bar.add_task(step.text, total=1.0, stage=step.stage)
        self._bar.update(
            self._task,
            completed=step.fraction,
            description=escape(step.text),
            stage=step.stage,
        )

    def _step_in_a_pipe(self, step: Step) -> None:
        """Without a bar: a line where the words change, and the end of what counts bytes."""
        words = step.text.partition(" of ")[0].rstrip("0123456789. MB")
        if words != self._last or step.fraction >= 1.0:
            self.line(Line(step.stage, step.text))
        self._last = words

    def _end_bar(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
