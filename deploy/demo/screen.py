"""What the demo shows while it runs: lines with their time, one bar, plain text in a pipe."""

import time
from textwrap import wrap
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

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
            TextColumn("         {task.fields[stage]:<11}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %  {task.description}", markup=False),
            console=out,
            transient=True,
            disable=not out.is_terminal,
        )
        self._task: TaskID | None = None
        self._last = ("", "")

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
        clock = f"{time.monotonic() - self._begun_s:6.1f} s "
        shown = Text().append(clock, "dim").append(f"{line.word:<{_WORD}} ", _STYLES[line.tone])
        indent = len(shown)
        for text, style in ((line.text, ""), (line.detail, "dim")):
            for part in wrap(text, width=max(20, self.out.width - indent)):
                # The first part stands behind the word, the others below it.
                start = "" if len(shown) == indent else "\n" + " " * indent
                shown.append(start).append(part, style)
        self.out.print(shown, soft_wrap=True)

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
            description=step.text,
            stage=step.stage,
            refresh=True,
        )

    def _step_in_a_pipe(self, step: Step) -> None:
        """Without a bar: a line where the words change."""
        if not step.counts and (step.stage, step.text) != self._last:
            self.line(Line(step.stage, step.text))
            self._last = (step.stage, step.text)

    def _end_bar(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._bar.refresh()
            self._task = None
