"""The reference in deploy/MQTT.md: current, and nothing missing."""

import re
from pathlib import Path

import pytest

from edge.core.errors import ConfigError
from edge.mqtt.contract.messages import VERBS
from edge.mqtt.contract.problems import DoorProblem
from edge.mqtt.contract.reference import BEGIN, END, reference, replaced
from edge.mqtt.contract.topics import CHANNELS
from tests.support.command_line import run
from tests.support.places import ROOT


@pytest.mark.parametrize("name", ["MQTT.md", "README.md"])
def test_the_guides_hold_the_current_tables(name: str):
    guide = (ROOT / "deploy" / name).read_text()
    assert replaced(guide) == guide, f"edge schema guide --out deploy/{name}"


def test_every_problem_has_a_remedy_in_the_guide():
    guide = (ROOT / "deploy/README.md").read_text().partition("\n## Problems\n")[2]
    for problem in DoorProblem:
        assert f"| `{problem}` | {problem.when} | {problem.remedy} |\n" in guide
        assert len(problem.remedy) > 10


def test_every_channel_every_verb_and_every_field_is_in_it_with_a_meaning():
    made = reference()
    rows = [line.strip("| ").split(" | ") for line in made.splitlines() if line.startswith("| ")]
    fields = {row[0] for row in rows if len(row) == 3}
    for channel in CHANNELS:
        path = channel.path.replace("{", "<").replace("}", ">")
        assert f"#### `{path}`\n" in made
        for payload in channel.payloads:
            if not channel.plain:
                named = {f"`{field.alias or name}`" for name, field in payload.model_fields.items()}
                assert named <= fields, channel.name
    assert {"`score`.`best`", "`present`[].`subject`.`id`", "`models`.`*`.`sha256`"} <= fields
    assert {f"`{verb}`" for verb in VERBS} <= {row[0] for row in rows}
    assert [row for row in rows if len(row) == 3 and not all(row)] == []


def test_every_link_in_it_leads_to_a_heading():
    made = reference()
    headings = re.findall(r"^#+ (.+)$", made, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert len(anchors) == len(headings)
    links = set(re.findall(r"\]\(#([^)]+)\)", made))
    assert len(links) == len(CHANNELS)
    assert links <= anchors


def test_what_people_wrote_around_it_stays():
    assert replaced(f"above\n{BEGIN}\nold\n{END}\nbelow\n").startswith(f"above\n{BEGIN}\n")
    assert replaced(f"above\n{BEGIN}\nold\n{END}\nbelow\n").endswith(f"{END}\nbelow\n")


def test_a_guide_without_a_place_for_it_is_left_alone(tmp_path: Path):
    guide = tmp_path / "guide.md"
    guide.write_text(f"{END}\n{BEGIN}\n")
    with pytest.raises(ConfigError, match="between"):
        run("schema", "guide", "--out", guide)
    assert guide.read_text() == f"{END}\n{BEGIN}\n"


def test_the_command_prints_it_and_writes_it(tmp_path: Path):
    guide = tmp_path / "guide.md"
    guide.write_text(f"{BEGIN}\n{END}\n")
    printed = run("schema", "guide")
    run("schema", "guide", "--out", guide)
    assert printed.strip() == reference().strip()
    assert reference() in guide.read_text()
