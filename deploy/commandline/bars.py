"""Progress on a terminal, a bar per file."""

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn


class Bars(Progress):
    """One bar per file; its last steps are the index blobs."""

    def __init__(self) -> None:
        """Draw nothing yet."""
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("chunks"),
        )
        self._of: dict[str, TaskID] = {}

    def show(self, file: str, sent: int, total: int) -> None:
        """`sent` blobs of a file with `total` chunks are done."""
        if file not in self._of:
            self._of[file] = self.add_task(file, total=total)
        self.update(self._of[file], completed=min(sent, total), total=total)
