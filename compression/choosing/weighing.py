"""What looks take in memory, and in which form each is within its bound; only where one is given.

Each form is loaded and run alone, in the trial's process. Of a candidate whose plain form takes too
much, a file that is optimized already, and a run without planned blocks, may take less.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from compression import durable, pipeline, working
from compression.choosing import front, settings
from compression.choosing.bounds import Bounds
from compression.choosing.preview import Preview
from compression.job import InputSpec, MemoryJob, PassSpec, Recipe, Runtime
from compression.passes import packed, prepared
from compression.stream import TrialAnswer
from compression.words import Words

MOST = 16
"""Looks that are weighed: the front first."""
SECONDS = 20.0
"""For one form."""


class Weighed(Words):
    """The peaks of one candidate in MiB, plain and prepared, and the prepared file's size."""

    plain_mib: tuple[float | None, ...]
    prepared_mib: tuple[float | None, ...] = ()
    prepared_bytes: int = 0


@dataclass(frozen=True)
class Scales:
    """Weighs looks; what was seen before is in notes in `folder`."""

    ask: Callable[[MemoryJob], TrialAnswer]
    make: Callable[[Preview], None]
    """Writes a candidate's file by its recipe."""
    keys: Sequence[str]
    """What a candidate hangs on beside its recipe."""
    inputs_path: Path
    inputs: tuple[InputSpec, ...]
    wanted: Bounds
    threads: int
    folder: Path
    stop: float
    """By working.now_s()."""

    def all(self, looks: Sequence[Preview]) -> list[Preview]:
        """Weigh looks while there is time, those that no other beats first."""
        if self.wanted.peak_mib is None:
            return list(looks)
        found = front.split([look for look in looks if look.agreement])
        line = [*found.front, *(look for look, _ in found.behind)][:MOST]
        weighed = {look.key: self.one(look) for look in line}
        return [weighed.get(look.key, look) for look in looks]

    def one(self, look: Preview) -> Preview:
        """Weigh one look: the same with the memory of the form that it would be run in."""
        if self.wanted.peak_mib is None or look.agreement is None or look.peak_mib is not None:
            return look
        seen = self._seen(look)
        form = None if seen is None else self._form(look, seen)
        return look if form is None else look.model_copy(update={"peak_mib": form.peak_mib})

    def formed(self, looks: Sequence[Preview]) -> list[Preview]:
        """Return the form of each look that takes little enough, or else the least."""
        found = []
        for look in looks:
            seen = None if look.peak_mib is None else _recall(self._note(look))
            form = None if seen is None else self._form(look, seen)
            found.append(form or look)
        return found

    def _seen(self, look: Preview) -> Weighed | None:
        """What is in the note, or what is seen now; None where there is no time."""
        note = self._note(look)
        seen = _recall(note)
        if seen is None:
            if working.now_s() > self.stop:
                return None
            seen = Weighed(plain_mib=self._peaks(look, ready=False))
        enough = any(self._fits(one) for one in self._plain(look, seen)[:1])
        if not enough and seen.plain_mib and not packed.wanted(look.recipe):
            seen = self._prepared(look, seen)
        durable.replace(note, seen.to_json())
        return seen

    def _form(self, look: Preview, seen: Weighed) -> Preview | None:
        """The first form that fits, what costs no time first; else the one of least memory."""
        plain = self._plain(look, seen)
        ready = _ready(look, seen.prepared_bytes, self.keys)
        small = self.wanted.size_bytes is None or ready.size_bytes <= self.wanted.size_bytes
        ways = settings.ways(self.threads, ready=True)
        later = _forms(ready, ways, seen.prepared_mib) if small else []
        line = [*plain[:1], *later[:1], *plain[1:], *later[1:]]
        return next((one for one in line if self._fits(one)), min(line, key=_peak, default=None))

    def _plain(self, look: Preview, seen: Weighed) -> list[Preview]:
        return _forms(look, settings.ways(self.threads, ready=False), seen.plain_mib)

    def _note(self, look: Preview) -> Path:
        return self.folder / f"weighed-{look.key}-{self.threads}.json"

    def _fits(self, one: Preview) -> bool:
        return self.wanted.peak_mib is not None and _peak(one) <= self.wanted.peak_mib

    def _prepared(self, look: Preview, seen: Weighed) -> Weighed:
        """See what the prepared file takes; once."""
        if seen.prepared_mib or working.now_s() > self.stop:
            return seen
        ready = _ready(look, 0, self.keys)
        self.make(ready)
        size = ready.path.stat().st_size
        peaks = self._peaks(ready, ready=True)
        return seen.model_copy(update={"prepared_mib": peaks, "prepared_bytes": size})

    def _peaks(self, look: Preview, *, ready: bool) -> tuple[float | None, ...]:
        """One peak for each way; () where the trial died."""
        if not look.path.exists():
            self.make(look)
        job = MemoryJob(
            model_path=str(look.path), inputs_path=str(self.inputs_path), inputs=self.inputs,
            ways=settings.ways(self.threads, ready=ready), seconds=SECONDS,
        )  # fmt: skip
        answer = self.ask(job)
        return answer.memory.peaks_mib if answer.memory else ()


def _forms(look: Preview, ways: Sequence[Runtime], peaks: Sequence[float | None]) -> list[Preview]:
    """The look in each way that it runs in; peaks are fewer than ways where nobody asked."""
    return [
        look.model_copy(update={"runtime": how, "peak_mib": mib})
        for how, mib in zip(ways, peaks, strict=False)
        if mib is not None
    ]


def _ready(look: Preview, size_bytes: int, keys: Sequence[str]) -> Preview:
    recipe = Recipe(
        label=f"{look.recipe.label}, prepared",
        passes=(*look.recipe.passes, PassSpec(name=prepared.NAME)),
    )
    key = pipeline.key(recipe, *keys)
    path = look.path.with_name(f"candidate-{key[:12]}.onnx")
    update = {"recipe": recipe, "key": key, "path": path, "size_bytes": size_bytes}
    return look.model_copy(update=update)


def _peak(one: Preview) -> float:
    return float("inf") if one.peak_mib is None else one.peak_mib


def _recall(note: Path) -> Weighed | None:
    try:
        return Weighed.model_validate_json(note.read_bytes())
    except (OSError, ValidationError):
        return None
