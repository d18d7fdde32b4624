"""What is told of configuration pushes: what became of the last, and which nobody believes. Data only."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

Status = Literal["none", "applied", "rejected", "rolled_back", "pending"]


class Outcome(BaseModel):
    """What became of the last push that was believed; remembered over restarts."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    status: Status = "none"
    layer: str | None = None
    version: int | None = None
    keys: dict[str, str] = {}
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Unbelieved:
    """The last message that came as a push and is none for this device: unsigned, old, for somebody else.

    `sha256` is that of the message, by which whoever sent it knows it again; of one of more than 64 KiB that
    of its first 64 KiB and one byte (`mqtt.incoming` takes no more).
    """

    at: datetime
    layer: str
    reason: str
    error: str
    sha256: str
