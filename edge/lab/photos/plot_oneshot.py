"""One picture of `edge evaluate oneshot`: how well each way recognises, and what one more subject costs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.lab.photos.plots import new_figure, save

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
