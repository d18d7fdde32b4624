"""Pictures of error rates: DET for identification, ROC for verification. Needs the extra `evaluate`."""

from collections.abc import Mapping
from pathlib import Path

from edge.errors import ConfigError
from edge.evaluate.rates import Scores

Curve = tuple[Scores, Scores]


def plot_det(curves: Mapping[str, Curve], path: Path) -> None:
    """Draw (FPIR, FNIR) of each model on logarithmic axes.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    _draw(curves, path, "Open-set identification", "FPIR: strangers accepted", "FNIR: subjects missed", "log")


def plot_roc(curves: Mapping[str, Curve], path: Path) -> None:
    """Draw (FAR, TAR) of each model, FAR on a logarithmic axis.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    _draw(curves, path, "Verification", "FAR: different pairs accepted", "TAR: same pairs accepted", "linear")


def _draw(
    curves: Mapping[str, Curve], path: Path, title: str, x_label: str, y_label: str, y_scale: str
) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("--plots needs matplotlib; install edge-recognizer[evaluate]") from None
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name, (x, y) in curves.items():
        shown = x > 0
        axes.plot(x[shown], y[shown], label=name, drawstyle="steps-post")
    if not any((y > 0).any() for _, y in curves.values()):
        y_scale = "linear"  # nothing was missed: a logarithm has nowhere to put that
    axes.set(title=title, xlabel=x_label, ylabel=y_label, xscale="log", yscale=y_scale)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
