"""How studies on photos begin and end: their settings, what embeds for them, and where their figures go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.cli.options import (
    ConfigOption,
    EmbedderOption,
    JsonFileOption,
    JsonOption,
    SchedulerOption,
    load_settings,
)
from edge.cli.output import progress, tell
from edge.device.assembly.recognizer import choose_embedder
from edge.device.settings.load import Settings
from edge.lab.photos.embeddings import PhotoEmbedder
from edge.lab.photos.measure import Embeddings


@dataclass(frozen=True, slots=True)
class StudyOptions:
    """Where the settings of a study are, and where its figures go."""

    as_json: JsonOption = False
    json_file: JsonFileOption = None
    config_file: ConfigOption = None

    def settings(self) -> Settings:
        """Read the settings; see `load_settings`."""
        return load_settings(self.config_file)

    def tell(self, report: dict[str, Any], show: Callable[[], object]) -> None:
        """Tell the figures; see `output.tell`."""
        tell(report, show, as_json=self.as_json, json_file=self.json_file)


@dataclass(frozen=True, slots=True)
class SpreadStudyOptions(StudyOptions):
    """A study whose photos may be embedded on other machines."""

    scheduler: SchedulerOption = None

    def embedder(self, settings: Settings, name: str | None) -> PhotoEmbedder:
        """Return what embeds photos: with the embedder named, or the one that the settings mean."""
        return PhotoEmbedder(name or choose_embedder(settings).name, settings, self.scheduler)


@dataclass(frozen=True, slots=True)
class EmbedderStudyOptions(SpreadStudyOptions):
    """A study of one embedder."""

    model: EmbedderOption = None

    def begin(self) -> PhotoEmbedder:
        """Read the settings, and return what embeds photos as they say."""
        return self.embedder(self.settings(), self.model)


def embedded(embedder: PhotoEmbedder, photos: Sequence[Path]) -> Embeddings:
    """Return what `PhotoEmbedder.embed` does, and show progress."""
    with progress(embedder.name) as step:
        return embedder.embed(photos, step)
