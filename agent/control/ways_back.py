"""What may serve again when what serves must not: which variant, in which order (pure)."""

from agent.control.record import Record, Variant
from agent.errors import Refused

_MOST_DISTRUSTED = 32


def order(record: Record) -> tuple[Variant, ...]:
    """What RESTORING tries to serve, in order: where it is sent, what serves, what served."""
    target = record.deployment.target if record.deployment else None
    return _once([target, *_trusted(record, [record.live]), *others(record)])


def others(record: Record) -> tuple[Variant, ...]:
    """What served before the live variant and is not distrusted, the latest first."""
    found = _once(_trusted(record, [record.previous, record.before]))
    return tuple(variant for variant in found if not variant.same(record.live))


def target(record: Record, version: int | None) -> Variant:
    """Where the command to roll back leads: before the last deployment, or to a version.

    Raises:
        Refused: there is no way back, or none to that version; what there is, is named.
    """
    known = _once(_trusted(record, [record.before, record.previous, _held(record)]))
    found = [variant for variant in known if not variant.same(record.live)]
    for variant in found:
        if version is None or variant.version == version:
            return variant
    there = ", ".join(f"{v.label!r} of version {v.version}" for v in found) or "nothing"
    wanted = "" if version is None else f" to version {version}"
    raise Refused(f"cannot roll {record.model} back{wanted}: {there} is kept for that")


def pinned(record: Record) -> frozenset[int]:
    """The versions whose files must stay on the disk."""
    ways = _trusted(record, [record.previous, record.before, _held(record)])
    return frozenset(variant.version for variant in (record.live, *ways) if variant)


def fallen(record: Record) -> bool:
    """Whether what serves, by the record, must not."""
    return record.live is not None and record.live.sha256 in record.distrusted


def distrust(record: Record) -> Record:
    """This record after its live variant has failed: it is no way back, nor chosen again."""
    if record.live is None or record.live.sha256 in record.distrusted:
        return record
    kept = (*record.distrusted, record.live.sha256)[-_MOST_DISTRUSTED:]
    return record.model_copy(update={"distrusted": kept})


def serving(record: Record, variant: Variant) -> Record:
    """This record once `variant` serves, in its deployment or after it was restored."""
    live, deployment = record.live, record.deployment
    began_with = deployment.began_with if deployment else None
    if variant.same(live):
        return record.model_copy(update={"live": variant})
    before = began_with if began_with is not None else record.before
    update = {"live": variant, "previous": live or record.previous, "before": before}
    return record.model_copy(update=update)


def _held(record: Record) -> Variant | None:
    return record.deployment.began_with if record.deployment else None


def _trusted(record: Record, variants: list[Variant | None]) -> list[Variant | None]:
    return [v for v in variants if v is not None and v.sha256 not in record.distrusted]


def _once(variants: list[Variant | None]) -> tuple[Variant, ...]:
    """Each once, where it comes first."""
    found: list[Variant] = []
    for variant in variants:
        if variant is not None and not any(variant.same(other) for other in found):
            found.append(variant)
    return tuple(found)
