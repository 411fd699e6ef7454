"""Keeps a few of the requests that come in, at a stated share of the time (see capturing.py)."""

import hashlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from agent.errors import BadConfig
from agent.protocol.capturing import SUFFIX, CaptureOrder, CaptureStatus
from agent.protocol.tensors import Array
from agent.serving import sampled
from agent.serving.faults import NotFound
from agent.serving.sealing import Seal
from agent.serving.slot import Slots

LEASE_S = 30.0
"""A capture that nobody asks for any more ends: its agent has died, or thought better of it."""
_CREDIT_S = 0.02
"""What may be spent before any time has passed: the first requests are as good as others."""


class Reservoir:
    """Which of a stream's items stay, so that each was equally likely to (Vitter's algorithm R)."""

    def __init__(self, most: int, *, held: int, chance: random.Random) -> None:
        """Keep `most`; `held` are there from before a restart, and count as the whole stream."""
        self.most, self.held, self.seen = most, held, held
        self._chance = chance

    def place(self) -> int | None:
        """Where the next item goes, or None where it is not kept."""
        self.seen += 1
        at = self.held if self.held < self.most else self._chance.randrange(self.seen)
        return at if at < self.most else None


class Capture:
    """One order being followed. `saw` is called where the model ran, so it must be quick."""

    def __init__(self, order: CaptureOrder, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Go on in the order's folder.

        Raises:
            BadConfig: its key cannot be used.
        """
        self.order = order
        self._folder = Path(order.folder)
        self._seal = Seal(Path(order.key_file)) if order.key_file else None
        self._clock, self._began_s = clock, clock()
        self.asked_s = self._began_s
        there = sorted(self._folder.glob(f"*{SUFFIX}"))
        self._bytes = {path.name: path.stat().st_size for path in there}
        held = len(there) if order.kind == "reservoir" else 0
        # Not for secrets: which requests are kept is no matter of guessing.
        chance = random.Random()  # noqa: S311 - not for secrets
        self._reservoir = Reservoir(order.most, held=min(held, order.most), chance=chance)
        self._known: dict[str, bytes] = {}
        self._number = 0
        self._spent_s = 0.0
        self._cannot = ""
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"capture {order.name}")
        self._writing: Future[None] | None = None

    def saw(
        self, inputs: Mapping[str, Array], names: Sequence[str], answers: Sequence[Array] | None
    ) -> None:
        """Consider one request; `answers` is None where the model could not answer it."""
        now_s = self._clock()
        elapsed_s = now_s - self._began_s
        if now_s - self.asked_s > LEASE_S or self._cannot:
            return
        if self._spent_s > _CREDIT_S + self.order.share * elapsed_s:
            return
        if self._writing is not None and not self._writing.done():
            return
        began_s = time.perf_counter()
        self._keep(inputs, dict(zip(names, answers, strict=True)) if answers is not None else {})
        self._spent_s += time.perf_counter() - began_s

    def _keep(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        if texts := [name for name, array in inputs.items() if array.dtype.kind not in "fiub"]:
            self._cannot = f"cannot keep inputs: '{texts[0]}' is not numbers"
            return
        queued = self.order.kind == "queue"
        place = self._number if queued else self._reservoir.place()
        if place is None:
            return
        self._number += 1
        # Copies: the caller's memory is used again.
        kept = {name: np.array(array) for name, array in inputs.items()}
        told = {name: np.array(array) for name, array in outputs.items()} if queued else {}
        self._writing = self._writer.submit(self._write, place, kept, told)

    def _write(self, place: int, inputs: dict[str, Array], outputs: dict[str, Array]) -> None:
        began_s = time.thread_time()
        try:
            if self._welcome(inputs, place):
                path = self._folder / f"{place:06d}{SUFFIX}"
                self._bytes[path.name] = sampled.write(path, inputs, outputs, self._seal)
                if self.order.kind == "reservoir":
                    self._reservoir.held = len(self._bytes)
        except OSError as error:
            self._cannot = f"cannot keep inputs: {error}"
        finally:
            self._spent_s += time.thread_time() - began_s

    def _welcome(self, inputs: dict[str, Array], place: int) -> bool:
        """Whether this one may be written: there is room, it is sound, and not there already."""
        if any(not np.isfinite(a).all() for a in inputs.values() if a.dtype.kind == "f"):
            return False
        if self.order.kind == "queue":
            return len(list(self._folder.glob(f"*{SUFFIX}"))) < self.order.most
        name = f"{place:06d}{SUFFIX}"
        size = sum(array.nbytes for array in inputs.values())
        others = sum(held for other, held in self._bytes.items() if other != name)
        if others + size > self.order.most_bytes:
            if name not in self._bytes:
                self._reservoir.most = max(self._reservoir.held, 1)  # so many fit
            return False
        digest = hashlib.blake2b(digest_size=16)
        for array in inputs.values():
            digest.update(repr(array.shape).encode() + array.tobytes())
        if digest.digest() in self._known.values():
            return False
        self._known[name] = digest.digest()
        return True

    def status(self) -> CaptureStatus:
        """What it has done."""
        return CaptureStatus(
            kept=len(self._bytes) if self.order.kind == "reservoir" else self._number,
            seen=self._reservoir.seen if self.order.kind == "reservoir" else self._number,
            kept_bytes=sum(self._bytes.values()),
            spent_s=self._spent_s,
            elapsed_s=self._clock() - self._began_s,
            cannot=self._cannot,
        )

    def end(self) -> None:
        """Write what is being written; nothing more."""
        self._cannot = "ended"
        self._writer.shutdown(wait=True)


class Captures:
    """What is being kept of which model."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._captures: dict[str, Capture] = {}

    def follow(self, order: CaptureOrder) -> CaptureStatus:
        """Begin, go on with or end a capture; its counts."""
        capture = self._captures.get(order.name)
        if capture is not None and capture.order != order:
            self._captures.pop(order.name).end()
            self._tap(order.name, None)
            last, capture = capture.status(), None
            if not order.most:
                return last.model_copy(update={"cannot": ""})
        if not order.most:
            return CaptureStatus()
        if capture is None:
            try:
                capture = self._captures[order.name] = Capture(order)
            except (BadConfig, OSError) as error:
                return CaptureStatus(cannot=str(error))
        capture.asked_s = time.monotonic()
        self._tap(order.name, capture)
        return capture.status()

    def _tap(self, name: str, capture: Capture | None) -> None:
        """Have the live variant of a name show what it runs, where that one is meant."""
        try:
            variant = self._slots.find(name)
        except NotFound:
            return
        wanted = capture.order.sha256 if capture is not None else None
        meant = capture is not None and wanted in {None, variant.request.sha256}
        variant.tap = capture.saw if capture is not None and meant else None
