"""From what was seen of a run to what its table says (pure)."""

from collections.abc import Mapping, Sequence

from agent.protocol.events import Event, Live, Telemetry
from compression.findings import Measurement
from compression.job import Budget
from deploy.demo import figures, story
from deploy.demo.figures import Proportion
from deploy.demo.plan import Plan, classes
from deploy.demo.report import Report, Side
from deploy.demo.traffic import Answer

Answers = Mapping[str, Sequence[Answer]]


def budget_text(budget: Budget) -> str:
    """A budget as words: `size_mib 0.85, min_agreement 0.98`."""
    given = budget.model_dump(exclude_none=True)
    return ", ".join(f"{name} {value:g}" for name, value in given.items()) or "the device's own"


def all_reported(telemetry: Sequence[Telemetry], models: Sequence[Live], *, least: int) -> bool:
    """Whether the device has reported at least `least` requests of every one of `models`."""
    return all(
        figures.served(telemetry, model=model.name, sha256=model.sha256 or "").requests >= least
        for model in models
    )


def measurements(events: Sequence[Event], model: str) -> dict[str, Measurement]:
    """What the trials found of each file that was ever switched to, by its hash."""
    found = {}
    for event in events:
        measured = story.measurement(event.figures)
        if event.kind == "swapped" and event.model == model and measured is not None:
            found[str(event.figures.get("sha256"))] = measured
    return found


def report(
    plan: Plan,
    models: Sequence[Live],
    answers: Answers,
    events: Sequence[Event],
    telemetry: Sequence[Telemetry],
) -> Report:
    """The table of a run; `models` are the original and what serves now, both live."""
    before, after = models
    measured = measurements(events, plan.name)
    variant = measured.get(after.sha256 or "")
    # The original's own trial, where it served first; else what it needed beside the variant.
    original = measured.get(before.sha256 or "")
    memory = original.peak_memory_mib if original else None
    if memory is None and variant is not None:
        memory = variant.original_peak_memory_mib
    size_bytes = plan.model.stat().st_size
    sizes = (size_bytes, round(variant.size_mib * story.MEBI) if variant else size_bytes)
    memories = (memory, variant.peak_memory_mib if variant else memory)
    sides = [
        Side(
            label=model.variant or "?",
            size_bytes=size,
            memory_mib=memory_mib,
            client_ms=tuple(answer.latency_ms for answer in answers[model.name]),
            served=figures.served(telemetry, model=model.name, sha256=model.sha256 or ""),
        )
        for model, size, memory_mib in zip(models, sizes, memories, strict=True)
    ]
    agreement, accuracy, kinds = _judged(plan, before, after, answers)
    return Report(
        model=plan.name,
        original=sides[0],
        variant=sides[1],
        agreement=agreement,
        accuracy=accuracy,
        kinds=kinds,
        notes=tuple(_notes(plan, sides, variant)),
    )


def _judged(
    plan: Plan, before: Live, after: Live, answers: Answers
) -> tuple[Proportion | None, tuple[Proportion, Proportion] | None, tuple[figures.KindRow, ...]]:
    if plan.logits is None:
        return None, None, ()
    predicted = [classes(answers[model.name], plan.logits) for model in (before, after)]
    agreement = figures.proportion(a == b for a, b in zip(*predicted, strict=True))
    if plan.right is None:
        return agreement, None, ()
    rights = [plan.right(each) for each in predicted]
    accuracy = (figures.proportion(rights[0]), figures.proportion(rights[1]))
    kinds = tuple(figures.by_extension(plan.extensions, rights)) if plan.extensions else ()
    return agreement, accuracy, kinds


def _notes(plan: Plan, sides: Sequence[Side], variant: Measurement | None) -> list[str]:
    count = len(plan.samples)
    notes = [
        f"Both were asked about the same {count} samples over HTTP, one request at a time, in "
        "turn; the latency ratio is the median over neighbouring requests. The broker, the agent "
        "and the client shared this machine with them.",
    ]
    if variant is not None:
        agreement = variant.agreement
        notes.append(
            f"Memory is from the trial on this machine: what load and run add above the imported "
            f"runtime. There the latency ratio was {variant.latency_ratio:.2f}x by "
            f"{variant.ratio_basis} time; on the clock the original against itself spread by "
            f"{100 * variant.noise:.1f} %, so a smaller difference there means nothing."
        )
        notes.append(
            f"The admission rested on agreement {agreement.value:.3f} "
            f"[{agreement.low:.3f}, {agreement.high:.3f}] ({agreement.kind}) on "
            f"{agreement.samples} {agreement.split} samples. Intervals are 95 %."
        )
    method = next((side.served.energy_method for side in sides if side.served.energy_method), "")
    if method:
        notes.append(f"Energy: {method}.".replace("..", "."))
    if plan.extensions:
        notes.append(
            "A file counts as right when the label is one that its extension stands for; "
            "where an extension is wrong about its file, it is so for both models."
        )
    return notes
