"""Pictures of error rates: DET for identification, ROC for verification. Needs the extra `evaluate`.

One picture of `edge evaluate oneshot`: how well each way recognises, and what one more subject costs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge.core.errors import ConfigError
from edge.lab.photos.calibration import FittedRates
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


def plot_fmr(scores: Scores, table: FittedRates, path: Path) -> None:
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


GALLERY, HEAD = "tab:blue", "tab:orange"


def plot_oneshot(report: Mapping[str, Any], path: Path) -> None:
    """Draw a report of `edge evaluate oneshot`.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    figure = new_figure((12, 8.5))
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 1))
    _recognition(figure.add_subplot(grid[0, 0]), report["variants"])
    _training(figure.add_subplot(grid[0, 1]), report["variants"])
    _growth(figure.add_subplot(grid[1, 0]), report["growth"])
    _lists(figure.add_subplot(grid[1, 1]), report["siamese"])
    figure.suptitle(
        f"{report['subjects']} subjects, {report['probes']} probes, {report['strangers']} strangers: "
        "a gallery (blue) and a trained softmax head (orange)"
    )
    save(figure, path)


def _recognition(axes: Any, variants: Mapping[str, Any]) -> None:
    names = list(variants)[::-1]
    values = [variants[name]["tpir"]["0.01"] for name in names]
    axes.barh(names, values, color=[_colour(name) for name in names])
    for place, value in enumerate(values):
        axes.text(value, place, f" {value:.3f}", va="center", fontsize=9)
    axes.set(title="Recognised while 1 % of strangers pass (TPIR)", xlim=(min(values) - 0.02, 1.005))


def _training(axes: Any, variants: Mapping[str, Any]) -> None:
    names = list(variants)[::-1]
    values = [variants[name]["train_s"] for name in names]
    axes.barh(names, values, color=[_colour(name) for name in names])
    for place, name in enumerate(names):
        each = variants[name]
        told = f" {each['rows']} rows, {each['bytes'] / 1e6:.2f} MB, {each['ms_lookup']:.3f} ms a lookup"
        axes.text(values[place], place, told, va="center", fontsize=9)
    axes.set(title="Seconds of training", xlim=(0, max(values) * 2.4 or 1))
    axes.tick_params(labelleft=False)


def _growth(axes: Any, growth: Mapping[str, Any]) -> None:
    names = list(growth)[::-1]
    own = [growth[name]["newcomer_rank1"] for name in names]
    damage = [max(0.0, -growth[name]["others_rank1_change"]) for name in names]
    places = range(len(names))
    axes.barh([p + 0.2 for p in places], own, 0.38, color="tab:green", label="newcomer recognised")
    axes.barh([p - 0.2 for p in places], damage, 0.38, color="tab:red", label="others no longer recognised")
    for place, name in zip(places, names, strict=True):
        axes.text(1.12, place, f"{growth[name]['ms']:,.1f} ms", va="center", fontsize=9)
        axes.text(own[place], place + 0.2, f" {own[place]:.2f}", va="center", fontsize=8)
        axes.text(damage[place], place - 0.2, f" {damage[place]:.3f}", va="center", fontsize=8)
    axes.set(title="One more subject, three photos", xlim=(0, 1.45), yticks=list(places), yticklabels=names)
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, -0.3), ncols=2, fontsize=8, frameon=False)


def _lists(axes: Any, siamese: Mapping[str, Any]) -> None:
    sizes = [int(size) for size in siamese]
    for name, label, colour in (
        ("one_to_one", "threshold of 1:1, whatever the list", "tab:red"),
        ("rule", "threshold that follows the list", "tab:blue"),
    ):
        axes.plot(sizes, [entry[name]["fpir"] for entry in siamese.values()], "o-", color=colour, label=label)
    axes.axhline(0.01, color="grey", linestyle=":", label="target")
    axes.set(
        title="Strangers accepted, by candidates compared",
        xlabel="candidates in scope",
        ylabel="FPIR",
        xscale="log",
        yscale="log",
    )
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=8)


def _colour(name: str) -> str:
    return HEAD if name.startswith("softmax") else GALLERY
