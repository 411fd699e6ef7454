"""Every setting, its default, its unit. From a TOML file, then TRIMTAB_* variables over it.

A nested setting is written TRIMTAB_BROKER__HOST in the environment. The configuration never
changes after start.
"""

import os
import socket
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from agent.errors import BadConfig
from compression.words import explain

DEFAULT_FILE = Path("/etc/trimtab/trimtab.toml")
Port = Annotated[int, Field(ge=0, le=65_535)]
Seconds = Annotated[float, Field(gt=0)]
_WINDOW = r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"


class Broker(BaseModel):
    """The MQTT broker and how to log in to it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: str = "localhost"
    port: Port = 1883
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None
    """With a CA file the connection is TLS and the broker's certificate is checked."""
    certificate_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: Annotated[int, Field(ge=5, le=65_535)] = 30
    session_expiry_s: Annotated[int, Field(ge=0)] = 7 * 24 * 3600
    reconnect_least_s: Seconds = 1.0
    reconnect_most_s: Seconds = 120.0


class Idle(BaseModel):
    """When a device has time for work that can wait: `recompress` while it is idle."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    cpu_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Of all cores, the most that others take, serving among them."""
    celsius: float = 75.0
    """The warmest that it may be, where it has a sensor."""
    battery_percent: Annotated[float, Field(ge=0, le=100)] | None = None
    """How full its battery must be when it is not on mains; without it, only on mains."""
    window: Annotated[str, Field(pattern=_WINDOW)] | None = None
    """Hours of its day, such as `22:00-06:00`; without it, any."""
    calm_s: Annotated[float, Field(ge=0)] = 60.0
    """How long all that must hold before work begins, or goes on."""


class Settings(BaseSettings):
    """The agent's configuration."""

    model_config = SettingsConfigDict(
        env_prefix="TRIMTAB_", env_nested_delimiter="__", frozen=True, extra="forbid",
        use_attribute_docstrings=True,
    )  # fmt: skip

    device_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] = Field(
        default_factory=socket.gethostname
    )
    groups: tuple[str, ...] = ()
    state_dir: Path = Path("/var/lib/trimtab")
    keys_dir: Path = Path("/etc/trimtab/keys")
    """Public keys (`*.pub`) whose manifests and commands are obeyed."""
    prefix: str = "trimtab/v1"
    broker: Broker = Broker()

    http_host: str = "127.0.0.1"
    http_port: Port = 8000
    http_token_file: Path | None = None
    """Holds the token that clients must show: `Authorization: Bearer TOKEN`."""
    http_to_anybody: bool = False
    """With a `http_host` that others reach: they may ask without a token."""
    http_unix_path: Path | None = None
    """A Unix socket on which the models answer too."""
    http_shared_memory: bool = False
    """Clients may pass tensors in system shared memory. They could crash the server by it."""
    http_most_waiting: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Requests that may wait for one model; beyond it they are told to come again."""
    health_host: str = "127.0.0.1"
    health_port: Port = 8002

    telemetry_interval_s: Seconds = 60.0
    spool_mib: Annotated[float, Field(gt=0)] = 8.0
    window_topics: Annotated[int, Field(ge=1, le=32)] = 16
    """Chunk topics asked for at once in a pull; each may hold 120 KiB of memory."""
    pull_timeout_s: Seconds = 20.0
    """How long a pull may bring nothing before it reports what is missing."""
    pull_kib_per_s: Annotated[float, Field(gt=0)] | None = None
    """Caps the bandwidth of pulls; without it they take what the line gives."""

    work_memory_mib: Annotated[float, Field(gt=0)] = 256.0
    worker_memory_mib: Annotated[float, Field(gt=0)] = 1024.0
    """The ceiling of the compression worker (RLIMIT_DATA); beyond it only the job fails."""
    disk_reserve_mib: Annotated[float, Field(ge=0)] = 64.0
    """Free disk that no pull may touch."""
    idle: Idle = Idle()
    inputs_key_file: Path | None = None
    """32 bytes; live inputs that the device collects are sealed with it at rest (AES-256-GCM)."""
    models_mib: Annotated[float, Field(gt=0)] | None = None
    """The most that all models may take on disk; versions that nothing needs give way."""
    models_memory_mib: Annotated[float, Field(gt=0)] | None = None
    """The most memory for all models together, a swap and the worker; else what is free."""
    models_cpu_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The most that all models may take of all cores, at the request rates of their budgets."""
    joules_per_cpu_second: Annotated[float, Field(gt=0)] | None = None
    """Overrides the board table of agent/device/energy.py; measure yours with a power meter."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment over the file; nothing else (no .env file is read)."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings


def load(path: Path | None = None) -> Settings:
    """Read the file (by default $TRIMTAB_CONFIG, or /etc/trimtab/trimtab.toml where it exists).

    Raises:
        BadConfig: no such file, not TOML, an unknown setting or a value out of range.
    """
    where = locate(path)
    document = read_file(where)
    try:
        return Settings(**document)
    except ValidationError as error:
        named = where or "of the environment"
        raise BadConfig(f"cannot use the configuration {named}: {explain(error)}") from error


def locate(path: Path | None = None) -> Path | None:
    """The file that `load` reads: the one named, or the default one where it exists."""
    if path is None and "TRIMTAB_CONFIG" in os.environ:
        path = Path(os.environ["TRIMTAB_CONFIG"])
    return path or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)


def read_file(where: Path | None) -> dict[str, Any]:
    """The settings that a file gives, unchecked; none without a file.

    Raises:
        BadConfig: no such file, or not TOML.
    """
    if where is None:
        return {}
    try:
        return tomllib.loads(where.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfig(f"cannot read the configuration {where}: {error}") from error
