"""What a device remembers of configuration pushes, in one file, and the settings that come of it.

Nothing is taken or tried here (`configuring`); what is remembered is `twin`'s.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from edge.core import files
from edge.core.errors import ConfigError, FileError
from edge.device.pushes.push import Memory, Patch, merged
from edge.device.settings.load import Settings

log = logging.getLogger(__name__)

MAX_MEMORY_BYTES = 1 << 20


def memory_path(settings: Settings) -> Path:
    """Return where a device remembers its pushes."""
    return settings.state_dir / "config" / "pushes.json"


def load_memory(path: Path) -> Memory:
    """Return what is remembered; nothing where nothing was pushed.

    Raises:
        ConfigError: The file is damaged. It is not taken for "nothing seen", which would let old pushes in.
    """
    data = files.read_bounded(path, MAX_MEMORY_BYTES)
    if data is None:
        return Memory()
    try:
        return Memory.model_validate_json(data)
    except ValidationError:
        raise ConfigError(
            f"{path}: damaged; restore it, or remove it to accept any signed push once more"
        ) from None


def save_memory(path: Path, memory: Memory) -> None:
    """Write what is remembered, whole.

    Raises:
        FileError: It cannot be written; what was remembered stays.
    """
    files.make_private_directory(path.parent)
    files.write_whole(path, memory.model_dump_json().encode())


def effective(local: Settings, read: Callable[[Patch], Settings]) -> Settings:
    """Return the local settings with the good pushes over them.

    `read` reads edge.toml with a patch on top. Where the pushes do not fit the file, it stands alone.

    Raises:
        ConfigError: The memory of pushes is damaged.
    """
    if not local.push.trusted_keys:
        return local
    try:
        memory = load_memory(memory_path(local))
        layers = memory.model_copy(update={"trial": {}}).layers(local.push.groups)
        return read(merged(layers.values())) if layers else local
    except FileError as error:
        log.warning("pushed configuration cannot be read, edge.toml stands alone: %s", error)
    except ConfigError as error:
        if memory_path(local).name in str(error):
            raise
        log.error("pushed configuration does not fit edge.toml, which stands alone: %s", error)
    return local
