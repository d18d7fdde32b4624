"""Settings: what an operator may configure, from edge.toml and EDGE_SECTION__KEY, strict and explained.

Also which of them a running daemon keeps until it is started again. Only `device`, `lab` and `cli` see these
classes; other rooms take plain values. This module opens nothing but the configuration itself.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from edge.core.errors import ConfigError
from edge.core.files import read_toml
from edge.core.ids import Slug
from edge.core.text import did_you_mean, key_problems, scrub, without_credentials
from edge.device.settings.tables import (
    AccessSettings,
    AnyPath,
    CameraSettings,
    CaptureSettings,
    CommandsSettings,
    DecisionSettings,
    GallerySettings,
    HomeAssistantSettings,
    LivenessSettings,
    LogSettings,
    MqttSettings,
    OutboxSettings,
    PrivacySettings,
    PushSettings,
    RecognitionSettings,
    RemoteSettings,
    StrangersSettings,
    SyncSettings,
)

log = logging.getLogger(__name__)

MAX_CONFIG_BYTES = 256 * 1024

RENAMED = {("gallery", "shadow_share"): "candidate_share"}
"""Table and name of a setting in the last release, which is still read, and its name now."""


def default_state_dir() -> Path:
    """Return where state lives by default: systemd's STATE_DIRECTORY, else the XDG state home."""
    if service_dir := os.environ.get("STATE_DIRECTORY"):
        return Path(service_dir.split(":")[0]).absolute()
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return home.absolute() / "edge"


def cache_dir() -> Path:
    """Return where programs keep what they can make anew (XDG)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def runtime_dirs() -> list[Path]:
    """Return where a program may leave what ends with the machine, first choice first; none: nowhere."""
    service, user = os.environ.get("RUNTIME_DIRECTORY"), os.environ.get("XDG_RUNTIME_DIR")
    found = [Path(service.split(":")[0])] if service else []
    return [*found, Path(user) / "edge"] if user else found


class Settings(BaseSettings):
    """Everything an operator may set. Later wins: defaults, edge.toml, environment."""

    model_config = SettingsConfigDict(
        env_prefix="EDGE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
    )

    site: Slug = Field("home", description="Site this device belongs to; part of every topic.")
    device: Slug = Field("door", description="Name of this device, unique on its site; part of every topic.")
    state_dir: AnyPath = Field(
        default_factory=default_state_dir, description="Directory for gallery, outbox and models."
    )
    models_dir: AnyPath | None = Field(
        None, description="Directory of the models; state_dir/models when unset."
    )
    models_mirror: str | None = Field(
        None,
        min_length=1,
        description="Directory or URL that `edge models fetch` asks before the package registry.",
    )
    cameras: dict[Slug, CameraSettings] = Field(
        default_factory=dict, max_length=16, description="Cameras by name; the name is part of their topics."
    )
    capture: CaptureSettings = CaptureSettings()
    recognition: RecognitionSettings = RecognitionSettings()
    decision: DecisionSettings = DecisionSettings()
    liveness: LivenessSettings = LivenessSettings()
    access: AccessSettings = AccessSettings()
    gallery: GallerySettings = GallerySettings()
    strangers: StrangersSettings = StrangersSettings()
    remote: RemoteSettings = RemoteSettings()
    sync: SyncSettings = SyncSettings()
    mqtt: MqttSettings = MqttSettings()
    outbox: OutboxSettings = OutboxSettings()
    push: PushSettings = PushSettings()
    commands: CommandsSettings = CommandsSettings()
    homeassistant: HomeAssistantSettings = HomeAssistantSettings()
    privacy: PrivacySettings = PrivacySettings()
    log: LogSettings = LogSettings()

    @property
    def models_path(self) -> Path:
        """The directory of the models."""
        return self.models_dir or self.state_dir / "models"

    @property
    def gallery_path(self) -> Path:
        """The directory of the gallery's versions."""
        return self.state_dir / "gallery"

    @property
    def device_key_path(self) -> Path:
        """The key that templates are encrypted under."""
        return credential_path(self.gallery.device_key or self.state_dir / "device.key")

    @property
    def sync_path(self) -> Path:
        """The directory of what synchronisation remembers."""
        return self.state_dir / "sync"

    @property
    def sync_scope(self) -> str:
        """The scope whose gallery a fleet's door serves."""
        return self.sync.scope or self.device

    @property
    def pictured_cameras(self) -> tuple[str, ...]:
        """The cameras whose pictures are published on their topic."""
        shown = [name for name, values in self.cameras.items() if values.snapshot != "off"]
        return () if self.privacy.anonymous else tuple(shown)

    @property
    def outbox_path(self) -> Path:
        """The outbox's database."""
        return self.state_dir / "outbox.sqlite"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment over the values given, which are those of edge.toml."""
        return _Environment(settings_cls), init_settings


class _Environment(EnvSettingsSource):
    """EDGE_SECTION__KEY, also by names of the last release."""

    def __call__(self) -> dict[str, Any]:
        return _told_of_old_names(super().__call__(), "environment")


def with_new_names(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by table and name, those of the last release (`RENAMED`) under their names now."""
    found = dict(tables)
    for (section, old), new in RENAMED.items():
        values = found.get(section)
        if isinstance(values, dict) and old in values:
            others = {name: value for name, value in values.items() if name != old}
            found[section] = {new: values[old], **others}
    return found


def load(path: Path | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    """Read the settings from `path` (none: defaults), `overrides` on top, the environment above both.

    Raises:
        ConfigError: One line that names every wrong key, where it stands and how to mend it.
    """
    where = str(path) if path else "settings"
    local = (
        _told_of_old_names(read_toml(path, MAX_CONFIG_BYTES, "configuration", ConfigError), where)
        if path
        else {}
    )
    values = _merge(local, with_new_names(overrides or {}))
    _refuse_unknown_environment()
    try:
        return Settings(**values)
    except ValidationError as error:
        found = key_problems(error, "settings", Settings)
        problems = tuple(f"{_named(each.where, where)}: {each}" for each in found)
        raise ConfigError(f"{where}: " + "; ".join(map(str, found)), problems) from None
    except SettingsError as error:
        raise ConfigError(f"environment: {error}; write tables as JSON or set EDGE_SECTION__KEY") from None


def environment_sets(key: str) -> bool:
    """Return whether the environment sets `section.key`, or all of its section."""
    before = {f"{section}.{new}": f"{section}.{old}" for (section, old), new in RENAMED.items()}
    names = {name.upper() for name in os.environ}
    wanted = [f"EDGE_{name.replace('.', '__')}".upper() for name in (key, before.get(key, key))]
    return any(name in names or name.rpartition("__")[0] in names for name in wanted)


def _named(key: str, file: str) -> str:
    """Return where a wrong value comes from: the environment, or the file."""
    return "environment" if environment_sets(key) else file


def origin(path: Path | None, pushed: Mapping[str, Any]) -> Callable[[str], str]:
    """Return what says where the value in force of a key comes from: environment, push, file or default.

    `path` and `pushed` are the file and the patch over it that the settings were read from.

    Raises:
        ConfigError: The file cannot be read.
    """
    file = read_toml(path, MAX_CONFIG_BYTES, "configuration", ConfigError) if path else {}
    layers = {
        "environment": _Environment(Settings)(),
        "push": with_new_names(pushed),
        "file": with_new_names(file),
    }

    def of(key: str) -> str:
        return next((name for name, tables in layers.items() if _has(tables, key.split("."))), "default")

    return of


def _has(tables: object, steps: list[str]) -> bool:
    for step in steps:
        if not isinstance(tables, Mapping) or step not in tables:
            return False
        tables = tables[step]
    return True


def environment_without_settings() -> dict[str, str]:
    """Return the environment for a child process that takes its settings from a file alone."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith("EDGE_")}


def credential_path(path: Path) -> Path:
    """Return where a secret's file is: a name without a directory is one of systemd's credentials, if any."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(directory) / path if directory and len(path.parts) == 1 else path


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _told_of_old_names(tables: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the same as `with_new_names`, and log which names the operator has to change."""
    for (section, old), new in RENAMED.items():
        if isinstance(values := tables.get(section), dict) and old in values:
            log.warning(
                "%s: %s.%s is called %s now; the old name is read for this release only",
                where,
                section,
                old,
                new,
            )
    return with_new_names(tables)


def _refuse_unknown_environment() -> None:
    # pydantic-settings ignores unknown top-level variables; a misspelt one must not go unnoticed.
    for name in os.environ:
        if name.upper().startswith("EDGE_"):
            key = name[len("EDGE_") :].split("__")[0].lower()
            if key not in Settings.model_fields:
                meant = did_you_mean(key, list(Settings.model_fields))
                raise ConfigError(
                    f"environment: {name} is not a setting; {meant} (`edge check --all` lists all)"
                )


class Explained(NamedTuple):
    """A setting in force; `is_default`: nobody need have set it."""

    key: str
    value: str
    meaning: str
    is_default: bool


def explain(settings: BaseModel, prefix: str = "") -> Iterator[Explained]:
    """Yield every setting in force; secrets and credentials are masked."""
    for name, field in type(settings).model_fields.items():
        key, value = f"{prefix}{name}", getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from explain(value, f"{key}.")
        elif isinstance(value, dict) and value:
            for entry, table in value.items():
                yield from explain(table, f"{key}.{entry}.")
        else:
            shown = "unset" if value is None else _shown(value)
            default = field.get_default(call_default_factory=True, validated_data={})
            yield Explained(key, shown, field.description or "", value == default)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return scrub(" ".join(map(str, value)))
    return without_credentials(str(value))


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
