"""What cutting buys and for what: the best cut beside the best that is not cut, as text (pure)."""

from dataclasses import dataclass

from compression.findings import Ladder, Rejected, Rung

CUTS = frozenset({"structured_pruning", "unstructured_pruning"})
LITTLE = 0.1
"""Of time and of size: what saves less than this of both buys little."""


@dataclass(frozen=True)
class Bought:
    """Two rungs, each the best of its kind: with channels or weights cut, and without."""

    cut: Rung
    whole: Rung

    @property
    def little(self) -> bool:
        """Whether cutting saves next to nothing, of time and of size."""
        cut, whole = self.cut.measurement, self.whole.measurement
        kept = (cut.latency_ratio / whole.latency_ratio, cut.size_mib / whole.size_mib)
        return min(kept) > 1 - LITTLE


def is_cut(one: Rung | Rejected) -> bool:
    """Whether channels or single weights were taken out."""
    return any(spec.name in CUTS for spec in one.recipe.passes)


def of(ladder: Ladder) -> Bought | None:
    """The pair of a ladder; None where it has no cut."""
    cut = next((rung for rung in ladder.rungs if is_cut(rung)), None)
    whole = [rung for rung in ladder.rungs if not is_cut(rung)]
    best = next((rung for rung in whole if rung.recipe.passes), whole[0] if whole else None)
    return Bought(cut, best) if cut is not None and best is not None else None


def text(ladder: Ladder) -> str:
    """What cutting buys in one line; nothing where no cut was tried."""
    found = of(ladder)
    if found is None:
        lost = sum(one.tried and is_cut(one) for one in ladder.rejected)
        which = "the cut that was" if lost == 1 else f"the {lost} cuts that were"
        return f"cutting buys nothing: {which} looked at lost" if lost else ""
    cut, whole = found.cut.measurement, found.whole.measurement
    parts = [
        f"{cut.latency_ratio:.2f} of the time for {whole.latency_ratio:.2f}",
        f"{cut.size_mib:.2f} MiB for {whole.size_mib:.2f}",
        f"agreement {cut.agreement.value:.3f} for {whole.agreement.value:.3f}",
    ]
    if found.cut.nearness and found.whole.nearness:
        parts.append(f"loss {found.cut.nearness.loss:.2g} for {found.whole.nearness.loss:.2g}")
    how = "cutting buys little" if found.little else "what cutting buys"
    labels = f"{found.cut.recipe.label!r} beside {found.whole.recipe.label!r}"
    return f"{how}: {labels}: {', '.join(parts)}"
