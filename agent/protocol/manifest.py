"""What the fleet publishes of one model version: files by hash, inputs, outputs, budget."""

from typing import Annotated

from pydantic import Field, ValidationError, field_validator

from agent.errors import BadInput
from agent.protocol import chunking, topics
from compression.job import Budget, DeviceClass, InputSpec, OutputSpec, Sha256, Share
from compression.words import Words, explain


class FileRef(Words):
    """One file, as chunks on the broker. `sha256` is of the plain file."""

    size_bytes: Annotated[int, Field(ge=1, le=chunking.MAX_FILE_BYTES)]
    sha256: Sha256
    encoding: chunking.Encoding = "raw"
    chunk_bytes: Annotated[int, Field(ge=1024, le=chunking.CHUNK_BYTES)] = chunking.CHUNK_BYTES
    """Plain bytes per chunk; the last one is shorter."""
    index: Sha256
    """The blob of raw 32-byte chunk hashes in order; nested `index_depth` times."""
    index_depth: Annotated[int, Field(ge=1, le=3)] = 1


class Variant(Words):
    """A ready-made variant, offered with the device class it was measured on."""

    file: FileRef
    device_class: DeviceClass
    label: str


class Files(Words):
    """The files of one version."""

    model: FileRef
    calibration: FileRef | None = None
    evaluation: FileRef | None = None
    variants: tuple[Variant, ...] = ()


class Manifest(Words):
    """One version of one model. `version` only grows; `display_version` is for people."""

    name: str
    version: Annotated[int, Field(ge=1, le=2**53)]
    display_version: Annotated[str, Field(max_length=64)]
    files: Files
    inputs: Annotated[tuple[InputSpec, ...], Field(min_length=1)]
    outputs: Annotated[tuple[OutputSpec, ...], Field(min_length=1)]
    preprocessing: dict[str, str] = Field(default_factory=dict)
    min_agreement: Share = 0.98
    budget: Budget = Budget()
    licence: str = ""
    metadata: dict[str, str] = Field(default_factory=dict)
    created_at_s: float
    least_agent_version: str = "0.1.0"

    @field_validator("name")
    @classmethod
    def _name_fits_topics(cls, name: str) -> str:
        if not topics.NAME.match(name):
            raise ValueError("1 to 63 letters, digits, '.', '_' and '-'")
        return name


def parse(payload: bytes) -> Manifest:
    """Read a manifest from the payload of a verified envelope.

    Raises:
        BadInput: a field is missing, unknown or out of range; the message names it.
    """
    try:
        return Manifest.model_validate_json(payload)
    except ValidationError as error:
        raise BadInput(f"cannot read the manifest: {explain(error)}") from error
