"""The guides are true: their commands, settings, links and files exist, and the README stays short."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import pytest
from pydantic import BaseModel
from typer.main import get_command

from edge.cli.app import app
from edge.device.settings.load import Settings
from edge.mqtt.contract.home_assistant import documents
from edge.mqtt.contract.messages import EventPayload
from edge.mqtt.contract.topics import Topics
from tests.support.places import ROOT

README = ROOT / "README.md"
HOUSE = ROOT / "edge/README.md"
CHANGELOG = ROOT / "deploy/CHANGELOG.md"
FOLDERS = (
    ".",
    "deploy",
    "deploy/home-assistant",
    "deploy/node-red",
    "deploy/prometheus",
    "edge",
    "models",
    "tests",
)
GUIDES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
MOST_LINES = 150

OTHER_NAMES = {
    "gallery.sync",
    "liveness.failed",
    "outbox.undeliverable",
    "outbox.quarantined",
    "journal.paused",
}
"""Names of commands over MQTT and of counters, which are written like settings."""

MANIFEST_TABLES = ("calibration", "recognisability", "accuracy")
"""Tables of a model's manifest, which are written like those of the settings."""

FILES = ("sqlite", "toml", "pem", "key", "json", "jsonl", "py", "md", "lock", "ballast")

ROOMS = "core|camera|face|gallery|mqtt|recognition|device|fleet|lab|cli"


def names(guides: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in guides]


every_guide = pytest.mark.parametrize("guide", GUIDES, ids=names(GUIDES))


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield the language and text of each code block, fenced or indented; '' for no language."""
    fenced = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
    for block in fenced.finditer(text):
        yield block[2], re.sub(rf"^{block[1]}", "", block[3], flags=re.MULTILINE)
    rest = fenced.sub("", text)
    for block in re.finditer(r"(?:^ {4,}\S.*\n(?:^[ ]*\n(?=^ {4,}\S))?)+", rest, re.MULTILINE):
        before = rest[: block.start()].rstrip("\n").rpartition("\n")[2]
        blank = rest[: block.start()].endswith("\n\n") or block.start() == 0
        if blank and before is not None:
            lines = [line.strip() for line in block[0].splitlines()]
            yield "", "\n".join(lines)


def inline(text: str) -> list[str]:
    """Return what stands in backticks outside of fenced blocks, lines joined."""
    without = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", without)]


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every command of the product in code blocks and in backticks."""
    lines = [
        line
        for language, block in blocks(text)
        if language in ("", "sh", "bash")
        for line in block.splitlines()
    ]
    lines += [found for found in inline(text) if found.startswith("edge ")]
    for line in lines:
        for segment in re.split(r"&&|;|\|", re.sub(r"\s#.*", "", line)):
            try:
                words = shlex.split(segment)
            except ValueError:
                continue
            at = [
                n for n, word in enumerate(words) if word.endswith("bin/edge") or (n == 0 and word == "edge")
            ]
            if at:
                yield words[at[0] + 1 :]


@cache
def command_line() -> Any:
    return get_command(app)


def problem_of(words: list[str], *, old: bool) -> str | None:
    """Return what of a command does not exist; hidden names count where the `old` ones are spoken of."""
    command = command_line()
    rest = list(words)
    while rest and hasattr(command, "list_commands"):
        if rest[0].startswith("-"):
            break
        found = command.get_command(None, rest[0])
        if found is None or (found.hidden and not old):
            return f"no command {rest[0]}"
        command = found
        rest.pop(0)
    known = {"--help"} | {
        name
        for each in command.params
        if old or not getattr(each, "hidden", False)
        for name in (*each.opts, *each.secondary_opts)
    }
    unknown = [word for word in rest if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]
    return f"no option {unknown[0]}" if unknown else None


def tables() -> dict[str, set[str]]:
    """Return the keys of every table of edge.toml; those of a camera under `cameras`."""
    found: dict[str, set[str]] = {}
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found[name] = set(kind.model_fields)
    return found


def settings_in(values: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if name != "cameras" and isinstance(value, dict):
            yield from (f"{name}.{key}" for key in value)
        else:
            yield name


def is_setting(name: str) -> bool:
    table, _, key = name.partition(".")
    return key in tables().get(table, set()) if key else name in Settings.model_fields


def slugs(text: str) -> set[str]:
    """Return the anchors that the headings of a guide get."""
    without = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", without, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= MOST_LINES


def test_there_are_guides_and_they_name_commands():
    assert len(GUIDES) >= 8
    assert sum(len(list(commands(path.read_text()))) for path in GUIDES) > 60


@every_guide
def test_every_command_exists_with_its_options(guide: Path):
    problems = {
        " ".join(words): problem
        for words in commands(guide.read_text())
        if (problem := problem_of(words, old=guide == CHANGELOG))
    }
    assert problems == {}


@every_guide
def test_every_link_leads_somewhere(guide: Path):
    text = guide.read_text()
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        place, _, anchor = target.partition("#")
        path = (guide.parent / place).resolve() if place else guide
        if not path.exists() or (anchor and anchor not in slugs(path.read_text())):
            broken.append(target)
    assert broken == []


@every_guide
def test_every_setting_exists(guide: Path):
    text = guide.read_text()
    wrong = []
    for found in inline(text):
        match = re.fullmatch(r"([a-z]+)\.([a-z_]+)(?: = .+)?", found)
        if match and match[1] in tables() and match[2] not in FILES:
            name = f"{match[1]}.{match[2]}"
            if name not in OTHER_NAMES and not is_setting(name) and guide != CHANGELOG:
                wrong.append(name)
        table = re.fullmatch(r"\[([a-z]+)\](?: ([a-z_]+))?", found)
        if table and (
            table[1] not in (*tables(), "cameras") or (table[2] and not is_setting(f"{table[1]}.{table[2]}"))
        ):
            wrong += [found] if table[1] not in MANIFEST_TABLES else []
    for language, block in blocks(text):
        if language == "toml" or (not language and re.match(r"(\[[a-z]|[a-z_]+ = )", block)):
            values = tomllib.loads(block)
            if "sha256" not in values:  # the manifest of a model
                wrong += [name for name in settings_in(values) if not is_setting(name)]
    assert wrong == []


@every_guide
def test_every_target_of_make_exists(guide: Path):
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = guide.read_text()
    said = [*inline(text), *(line for _, block in blocks(text) for line in block.splitlines())]
    named = {match[1] for line in said if (match := re.match(r"make ([a-z0-9-]+)", line.strip()))}
    assert named - targets == set()


@every_guide
def test_every_file_that_is_named_exists(guide: Path):
    missing = []
    for found in inline(guide.read_text()):
        if guide == HOUSE and re.fullmatch(rf"(?:{ROOMS})/[\w/]+(?:\.py)?/?", found):
            place = ROOT / "edge" / found.removesuffix(".py").rstrip("/")
            if not place.is_dir() and not place.with_suffix(".py").is_file():
                missing.append(found)
        if re.fullmatch(r"(?:tests|deploy|systemd|models)/[\w./-]+", found) and not (ROOT / found).exists():
            missing.append(found)
    assert missing == []


def test_names_that_are_no_settings_are_in_the_program():
    source = "".join(path.read_text() for path in (ROOT / "edge").rglob("*.py"))
    assert {name for name in OTHER_NAMES if f'"{name}"' not in source} == set()


def test_the_automation_names_the_entity_that_the_first_door_announces():
    toml = next(block for language, block in blocks(README.read_text()) if language == "toml")
    settings = tomllib.loads(toml)
    (camera,) = settings["cameras"]
    topics = Topics(settings["site"], settings["device"])
    *_, document = documents(topics, (camera,), "0", "homeassistant").values()
    described = json.loads(document)
    (event,) = [each for each in described["cmps"].values() if each["p"] == "event"]
    name = f"{described['dev']['name']} {event['name']}".lower().replace(" ", "_")
    automation = next(block for language, block in blocks(README.read_text()) if language == "yaml")
    assert re.findall(r"entity_id: (event\.\w+)", automation) == [f"event.{name}"]
    assert "'match'" in automation
    assert "match" in event["event_types"]


def test_the_event_that_is_shown_is_one():
    shown = [block for language, block in blocks((ROOT / "deploy/MQTT.md").read_text()) if language == "json"]
    assert len(shown) == 1
    event = EventPayload.model_validate_json(shown[0])
    assert event.event_type == "match"
    assert set(json.loads(shown[0])) == set(json.loads(event.model_dump_json()))


def test_the_picture_is_small_and_shows_two_frames():
    picture = ROOT / "deploy/door.png"
    assert picture.stat().st_size < 200_000
    image = cv2.imread(str(picture))
    assert image is not None
    assert image.shape[1] > 1000
