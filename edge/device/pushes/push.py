"""What a configuration push is: whom it is for, what it may change, which settings come of it. Pure: no IO.

Settings are layered: defaults, edge.toml, fleet, groups in the order the device names them, device; the
environment stays above all. A push is one layer, signed, numbered, for one site. `memory` is what a device
remembers of pushes; `trial` tries them, keeps them and rolls them back.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import to_jsonable_python

from edge.core.errors import EnvelopeError, PushError
from edge.core.ids import Slug
from edge.core.text import first_problem, problems, strict_object, uncapitalized
from edge.device.settings.load import Settings, environment_sets, with_new_names
from edge.mqtt.contract.envelope import opened

PAYLOAD_TYPE = "application/vnd.edge.config+json"
"""What is signed: a configuration, and nothing else can be passed off as one."""

MAX_ENVELOPE_BYTES = 64 * 1024
MAX_VERSION = 2**53 - 1
"""The largest integer that every JSON reader keeps exact."""

FLEET, DEVICE = "fleet", "device"
NEVER = "never"

Version = Annotated[int, Field(ge=1, le=MAX_VERSION)]
Patch = dict[str, Any]


class Desired(BaseModel):
    """The signed content of a push. `name` is the group or the device; a fleet has none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    schema_: Literal["edge.config-desired/1"] = Field("edge.config-desired/1", alias="schema")
    scope: Literal["fleet", "group", "device"]
    site: Slug
    name: Slug | None = None
    version: Version
    patch: Patch

    @model_validator(mode="after")
    def _named(self) -> Self:
        if (self.name is None) != (self.scope == FLEET):
            raise ValueError("a group or a device is named, a fleet is not")
        return self

    @property
    def layer(self) -> str:
        """The layer it is: fleet, group:<name> or device."""
        return f"group:{self.name}" if self.scope == "group" else self.scope


class Floor(BaseModel):
    """The newest push of one layer that was checked; sha256 of its signed content."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: Version
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class PushLayer(BaseModel):
    """A patch that is kept, or on trial."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: Version
    patch: Patch


Status = Literal["none", "applied", "rejected", "rolled_back", "pending"]
"""What `config/reported` says of the last push; `pending`: it is on trial, `applied`: it is kept."""


class PushReport(BaseModel):
    """What became of the last push that was checked, and of each of its keys; remembered over restarts."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    status: Status = "none"
    layer: str | None = None
    version: int | None = None
    keys: dict[str, str] = {}
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RefusedPush:
    """The last message that came as a push and is none for this device: unsigned, old, for somebody else.

    `sha256` is that of the message, by which whoever sent it knows it again; of one of more than 64 KiB that
    of its first 64 KiB and one byte (`mqtt.delivery.inbox` takes no more).
    """

    at: datetime
    layer: str
    reason: str
    error: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this device is to pushes, and whom it trusts."""

    site: str
    device: str
    groups: tuple[str, ...]
    trusted: tuple[str, ...]


def checked(data: bytes, layer: str, who: Identity, seen: Floor | None) -> tuple[Desired, Floor] | None:
    """Return a push that was received for a layer, with the floor to remember first; None: it came before.

    Checks in this order: size, signature, form, addressee, version, which is higher than that of what was
    `seen` before.

    Raises:
        PushError: It is refused; says why.
    """
    if not data:
        raise PushError("it is empty, which takes nothing back; push an empty patch", "empty")
    try:
        payload = opened(data, PAYLOAD_TYPE, who.trusted, MAX_ENVELOPE_BYTES)
    except EnvelopeError as error:
        raise PushError(str(error), error.reason) from None
    desired = _parsed(payload)
    name = {"device": who.device, "fleet": None}.get(desired.scope, desired.name)
    if (desired.site, desired.name) != (who.site, name) or desired.layer != layer:
        raise PushError("it is for another site, group or device", "addressee")
    if desired.scope == "group" and desired.name not in who.groups:
        raise PushError("it is for a group that this device is not in", "addressee")
    floor = Floor(version=desired.version, sha256=hashlib.sha256(payload).hexdigest())
    if seen is not None and floor == seen:
        return None
    if seen is not None and floor.version <= seen.version:
        other = "another content came" if floor.version == seen.version else "came"
        raise PushError(
            f"version {seen.version} {other} before; push a higher version than {seen.version}", "version"
        )
    return desired, floor


def merged(layers: Iterable[PushLayer]) -> Patch:
    """Return all layers as one patch, the last one strongest."""
    found: Patch = {}
    for layer in layers:
        for section, values in with_new_names(layer.patch).items():
            below = found.get(section)
            both = isinstance(below, dict) and isinstance(values, dict)
            found[section] = {**below, **values} if both and below is not None else values
    return found


def keys_of(patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a patch sets, by `section.key`."""
    found: dict[str, Any] = {}
    for section, values in with_new_names(patch).items():
        if isinstance(values, dict) and section != "cameras":
            found.update((f"{section}.{key}", value) for key, value in values.items())
        else:
            found[section] = values
    return found


def marks() -> dict[str, str]:
    """Return what a push may do to each setting: live, restart, stricter, or never."""
    return dict(_marks(Settings, ""))


def document() -> dict[str, Any]:
    """Return the JSON Schema of edge.toml; `push` in a field says what a push may do to it."""
    schema = Settings.model_json_schema()
    for table in (schema, *schema.get("$defs", {}).values()):
        for field in table.get("properties", {}).values():
            if "$ref" not in field and "allOf" not in field:
                field.setdefault("push", NEVER)
    return schema


def refusals(patch: Mapping[str, Any], local: Settings) -> dict[str, str]:
    """Return why each key of a patch may not be pushed; empty where all may."""
    known, found = marks(), {}
    for key, value in keys_of(patch).items():
        mark = known.get(key, NEVER if key.partition(".")[0] in ("cameras", *_plain()) else None)
        if mark is None:
            found[key] = "unknown key; correct its spelling"
        elif mark == NEVER:
            found[key] = "may not be pushed; set it in the device's edge.toml"
        elif mark == "stricter" and _looser(value, value_of(local, key)):
            found[key] = "may only be made stricter than the device's edge.toml"
    return found


def mistakes(patch: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with single values of a patch, by `section.key`, wherever it is pushed to.

    Whether values go together is for each device to say, which has others beside them.
    """
    found: dict[str, str] = {}
    for section, values in with_new_names(patch).items():
        table = Settings.model_fields.get(section)
        if table is None or not isinstance(table.default, BaseModel):
            continue
        try:
            type(table.default).model_validate(values)
        except ValidationError as error:
            for where, what, _ in problems(error, ""):
                if where:
                    found[f"{section}.{where}"] = uncapitalized(what)
    return found


def acknowledged(layer: str, layers: Mapping[str, PushLayer], *, restarted: bool = False) -> dict[str, str]:
    """Return what became of each key of a layer that is in force.

    That is applied, needs_restart (not where the daemon was `restarted` since) or "overridden by" a stronger
    one of the `layers` in force (the strongest last) or by the environment.
    """
    order = list(layers)
    above = {name: keys_of(layers[name].patch) for name in order[order.index(layer) + 1 :]}
    known, found = marks(), {}
    for key in keys_of(layers[layer].patch):
        stronger = [name for name, keys in above.items() if key in keys]
        if environment_sets(key):
            found[key] = "overridden by the environment"
        elif stronger:
            found[key] = f"overridden by {stronger[-1]}"
        else:
            found[key] = "applied" if restarted or known[key] == "live" else "needs_restart"
    return found


def effective_hash(settings: Settings) -> str:
    """Return a hash of everything that may be pushed, as it is in force: equal on devices that agree."""
    text = json.dumps(_pushable(settings), sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def settings_told(settings: Settings) -> dict[str, Any]:
    """Return what may be pushed, by `section.key`, as it is in force, for JSON; none of it is secret."""
    told: dict[str, Any] = to_jsonable_python(_pushable(settings))
    return told


def _pushable(settings: Settings) -> dict[str, Any]:
    return {key: value_of(settings, key) for key, mark in marks().items() if mark != NEVER}


def _parsed(payload: bytes) -> Desired:
    try:
        return Desired.model_validate(strict_object(payload))
    except ValidationError as error:
        raise PushError(f"its content, {first_problem(error)}", "content") from None
    except ValueError as error:
        raise PushError(f"its content: {error}", "content") from None


def _plain() -> set[str]:
    """Return the settings that stand in no table."""
    return {name for name, field in Settings.model_fields.items() if not isinstance(field.default, BaseModel)}


def _marks(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from _marks(type(field.default), f"{name}.")
        else:
            extra = field.json_schema_extra
            yield f"{prefix}{name}", str(extra["push"]) if isinstance(extra, dict) else NEVER


def value_of(settings: Settings, key: str) -> Any:
    """Return the value of `section.key`."""
    found: Any = settings
    for part in key.split("."):
        found = getattr(found, part)
    return found


def _looser(value: object, local: object) -> bool:
    """Return whether more would leave the device: what is false or less may be true or more elsewhere."""
    if value == local:
        return False
    if isinstance(local, bool):
        return value is not True
    return not isinstance(value, int | float) or not isinstance(local, int | float) or not value <= local
