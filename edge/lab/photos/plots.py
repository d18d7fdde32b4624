"""Pictures of error rates: DET for identification, ROC for verification. Needs the extra `evaluate`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge.core.errors import ConfigError
from edge.lab.photos.calibration import Table
from edge.lab.photos.rates import Scores

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
    figure = new_figure()
    axes = figure.subplots()
    for name, (x, y) in curves.items():
        shown = x > 0
        axes.plot(x[shown], y[shown], label=name, drawstyle="steps-post")
    if not any((y > 0).any() for _, y in curves.values()):
        y_scale = "linear"  # nothing was missed: a logarithm has nowhere to put that
    axes.set(title=title, xlabel=x_label, ylabel=y_label, xscale="log", yscale=y_scale)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    save(figure, path)


def plot_fmr(scores: Scores, table: Table, path: Path) -> None:
    """Draw the false match rate over threshold: of impostor scores (n,), falling, and of the table.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    figure = new_figure()
    axes = figure.subplots()
    ranks = np.unique(np.geomspace(1, len(scores), 2000).astype(np.intp))
    axes.plot(scores[ranks - 1], ranks / len(scores), label=f"measured, {table.pairs:,} impostor pairs")
    axes.fill_betweenx(table.fmr, table.low, table.high, alpha=0.3, color="C1", label="95 % interval")
    fitted = [rate < table.fitted_below for rate in table.fmr]
    for shown, style, label in ((False, "o", "table: measured"), (True, "^", "table: fitted tail")):
        points = [(t, r) for t, r, f in zip(table.thresholds, table.fmr, fitted, strict=True) if f == shown]
        axes.plot(*zip(*points, strict=True), style, color="C1", label=label)
    axes.set(title="False match rate", xlabel="threshold (cosine)", ylabel="FMR", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    save(figure, path)


def plot_gate(conditions: Mapping[str, Any], path: Path) -> None:
    """Draw TPIR, and failures to acquire, of each condition of `edge.evaluate.gate/1`, gated and ungated.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    figure = new_figure()
    figure.set_size_inches(10, 6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    places = np.arange(len(conditions))
    kinds = {
        "ungated": ("without gate", "o"),
        "gated": ("with gate", "s"),
        "accepted": ("of those passed", "x"),
    }
    for axes, key, shown in ((upper, "tpir", tuple(kinds)), (lower, "fta", ("ungated", "gated"))):
        for kind in shown:
            values = [np.nan if (rate := c[kind][key]) is None else rate for c in conditions.values()]
            label, marker = kinds[kind]
            axes.plot(places, values, marker=marker, label=label)
        axes.grid(visible=True, alpha=0.3)
        axes.set(ylabel=key.upper(), ylim=(-0.03, 1.03))
        axes.legend()
    upper.set_title("Probes spoiled, at the product's threshold")
    lower.set_xticks(places, list(conditions), rotation=60, ha="right")
    save(figure, path)


def new_figure(size: tuple[float, float] = (7, 5)) -> Any:
    """Return an empty figure of that size in inches.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("--plots needs matplotlib; install edge-recognizer[evaluate]") from None
    return Figure(figsize=size, layout="constrained")


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG; makes the directory.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise ConfigError(f"--plots: {path} cannot be written: {error.strerror}") from None
