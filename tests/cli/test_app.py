"""The command line as a whole: every command is there, and none costs what it does not need."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge.cli.app import COMMANDS, app

HEAVY = (
    *("edge.evaluate", "edge.bench", "edge.demo", "edge.face.build"),
    *("tuf", "matplotlib", "simsimd", "qdrant_client"),
)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str):
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert f"edge {name}" in done.output.replace("root", "edge")


@pytest.mark.parametrize(
    "group",
    [
        ("gallery", "doctor"),
        ("subjects", "list"),
        ("models", "fetch"),
        ("evaluate", "identify"),
        ("evaluate", "clips"),
        ("bench", "gallery"),
        ("bench", "mqtt"),
        ("journal", "follow"),
    ],
)
def test_groups_keep_their_commands_also_where_there_is_only_one(group: tuple[str, str]):
    assert CliRunner().invoke(app, [*group, "--help"]).exit_code == 0


def test_the_help_names_them_all():
    text = CliRunner().invoke(app, ["--help"]).output
    assert all(name in text for name in COMMANDS)


def test_an_unknown_command_is_refused():
    done = CliRunner().invoke(app, ["nosuch"])
    assert done.exit_code == 2
    assert "No such command" in done.output


def test_what_a_terminal_has_no_letters_for_is_told_as_an_escape(tmp_path: Path):
    patch = tmp_path / "patch.toml"
    patch.write_text('decision.margin = "Zoë [/red]"\n')
    done = subprocess.run(
        [sys.executable, "-m", "edge", "config", "diff", str(patch)],
        capture_output=True,
        text=True,
        env={"PYTHONIOENCODING": "ascii", "HOME": str(tmp_path)},
    )
    assert "Zo\\xeb [/red]" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr


def test_the_daemon_does_not_load_the_tools_that_measure():
    code = (
        "import sys, typer\n"
        "from edge.cli.app import app\n"
        "assert typer.main.get_command(app).get_command(None, 'run')\n"
        f"print(*[m for m in sys.modules if m.startswith({HEAVY!r})])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
