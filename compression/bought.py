"""What cutting buys and for what: the best cut beside the best that is not cut, as text (pure)."""

from dataclasses import dataclass

from compression.findings import Ladder, Rejected, Rung

CUTS = frozenset({"structured_pruning", "unstructured_pruning"})
LITTLE = 0.1
"""Of time, size and memory: what saves less than this of each buys little."""


@dataclass(frozen=True)
class Bought:
    """Two rungs, each the best of its kind: with channels or weights cut, and without."""

    cut: Rung
    whole: Rung

    @property
    def little(self) -> bool:
        """Whether cutting saves next to nothing."""
        cut, whole = self.cut.measurement, self.whole.measurement
        saved = (
            cut.latency_ratio <= (1 - LITTLE) * whole.latency_ratio,
            cut.size_mib <= (1 - LITTLE) * whole.size_mib,
            cut.peak_memory_mib <= (1 - LITTLE) * whole.peak_memory_mib,
        )
        return not any(saved)


def is_cut(one: Rung | Rejected) -> bool:
    """Whether channels, or single weights, were cut by what they are worth."""
    return any(spec.name in CUTS for spec in one.recipe.passes)


def of(ladder: Ladder) -> Bought | None:
    """The pair of a ladder, packed both where one of them can be; None where it has no cut."""
    cut = next((rung for rung in ladder.rungs if is_cut(rung)), None)
    whole = [rung for rung in ladder.rungs if not is_cut(rung)]
    if cut is None or not whole:
        return None
    packed = _is_packed(cut)
    # The original last, and what is packed as the cut is first; else in the ladder's order.
    best = min(whole, key=lambda one: (not one.recipe.passes, _is_packed(one) != packed))
    return Bought(cut, best)


def _is_packed(rung: Rung) -> bool:
    return any(spec.name == "packed" for spec in rung.recipe.passes)


def text(ladder: Ladder) -> str:
    """What cutting buys in one line; nothing where no cut was tried."""
    found = of(ladder)
    if found is None:
        lost = [one for one in ladder.rejected if is_cut(one)]
        if not lost or any(not one.tried for one in lost) or any(map(is_cut, ladder.rungs)):
            return ""
        return f"cutting buys nothing: of {len(lost)} that were tried none is good enough"
    cut, whole = found.cut.measurement, found.whole.measurement
    parts = [
        f"{cut.latency_ratio:.2f} of the time for {whole.latency_ratio:.2f}",
        f"a file of {cut.size_mib:.2f} MiB for {whole.size_mib:.2f}",
        f"memory of {cut.peak_memory_mib:.1f} MiB for {whole.peak_memory_mib:.1f}",
        f"agreement {cut.agreement.value:.3f} for {whole.agreement.value:.3f}",
    ]
    if found.cut.nearness and found.whole.nearness:
        parts.append(f"loss {found.cut.nearness.loss:.2g} for {found.whole.nearness.loss:.2g}")
    how = "cutting buys little" if found.little else "what cutting buys"
    labels = f"{found.cut.recipe.label!r} beside {found.whole.recipe.label!r}"
    return f"{how}: {labels}: {', '.join(parts)}"
