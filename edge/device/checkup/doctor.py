"""The table of checks, and what comes of running them: one engine for text, JSON and the support file."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from itertools import chain
from typing import Any

from edge.core.errors import ConfigError, EdgeError
from edge.device.assembly.inspection import inspect
from edge.device.checkup import board, broker_trial, recognising, views
from edge.device.checkup.finding import Check, Checkup, Finding, Light, green, red, yellow
from edge.mqtt.contract.problems import DoorProblem

REFUSED = "correct it; `edge check` explains the settings in force"


def configuration(checkup: Checkup) -> Iterator[Finding]:
    """Say what keeps this device from working as its settings say; as `edge check`."""
    wrong = inspect(checkup.settings)
    if wrong and checkup.config_file is None:
        yield yellow("settings", "no settings file was read, only defaults", "name one with --config")
    for problem in wrong:
        told, _, remedy = problem.rpartition("; ")
        yield red("settings", told or remedy, remedy if told else REFUSED)
    if not wrong:
        yield green("settings", f"{checkup.config_file or 'the defaults'}: nothing is wrong")


def daemon(checkup: Checkup) -> Iterator[Finding]:
    """Say whether the daemon runs, and what it says of itself."""
    health = checkup.health
    if not checkup.running:
        yield yellow(
            "daemon",
            "does not run; what follows was looked at without it",
            "systemctl start edge, or edge run",
        )
        return
    if health is None:
        yield yellow(
            "daemon", "runs, and leaves no health here", "run this as the daemon's user: edge-command doctor"
        )
        return
    for word in health.problems:
        when = next((each.when for each in DoorProblem if each == word), "a newer daemon knows what it is")
        yield red(f"daemon: {word}", when, health.remedies.get(word, "its log says more"))
    for part in health.late:
        yield red("daemon", f"{part} makes no progress", "its log says why; systemctl restart edge")
    if health.outbox.dropped or health.outbox.undeliverable:
        told = f"{health.outbox.dropped} decisions dropped, {health.outbox.undeliverable} undeliverable"
        yield yellow("daemon: outbox", told, "`edge journal undeliverable` lists those")
    yield green("daemon", f"runs for {health.uptime_s / 3600:.1f} h; {health.outbox.depth} decisions wait")


CHECKS = (
    Check("settings", "what `edge check` says", configuration, REFUSED),
    Check(
        "daemon", "whether it runs, and the problems it names in `health`", daemon, "systemctl restart edge"
    ),
    Check(
        "cameras",
        "frames a second, resolution, range in metres, light, mounting",
        views.cameras,
        "correct its table in edge.toml",
    ),
    Check(
        "models",
        "hash, golden vector, the fastest that is accurate enough",
        recognising.models,
        "edge models fetch",
    ),
    Check(
        "gallery",
        "who may pass, threshold and promise, look-alikes, denials",
        recognising.gallery,
        "`edge gallery versions` lists what is kept",
    ),
    Check(
        "liveness",
        "whether a picture opens the door",
        recognising.liveness,
        "edge models fetch --recommended",
    ),
    Check(
        "broker",
        "login, certificates, a message there and back, retained messages, rights, who keeps the journal",
        broker_trial.broker,
        "correct the table [mqtt] in edge.toml",
    ),
    Check("clock", "whether a time source sets it", board.clock, "timedatectl set-ntp true"),
    Check("disk", "room, mount, wear", board.disk, "see that state_dir can be read"),
    Check("temperature", "heat and throttling", board.heat, "cool it"),
    Check("memory", "what is available, what the daemon takes", board.memory, "end what else runs here"),
    Check(
        "rights",
        "who may read settings, state and keys",
        board.rights,
        "run this as the daemon's user: edge-command doctor",
    ),
    Check(
        "keys",
        "the device's key, the fleet's and the site's",
        board.credentials,
        "restore them from a backup",
    ),
    Check("sync", "age and outcome of the last synchronisation", recognising.fleet, "edge sync"),
)
"""Everything that is looked at, in this order. deploy/README.md has the same table."""


Findings = dict[str, list[Finding]]
"""What each check found, by its name, in their order."""


def look_over(
    checkup: Checkup, progress: Callable[[str, float, float], None], only: Collection[str] | None = None
) -> Findings:
    """Run every check, or those that are named; `progress` is told which one runs.

    What another check has said already to be wrong is not said again.
    """
    seen: Findings = {}
    checks = [each for each in CHECKS if only is None or each.name in only]
    for number, check in enumerate(checks):
        progress(check.name, number, len(checks))
        wrong = [each.told for each in every(seen) if each.light is Light.RED]
        seen[check.name] = [
            finding
            for finding in _looked(check, checkup)
            if finding.light is not Light.RED or not any(finding.told in each for each in wrong)
        ]
    return seen


def _looked(check: Check, checkup: Checkup) -> list[Finding]:
    """Return what a check finds; where it cannot look, why, after what it had found before."""
    found: list[Finding] = []
    try:
        for finding in check.look(checkup):
            found.append(finding)
    except EdgeError as error:
        found.append(red(check.name, str(error), check.remedy))
    except OSError as error:
        found.append(red(check.name, f"{error.filename or 'the system'}: {error.strerror}", check.remedy))
    return found


def unreadable(error: ConfigError) -> Findings:
    """Return what is to be said where not even the settings can be read."""
    return {"settings": [red("settings", problem, REFUSED) for problem in error.problems]}


def every(seen: Findings) -> Iterator[Finding]:
    """Yield all that was found, in order."""
    return chain.from_iterable(seen.values())


def worst(seen: Findings) -> Light:
    """Return how it stands with all of it."""
    return max((each.light for each in every(seen)), key=list(Light).index, default=Light.GREEN)


def document(seen: Findings, checkup: Checkup | None) -> dict[str, Any]:
    """Return the JSON document of a look over a door; None: its settings could not be read."""
    about = {}
    if checkup is not None:
        settings = checkup.settings
        about = {"site": settings.site, "device": settings.device, "running": checkup.running}
    found = [{"check": name, **asdict(each)} for name, those in seen.items() for each in those]
    return {"schema": "edge.doctor/1", **about, "light": worst(seen), "findings": found}
