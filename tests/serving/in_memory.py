"""Objects of shared memory that tests make, and tensors that lie in them."""

import uuid
from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import shared_memory

Client = triton.InferenceServerClient


class Memory:
    """An object of shared memory that the test made, and its name as a region."""

    def __init__(self, size: int) -> None:
        self.key = f"/trimtab-{uuid.uuid4().hex}"
        self.name = self.key[1:]
        self.handle = shared_memory.create_shared_memory_region(self.name, self.key, size)
        self.size = size

    def register(self, client: Client, *, offset: int = 0, size: int | None = None) -> None:
        client.register_system_shared_memory(self.name, self.key, size or self.size, offset)

    def put(self, array: np.ndarray[Any, Any], *, offset: int = 0) -> None:
        shared_memory.set_shared_memory_region(self.handle, [array], offset)

    def get(self, like: np.ndarray[Any, Any], *, offset: int = 0) -> np.ndarray[Any, Any]:
        kind = np.object_ if like.dtype == object else like.dtype
        return shared_memory.get_contents_as_numpy(self.handle, kind, like.shape, offset).copy()


def shared_input(name: str, like: Any, region: Memory, *, offset: int = 0) -> triton.InferInput:
    kinds = {"f": "FP32", "b": "BOOL", "O": "BYTES"}
    tensor = triton.InferInput(name, like.shape, kinds[like.dtype.kind])
    tensor.set_shared_memory(region.name, like.nbytes, offset)
    return tensor


def shared_output(name: str, region: Memory, size: int, *, offset: int = 0) -> Any:
    tensor = triton.InferRequestedOutput(name)
    tensor.set_shared_memory(region.name, size, offset)
    return tensor
