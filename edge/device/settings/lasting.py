"""Which settings a running daemon keeps until it is started again. Pure."""

from typing import Any

from edge.device.settings.load import Settings

WHOLE = (
    *("site", "device", "state_dir", "models_dir"),
    *("mqtt", "outbox", "privacy", "log", "strangers", "homeassistant"),
)
"""Settings and tables that are read at the start alone."""

GROUPS = "push.groups"
"""The one key of a table that otherwise may change: whose pushes are heard."""


def kept(now: Settings, wanted: Settings) -> tuple[Settings, list[str]]:
    """Return `wanted` with what only a restart changes as it is `now`, and the names of what is kept back."""
    names = [key for key in WHOLE if getattr(now, key) != getattr(wanted, key)]
    changes: dict[str, Any] = {key: getattr(now, key) for key in names}
    if now.push.groups != wanted.push.groups:
        names.append(GROUPS)
        changes["push"] = wanted.push.model_copy(update={"groups": now.push.groups})
    return wanted.model_copy(update=changes), names
