"""The command line as a whole: every command is there, and none costs what it does not need."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from edge.cli.app import COMMANDS, app
from tests.support.command_line import run

MEASURING = ("edge.lab", "edge.fleet", "edge.face.build", "matplotlib", "simsimd", "tuf", "qdrant_client")
"""What measures, shows and publishes, and what only some doors need."""

INFERENCE = ("onnxruntime", "cv2", "edge.face.session")
DAEMON = ("edge.device.daemon", "edge.recognition.pipeline")
SETTINGS = ("edge.device", "pydantic", "numpy", "cryptography", "paho")


def loaded(code: str, modules: tuple[str, ...]) -> list[str]:
    """Return which of these modules, or what is below them, a new interpreter has after running `code`."""
    beginnings = tuple(f"{module}." for module in modules)
    ask = f"import sys\nprint('loaded', *(m for m in sys.modules if f'{{m}}.'.startswith({beginnings!r})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{ask}"], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str):
    assert f"edge {name}" in run(name, "--help").replace("root", "edge")


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
    run(*group, "--help")


def test_the_help_names_them_all():
    text = run("--help")
    assert all(name in text for name in COMMANDS)


def test_an_unknown_command_is_refused():
    assert "No such command" in run("nosuch", code=2)


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


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name: str):
    own = " ".join(get_command(app).get_command(None, name).help.split("\n\n")[0].split())
    assert COMMANDS[name].help == own


def test_a_module_that_is_loaded_is_found():
    assert loaded("import json.decoder", ("json",)) != []
    assert loaded("import json", ("jso", "edge")) == []


def test_the_list_of_commands_loads_none_of_them():
    code = (
        "import contextlib, sys, edge.__main__\n"
        "sys.argv = ['edge', '--help']\n"
        "with contextlib.suppress(SystemExit): edge.__main__.main()"
    )
    assert loaded(code, (*MEASURING, *INFERENCE, *DAEMON, *SETTINGS)) == []


def command_loaded(name: str, modules: tuple[str, ...]) -> list[str]:
    return loaded(
        f"import typer\nfrom edge.cli.app import app\n"
        f"assert typer.main.get_command(app).get_command(None, {name!r})",
        modules,
    )


def test_the_daemon_does_not_load_the_tools_that_measure():
    assert command_loaded("run", MEASURING) == []
    assert command_loaded("run", DAEMON) != []


@pytest.mark.parametrize("name", ["enroll", "identify", "models", "subjects", "gallery", "sync"])
def test_what_the_daemon_starts_loads_no_daemon(name: str):
    assert command_loaded(name, DAEMON[:1]) == []


def test_a_synchronisation_loads_nothing_that_infers():
    assert command_loaded("sync", INFERENCE) == []
