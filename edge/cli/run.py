"""Commands of whoever operates a device: run, check, schema."""

import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Annotated, Literal

import typer

from edge import __version__
from edge.cli.options import ConfigOption, load_settings, settings_reader
from edge.cli.output import Listing
from edge.core.clock import SystemClock
from edge.core.errors import ConfigError
from edge.core.metrics import Metrics
from edge.core.process import return_freed_memory, set_up_logging
from edge.core.text import scrub, without_credentials
from edge.device.assembly.recognizer import build_recognizer
from edge.device.assembly.stores import gallery_store
from edge.device.daemon import Daemon
from edge.device.pushes.memory import PushMemory
from edge.device.settings import load as config
from edge.device.settings.load import Settings, cache_dir
from edge.face.liveness import Liveness
from edge.face.session import delete_telemetry
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


def check(config_file: ConfigOption = None) -> None:
    """Explain a configuration: every value in force, and what the daemon would do. Changes nothing."""
    settings = load_settings(config_file)
    columns = ("setting", "value", "meaning")
    table = Listing(*columns, copied=("setting",), title=str(config_file or "defaults"))
    for key, value, meaning in config.explain(settings):
        table.add_row(key, value, meaning)
    table.print()
    recognizer = build_recognizer(settings)
    gallery = gallery_store(settings).load(recognizer.embedder.model_id)
    admitted, comparisons = recognizer.admission.of(gallery).scope(SystemClock().now())
    threshold = recognizer.rule.threshold_for(comparisons)
    problem = int8_problem()
    search = "int8 where the gallery is large" if problem is None else f"float32, slower: {problem}"
    typer.echo(
        f"models     {recognizer.stamp.embedder} verified in {settings.models_path}\n"
        f"embedder   {recognizer.embedder.model_id}; {recognizer.embedder_choice}\n"
        f"gallery    version {gallery.version}, {gallery.size} subjects in {settings.gallery_path}\n"
        f"search     {search}\n"
        f"threshold  {threshold:.3f} for {admitted} subjects who may pass here now\n"
        f"key        {_device_key(settings)}\n"
        f"liveness   {_liveness(settings, recognizer.liveness)}\n"
        f"broker     {settings.mqtt.host}:{settings.mqtt.port}, topics below "
        f"{Topics(settings.site, settings.device).root}/"
    )
    for name, camera in settings.cameras.items():
        source = (
            without_credentials(camera.source) if camera.source else scrub(" ".join(camera.command or ()))
        )
        typer.echo(f"camera     {name}: {source}")
    if not settings.cameras:
        typer.echo("camera     none: add a table [cameras.front] with source or command")


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
        return f"{model.model_id} verified in {values.model}; a match below {values.threshold} is a spoof"
    return f"{model.model_id} verified in {values.model}; events tell its score, decisions ignore it"


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
