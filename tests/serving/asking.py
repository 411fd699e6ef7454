"""Asks slots in this process as a connection does, and remembers what it would."""

import json
import mmap
from typing import Any

import numpy as np

from agent.protocol import crash_page
from agent.protocol.crash_page import CrashPage
from agent.serving import again, api, heads, public_api
from agent.serving.again import Again
from agent.serving.api import Answer
from agent.serving.service import Service
from agent.serving.shared_memory import Regions
from agent.serving.slot import Slots
from tests.benchmarks import lean
from tests.benchmarks.lean import Question

INFER = "/v2/models/{}/infer"


class Asker:
    """Slots in this process, and what a connection would remember."""

    def __init__(self) -> None:
        page = CrashPage(mmap.mmap(-1, crash_page.BYTES))
        self.slots = Slots(page=page)
        self.service = Service(self.slots, shared=Regions())
        self.again: Again | None = None

    async def ask(self, asked: Question) -> bytes:
        """What goes out after the head, by rote where that is offered."""
        by_rote = self.by_rote(asked)
        if by_rote:
            return by_rote.partition(b"\r\n\r\n")[2]
        answer = await self.read(asked)
        return b"".join(answer.parts)

    async def read(self, asked: Question) -> Answer:
        """Ask the usual way, and learn."""
        head = heads.read(asked.head)
        request = api.Request(
            head.method, head.path, head.query, head.headers, memoryview(asked.body)
        )
        answer = await api.answer(public_api.ROUTES, self.service, request)
        self.again = again.learn(asked.whole, head, answer)
        return answer

    def by_rote(self, asked: Question) -> bytes | None:
        return self.again.answer(asked.whole) if self.again is not None else None


def in_json(data: str, shape: str = "[1, 3]", kind: str = "FP32", **more: Any) -> Question:
    text = f'{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{kind}","data":{data}}}]'
    text += "".join(f',"{name}":{json.dumps(value)}' for name, value in more.items()) + "}"
    return lean.question(INFER.format("m"), text.encode())


def rows(seed: int) -> np.ndarray[Any, Any]:
    """A frame of whole numbers, which an identity gives back as they are."""
    return np.random.default_rng(seed).integers(-9, 9, (8, 512)).astype("f4")
