"""Commands of whoever operates a device: run, check, schema."""

import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from edge import __version__
from edge.cli.options import ConfigOption, config_path, load_settings, settings_reader
from edge.cli.output import Listing, descriptions, facts, shift_told, warning
from edge.core.clock import SystemClock
from edge.core.errors import EX_CONFIG, ConfigError, EdgeError, GalleryError, ModelError
from edge.core.metrics import Metrics
from edge.core.process import return_freed_memory, set_up_logging
from edge.core.text import printable, scrub, without_credentials
from edge.device.assembly.inspection import inspect
from edge.device.assembly.mounting_look import look_at
from edge.device.assembly.recognizer import PHOTO_SIDE_PX, build_recognizer
from edge.device.assembly.stores import gallery_store
from edge.device.daemon import Daemon
from edge.device.pushes.memory import PushMemory, with_pushes
from edge.device.settings import load as config
from edge.device.settings.load import Settings, cache_dir
from edge.device.settings.tables import RECOMMENDED_LIVENESS
from edge.face.liveness import Liveness
from edge.face.manifest import installed_path, load_manifest
from edge.face.session import delete_telemetry
from edge.gallery.alike.strangers import FOR_ADULTS
from edge.gallery.matcher import int8_problem
from edge.mqtt.contract import asyncapi, reference
from edge.mqtt.contract.topics import Topics

log = logging.getLogger(__name__)


def run(config_file: ConfigOption = None) -> None:
    """Run the daemon until SIGTERM or SIGINT."""
    return_freed_memory()
    settings = load_settings(config_file)
    set_up_logging(settings.log.format, settings.log.level)
    if delete_telemetry(cache_dir()):
        log.warning("what onnxruntime kept to send to its maker was deleted; nothing more is kept or sent")
    same = ("--config", str(config_file)) if config_file else ()
    memory = PushMemory(settings_reader(config_file))
    Daemon(settings, memory, metrics=Metrics(), config_arguments=same).run()
    if threading.active_count() > 1:
        # A reader that hangs in native code is left behind; the end of the interpreter would abort it.
        logging.shutdown()
        sys.stderr.flush()
        os._exit(0)


def check(
    config_file: ConfigOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every setting with its meaning, not only what differs.")
    ] = False,
    look: Annotated[
        bool, typer.Option("--look", help="Open the cameras too, and say which way up each shows a face.")
    ] = False,
) -> None:
    """Say what this device would do, and what keeps it from that. Connects to nothing, changes nothing.

    Only --look opens cameras: somebody has to stand before each. It compares the four ways to turn what the
    camera shows, and says which setting of `rotate` is right. Shows the settings that differ from their
    defaults and where each comes from. Exits 78 if something is wrong, with a line for each thing.
    """
    path, read = config_path(config_file), settings_reader(config_file)
    try:
        settings, pushed = with_pushes(read({}), read)
        _settings(settings, config.origin(path, pushed), str(path or "defaults"), everything)
    except ConfigError as error:
        problems = list(error.problems)
    else:
        problems = inspect(settings)
        try:
            _facts(settings)
            _warn_of_pictures(settings)
        except (ModelError, GalleryError, ConfigError) as error:
            known = any(str(error) in each for each in problems)
            of_state_dir = isinstance(error, GalleryError) and any(
                each.startswith("state_dir:") for each in problems
            )
            problems += [] if known or of_state_dir else [str(error)]
        if look and not problems:
            problems += _look(settings)
    for problem in problems:
        typer.echo(f"edge: {printable(problem)}", err=True)
    if problems:
        raise typer.Exit(EX_CONFIG)


def _look(settings: Settings) -> list[str]:
    """Look at a face before each camera, and print what was seen; returns what is wrong."""
    recognizer, problems = build_recognizer(settings, side_px=PHOTO_SIDE_PX), []
    for name in settings.cameras:
        typer.echo(f"stand before camera {name!r} and look at it ...", err=True)
        try:
            seen = look_at(name, settings, recognizer)
        except EdgeError as error:
            problems.append(f"cameras.{name}: {error}")
            continue
        if seen.problem is not None:
            problems.append(seen.problem)
        facts([("camera", f"{name}: {seen}")])
    return problems


def _settings(settings: Settings, origin: Callable[[str], str], title: str, everything: bool) -> None:
    shown = [each for each in config.explain(settings) if everything or not each.is_default]
    if not shown:
        typer.echo(f"{title}: every setting has its default; `edge check --all` shows them")
        return
    if everything and sys.stdout.isatty():
        descriptions((f"{each.key} = {each.value} ({origin(each.key)})", each.meaning) for each in shown)
        return
    meaning = ("meaning",) if everything else ()
    table = Listing("setting", "value", "from", *meaning, copied=("setting", "from"), title=title)
    for each in shown:
        table.add_row(each.key, each.value, origin(each.key), *(each.meaning for _ in meaning))
    table.print()


def _facts(settings: Settings) -> None:
    """Print what the daemon would run with.

    Raises:
        ConfigError, ModelError, GalleryError: Models or gallery cannot be used.
    """
    told = [
        ("broker", f"{settings.mqtt.host}:{settings.mqtt.port}, topics below {_topics(settings)}/"),
        ("key", _device_key(settings)),
    ]
    for name, camera in settings.cameras.items():
        command = scrub(" ".join(camera.command or ()))
        source = without_credentials(camera.source) if camera.source else command
        told.append(("camera", f"{name}: {source}"))
    try:
        told = [*_of_models(settings), *told]
    finally:
        facts(told)


def _of_models(settings: Settings) -> list[tuple[str, str]]:
    recognizer = build_recognizer(settings)
    gallery = gallery_store(settings).load(recognizer.embedder.model_id)
    admitted, comparisons = recognizer.admission.of(gallery).scope(SystemClock().now())
    threshold = recognizer.rule.threshold_for(comparisons)
    problem = int8_problem()
    search = "int8 where the gallery is large" if problem is None else f"float32, slower: {problem}"
    return [
        ("models", f"{recognizer.stamp.embedder} verified in {settings.models_path}"),
        ("embedder", f"{recognizer.embedder.model_id}; {recognizer.embedder_choice}"),
        ("gallery", f"version {gallery.version}, {gallery.size} subjects in {settings.gallery_path}"),
        ("search", search),
        ("threshold", f"{threshold:.3f} for {admitted} subjects who may pass here now"),
        ("shift", shift_told(recognizer.rule.shift_for(comparisons))),
        ("promise", FOR_ADULTS),
        ("liveness", _liveness(settings, recognizer.liveness)),
    ]


def _topics(settings: Settings) -> str:
    return Topics(settings.site, settings.device).root


def _device_key(settings: Settings) -> str:
    """Say whom the encryption of what lies on the disk protects from."""
    path, configured = settings.device_key_path, settings.gallery.device_key
    if configured is not None and len(configured.parts) == 1:
        without = ", which this command was started without; start it with systemd/edge-command"
        return f"{configured}, a credential of systemd{without if path == configured else ''}"
    return (
        f"{path}, a plain file: whoever copies the whole disk has key and gallery; set gallery.device_key to "
        "a credential of systemd"
    )


def _liveness(settings: Settings, model: Liveness | None) -> str:
    """Say what a printed photo of a subject would come to."""
    values = settings.liveness
    if model is None:
        return "off: a printed photo of a subject can be recognised, and every event says so"
    if values.policy == "require":
        least = f"; a face below {model.min_face_px:.0f} px has to come closer" if model.min_face_px else ""
        return f"{model.model_id} verified; a match below {values.threshold} is a spoof{least}"
    return f"{model.model_id} verified; events tell its score, decisions ignore it"


def _warn_of_pictures(settings: Settings) -> None:
    """Say plainly what a door without `require` can be opened by."""
    if settings.liveness.policy == "require":
        return
    manifests = map(load_manifest, RECOMMENDED_LIVENESS)
    own = settings.liveness.models != RECOMMENDED_LIVENESS
    here = own or all(installed_path(each, settings.models_path).is_file() for each in manifests)
    first = "" if here else "run `edge models fetch --recommended`, then "
    warning(
        f"A printed photo or a screen that shows a subject opens this door: {first}"
        'set liveness.policy = "require"'
    )


def schema(
    form: Annotated[
        Literal["json", "asyncapi", "guide"],
        typer.Argument(help="JSON Schemas, one AsyncAPI document, or the reference part of a guide."),
    ] = "json",
    out: Annotated[
        Path | None,
        typer.Option(help="Write one file per message into this directory; the reference, into this guide."),
    ] = None,
) -> None:
    """Print what every topic and MQTT message looks like, or write it."""
    if form == "guide":
        _guide(out)
        return
    schemas = asyncapi.json_schemas() if form == "json" else {"asyncapi": asyncapi.document(__version__)}
    if out is None:
        typer.echo(json.dumps(schemas if form == "json" else schemas["asyncapi"], indent=2))
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, each in schemas.items():
            suffix = ".schema.json" if form == "json" else ".json"
            (out / f"{name}{suffix}").write_text(json.dumps(each, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"{error.filename or out}: cannot be written: {error.strerror}") from None
    typer.echo(f"{len(schemas)} schemas written to {out}")


def _guide(out: Path | None) -> None:
    """Print the reference part of deploy/MQTT.md, or write it anew in the guide `out`."""
    if out is None:
        typer.echo(reference.reference())
        return
    try:
        out.write_text(reference.replaced(out.read_text()))
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from None
    typer.echo(f"reference written to {out}")
