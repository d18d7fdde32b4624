"""What an operator may send to whoever helps: how the door does, its settings without secrets, its log.

No picture, template, label or subject's id goes in. Settings are masked by their kind. Whatever is known to
be a secret or somebody enrolled is also looked for in every text, and taken out.
"""

import gzip
import io
import json
import platform
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from edge import __version__
from edge.core import files
from edge.core.errors import ConfigError, EdgeError, ModelError
from edge.core.text import HIDDEN, printable, scrub
from edge.device.assembly.candidate import candidate_gallery, gallery_in_force
from edge.device.checkup.doctor import Findings, document
from edge.device.checkup.finding import Checkup
from edge.device.settings.load import Settings, explain
from edge.face.manifest import is_installed, load_manifest, model_names

LOG_LINES, MAX_LOG_BYTES = 2000, 4 << 20
"""Of the end of the log."""

UNITS = ("edge.service", "edge-sync.service")
JOURNAL_S = 20.0
"""How long systemd's journal may take to be read."""

MAX_SECRET_BYTES = 64 * 1024
LEAST_SECRET_CHARS = 4
"""Shorter ones are masked by their kind alone: they stand in words."""

LEAST_ARGUMENT_CHARS = 8
"""An argument of a camera's program may be a password from so many characters on, unless it is a path."""

SOMEBODY = "<somebody>"
"""What stands in place of a label or a subject's id."""

CONTENTS = {
    "doctor.json": "what `edge doctor` has found",
    "health.json": "what the running daemon said last of itself",
    "settings.json": "the settings in force, without secrets, and where each comes from",
    "versions.json": "versions of the program, of what it uses, of models and system",
    "log.txt": "the end of the log",
}
"""What may be in the file."""


def contents(
    checkup: Checkup | None,
    seen: Findings,
    origin: Callable[[str], str],
    log_file: Path | None,
) -> dict[str, str]:
    """Return what goes into the file: texts by their names.

    `origin` says where a setting comes from. `checkup` is None where not even the settings can be read.
    `log_file` is a file that the log goes to; None: systemd's journal.

    Raises:
        ConfigError: `log_file` cannot be read.
    """
    documents: dict[str, Any] = {"doctor.json": document(seen, checkup)}
    settings = None
    if checkup is not None:
        settings = checkup.settings
        if checkup.health is not None:
            documents["health.json"] = checkup.health.model_dump(mode="json")
        documents["settings.json"] = {
            key: {"value": value, "from": origin(key)} for key, value in shown_settings(settings)
        }
    documents["versions.json"] = versions(settings)
    hide = hider(settings)
    found = {name: json.dumps(_hidden(each, hide), indent=2) for name, each in documents.items()}
    log_text = "\n".join(hide(printable(scrub(line))) for line in _log(log_file).splitlines())
    return found | ({"log.txt": log_text} if log_text else {})


def shown_settings(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield every setting in force: secrets masked, of URLs no credentials, of commands the program alone."""
    for each in explain(settings):
        if each.key.startswith("cameras.") and each.key.endswith(".command") and each.value != "unset":
            program, *rest = settings.cameras[each.key.split(".")[1]].command or ()
            yield each.key, f"{program} and {len(rest)} arguments"
        else:
            yield each.key, each.value


def versions(settings: Settings | None) -> dict[str, Any]:
    """Return the versions of program, packages, models and system."""
    told: dict[str, Any] = {
        "edge": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {each.name: each.version for each in distributions()},
    }
    if settings is None:
        return told
    place = settings.models_path
    try:
        known = [load_manifest(name, place) for name in model_names(place)]
        told["models"] = {each.name: each.sha256 for each in known if is_installed(each, place)}
    except ModelError as error:
        told["models"] = str(error)
    return told


def hider(settings: Settings | None) -> Callable[[str], str]:
    """Return what takes known secrets, labels and subjects' ids out of a text."""
    if settings is None:
        return lambda text: text
    secrets = [each for each in _secrets(settings) if len(each) >= LEAST_SECRET_CHARS]
    people = [each for each in _people(settings) if each]

    def hide(text: str) -> str:
        if secrets:
            text = re.sub(_any_of(secrets), HIDDEN, text)
        if people:
            text = re.sub(rf"(?<![\w-]){_any_of(people)}(?![\w-])", SOMEBODY, text, flags=re.IGNORECASE)
        return text

    return hide


def _any_of(words: Iterable[str]) -> str:
    """Return a pattern for each of these, the longest first."""
    return f"(?:{'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})"


def _secrets(settings: Settings) -> Iterator[str]:
    """Yield what nobody else may know: passwords, also those in URLs, and what secret files hold."""
    for value in _values(settings.model_dump()):
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
        elif isinstance(value, str) and "@" in value:
            password = urlsplit(value).netloc.rpartition("@")[0].partition(":")[2]
            yield from (password, unquote(password))
    for camera in settings.cameras.values():
        values = [word.partition("=")[2] or word for word in (camera.command or ())[1:]]
        yield from (each for each in values if len(each) >= LEAST_ARGUMENT_CHARS and each[0] not in "-/")
    places = (settings.mqtt.password_file, settings.remote.api_key_file, settings.device_key_path)
    for path in (*places, settings.sync.sealing_key, settings.remote.secret):
        if path is None:
            continue
        try:
            data = files.read_bounded(path, MAX_SECRET_BYTES)
        except EdgeError:
            continue  # who cannot read it cannot tell it
        yield from (data or b"").decode(errors="replace").split()


def _people(settings: Settings) -> Iterator[str]:
    """Yield ids and labels of everybody enrolled, as far as the galleries can be read."""
    for read in (gallery_in_force, candidate_gallery):
        try:
            gallery, _ = read(settings)
        except EdgeError:
            continue  # nothing that is sent comes out of a gallery; this looks for slips
        for subject in gallery.subjects:
            yield from (subject.subject_id, subject.label)
            yield from (word for word in subject.label.split() if word.istitle() and len(word) > 2)


def _values(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _values(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _values(each)
    else:
        yield value


def _hidden(value: Any, hide: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {key: _hidden(each, hide) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(each, hide) for each in value]
    return hide(scrub(value)) if isinstance(value, str) else value


def _log(file: Path | None) -> str:
    """Return the end of the log; nothing where there is no journal that can be read.

    Raises:
        ConfigError: The file cannot be read.
    """
    if file is not None:
        try:
            lines = files.read_regular(file).decode(errors="replace").splitlines()
        except OSError as error:
            raise ConfigError(f"--log: {file} cannot be read: {error.strerror}") from None
        return "\n".join(lines[-LOG_LINES:])[-MAX_LOG_BYTES:]
    if shutil.which("journalctl") is None:
        return ""
    units = [f"--unit={each}" for each in UNITS]
    command = ["journalctl", "--quiet", "--no-pager", "--no-hostname", "--output=short-iso", *units]
    try:
        asked = subprocess.run(
            [*command, f"--lines={LOG_LINES}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=JOURNAL_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.decode(errors="replace")[-MAX_LOG_BYTES:]


def archive(texts: dict[str, str], at_s: float) -> bytes:
    """Return a tar.gz of these texts; `at_s` is the time they get, in seconds since 1970."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as zipped, tarfile.TarFile(fileobj=zipped, mode="w") as tar:
        for name, text in texts.items():
            member, data = tarfile.TarInfo(f"edge-support/{name}"), text.encode()
            member.size, member.mtime, member.mode = len(data), int(at_s), files.PRIVATE
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()
