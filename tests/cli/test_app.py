"""The command line as a whole: every command is there, and none costs what it does not need."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from edge.cli.app import COMMANDS, app, with_json_file
from tests.support.command_line import invoke, run

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


def every_command(command: Any, name: str = "edge") -> Iterator[tuple[str, Any]]:
    """Yield the name of every command, below its groups, with the command."""
    if not hasattr(command, "list_commands") or command.invoke_without_command:
        yield name, command
    for below in command.list_commands(None) if hasattr(command, "list_commands") else ():
        yield from every_command(command.get_command(None, below), f"{name} {below}")


def test_json_is_a_flag_in_every_command_and_json_file_names_a_file():
    commands = dict(every_command(get_command(app)))
    assert len(commands) > 50
    shown, written = {}, {}
    for name, command in commands.items():
        options = {word: option for option in command.params for word in option.opts}
        if option := options.get("--json"):
            shown[name] = option.is_flag
        if option := options.get("--json-file"):
            written[name] = option.is_flag
    assert len(shown) > 20
    assert [name for name, is_flag in shown.items() if not is_flag] == []
    assert [name for name, is_flag in written.items() if is_flag] == []
    assert {"edge calibrate", "edge demo", "edge evaluate identify"} <= written.keys() <= shown.keys()


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ("evaluate verify --json out.txt --images x", "evaluate verify --json-file out.txt --images x"),
        ("calibrate --json=out.json", "calibrate --json-file=out.json"),
        ("evaluate clips l.toml --json out.json", "evaluate clips l.toml --json-file out.json"),
        ("evaluate clips --json l.toml", None),
        ("evaluate verify --json --images x", None),
        ("evaluate verify --images x --json", None),
        ("evaluate verify --json-file out.json --json", None),
    ],
)
def test_json_with_a_file_is_read_for_this_release(
    words: str, read: str | None, caplog: pytest.LogCaptureFixture
):
    assert with_json_file(words.split()) == (read or words).split()
    assert len(caplog.messages) == (read is not None)


def test_the_old_names_of_files_reach_the_command(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    absent = tmp_path / "none" / "out.json"
    for command in ("evaluate fusion", "calibrate"):
        done = invoke(*command.split(), "--images", tmp_path, "--json", absent)
        assert f"--json-file: {absent} cannot be written" in str(done.exception)
    assert f"--out: {absent} cannot be written" in str(invoke("demo", "--out", absent).exception)
    invoke("demo", "--out", tmp_path / "out.json", "--fetch-only")
    assert [line for line in caplog.messages if "next release" not in line] == []
    assert len(caplog.messages) == 3


def test_json_before_a_file_that_is_no_figures_leaves_it_alone(tmp_path: Path):
    labels = tmp_path / "labels.toml"
    labels.write_text("clip = 1")
    assert invoke("evaluate", "clips", "--json", labels).exit_code != 0
    assert labels.read_text() == "clip = 1"
