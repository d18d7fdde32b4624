from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WheelMember:
    requirement: str
    wheel_sha256: str
    wheel_bytes: int
    path: str
    file: str
    sha256: str
    bytes: int
