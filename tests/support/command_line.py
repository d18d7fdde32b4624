"""The command line as an operator uses it: in this process, or as one of its own; and the file it reads."""

import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from typer.testing import CliRunner, Result

from edge.cli.app import app, command_line
from edge.device.settings.load import environment_without_settings


def write_config(directory: Path, *lines: str, name: str = "edge.toml", **settings: str | int | Path) -> Path:
    """Write an edge.toml with these settings, then these lines; returns its path."""
    path = directory / name
    values = [
        f"{key} = {json.dumps(value if isinstance(value, int) else str(value))}"
        for key, value in settings.items()
    ]
    path.write_text("\n".join([*values, *lines]) + "\n")
    return path


def invoke(*arguments: str | Path, config: Path | None = None) -> Result:
    """Run a command of `edge` in this process; what it raises is in the result. No table is wrapped."""
    return CliRunner().invoke(app, _words(*arguments, config=config), env={"COLUMNS": "200"})


def run(*arguments: str | Path, config: Path | None = None, code: int = 0) -> str:
    """Run a command of `edge` in this process; returns what it printed, and raises what it raises."""
    return _checked(invoke(*arguments, config=config), code).output


def run_json(*arguments: str | Path, config: Path | None = None) -> list[Any]:
    """Run a command of `edge` in this process that prints JSON documents one a line, or a single one."""
    text = _checked(invoke(*arguments, config=config), 0).stdout
    documents, decoder = [], json.JSONDecoder()
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        documents.append(document)
        text = text[end:]
    return documents


def ended(*arguments: str | Path, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `edge` in this process to its end: what Python printed, and the code that a process would end with.

    It is two seconds faster than `edge`, for tests of many cases.
    """
    words = ["edge", *_words(*arguments, config=config)]
    out, err = StringIO(), StringIO()
    with mock.patch.object(sys, "argv", words), redirect_stdout(out), redirect_stderr(err):
        with pytest.raises(SystemExit) as end:
            command_line()
    return subprocess.CompletedProcess(words, int(end.value.code or 0), out.getvalue(), err.getvalue())


def edge(
    *arguments: str | Path, config: Path | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a command of `edge` to its end, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "edge", *_words(*arguments, config=config)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=environment_of(config),
    )


def on_terminal(*arguments: str | Path, config: Path, term: str) -> str:
    """Run a command of `edge` on a terminal of 80 columns; it ends with 0. Returns what is shown."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "edge", *_words(*arguments, config=config)]
    environment = environment_of(config) | {"TERM": term, "COLUMNS": "80"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    assert child.returncode == 0
    return shown.decode()


def environment_of(config: Path | None) -> dict[str, str]:
    """Return the environment of a child; as on a machine of its own, with its own cache and run files."""
    environment = environment_without_settings()
    if config is not None:
        environment |= {
            "XDG_CACHE_HOME": str(config.parent / "cache"),
            "XDG_RUNTIME_DIR": str(config.parent / "run"),
        }
    return environment


def _checked(done: Result, code: int) -> Result:
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done


def _words(*arguments: str | Path, config: Path | None) -> list[str]:
    return [*map(str, arguments), *(["--config", str(config)] if config else [])]
