"""Pictures of error rates: DET for identification, ROC for verification, and one for `edge evaluate oneshot`.

Every picture says how many faces it counts and how sure it is (95 % intervals). Needs the extra `evaluate`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.core.errors import ConfigError
from edge.lab.photos.calibration import LEAST_MEASURED, FittedRates
from edge.lab.photos.degrade import REFERENCE_FACE_PX
from edge.lab.photos.rates import Scores

Curve = tuple[Scores, Scores]

NORMAL_QUANTILE = 1.96
"""Standard deviations to either side that hold 95 % of a normal distribution."""

STYLES = ("-", "--", ":", "-.")
"""Lines of several models one after the other, so that equal curves show both."""


def share_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share that was counted over `count` cases, within 0 and 1.

    Source: E. B. Wilson, 1927, Probable inference, the law of succession, and statistical inference.
    """
    z2 = NORMAL_QUANTILE**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = NORMAL_QUANTILE / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def resolved(rates: Mapping[str, float], count: int) -> dict[str, float]:
    """Return what was measured at the error rates, by their text, of which `count` cases hold one at least.

    At a rate below one case nobody may pass at all: what is measured there belongs to the rate zero.
    """
    return {rate: value for rate, value in rates.items() if float(rate) * count >= 1}


def drawable(x: Scores, y: Scores, *, log_y: bool) -> Curve:
    """Return the points of a curve that its axes can show: x is logarithmic, zero has no place there."""
    shown = (x > 0) & ((y > 0) | (not log_y))
    return x[shown], y[shown]


def plot_det(models: Mapping[str, Any], curves: Mapping[str, Curve], path: Path) -> None:
    """Draw (FPIR, FNIR) of each model on logarithmic axes.

    Args:
        models: What `edge.evaluate.identify/1` says of each model: counts, TPIR and its intervals.
        curves: (FPIR, FNIR) of each of these models.
        path: The PNG file.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    first = next(iter(models.values()))
    counts = (
        f"{first['n_subjects']:,} subjects enrolled, {first['n_genuine']:,} probes of them, "
        f"{first['n_unknown']:,} strangers"
    )
    log_y = any((misses > 0).any() for _, misses in curves.values())
    bars = {
        name: [
            (float(fpir), 1 - rate, *(1 - bound for bound in reversed(figures["tpir_interval"][fpir])))
            for fpir, rate in resolved(figures["tpir"], figures["n_unknown"]).items()
        ]
        for name, figures in models.items()
    }
    axes_of = ("FPIR: share of strangers accepted", "FNIR: share of subjects missed")
    _curves(curves, bars, path, f"Open-set identification\n{counts}", axes_of, log_y=log_y)


def plot_roc(models: Mapping[str, Any], curves: Mapping[str, Curve], path: Path) -> None:
    """Draw (FAR, TAR) of each model, FAR on a logarithmic axis.

    Args:
        models: What `edge.evaluate.verify/1` says of each model: counts and TAR.
        curves: (FAR, TAR) of each of these models.
        path: The PNG file.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    first = next(iter(models.values()))
    same = first["n_genuine"]
    bars = {
        name: [
            (float(far), tar, *share_interval(tar, same))
            for far, tar in resolved(figures["tar"], figures["n_pairs"] - same).items()
        ]
        for name, figures in models.items()
    }
    counts = f"{same:,} pairs of one subject, {first['n_pairs'] - same:,} pairs of two"
    axes_of = ("FAR: share of different pairs accepted", "TAR: share of same pairs accepted")
    _curves(curves, bars, path, f"Verification\n{counts}", axes_of, log_y=False)


Bar = tuple[float, float, float, float]
"""x, y, and the bounds of y's interval."""


def _curves(
    curves: Mapping[str, Curve],
    bars: Mapping[str, Sequence[Bar]],
    path: Path,
    title: str,
    labels: tuple[str, str],
    *,
    log_y: bool,
) -> None:
    figure = new_figure()
    axes = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        style, colour = STYLES[number % len(STYLES)], f"C{number % 10}"
        x, y = drawable(*curve, log_y=log_y)
        label = name if len(x) else f"{name}: no error to draw"
        axes.plot(x, y, label=label, drawstyle="steps-post", linestyle=style, color=colour, linewidth=1.8)
        # Beside each other, not one bar behind the next.
        aside = 1.06 ** (number - (len(curves) - 1) / 2)
        for at, value, low, high in bars[name]:
            if not log_y or low > 0:
                far = [[value - low], [high - value]]
                axes.errorbar([at * aside], [value], far, color=colour, capsize=3, fmt="o", markersize=4)
    if any(bars.values()):
        axes.errorbar([], [], [], color="grey", capsize=3, fmt="o", markersize=4, label="95 % interval")
    axes.set(title=title, xlabel=labels[0], ylabel=labels[1], xscale="log")
    axes.set(yscale="log" if log_y else "linear")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    save(figure, path)


def plot_fmr(scores: Scores, table: FittedRates, path: Path) -> None:
    """Draw the false match rate over threshold: of impostor scores (n,), falling, and of the table.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    figure = new_figure()
    axes = figure.subplots()
    ranks = np.unique(np.geomspace(1, len(scores), 2000).astype(np.intp))
    for measured, fitted_part, marker in (
        ("in the table, measured", False, "o"),
        ("in the table, from the fitted tail", True, "^"),
    ):
        rows = [
            (threshold, rate, threshold - low, high - threshold)
            for threshold, rate, low, high in zip(
                table.thresholds, table.fmr, table.low, table.high, strict=True
            )
            if (rate < table.fitted_below) == fitted_part
        ]
        if rows:
            at, rate, below, above = zip(*rows, strict=True)
            axes.errorbar(
                at,
                rate,
                xerr=[np.maximum(below, 0), np.maximum(above, 0)],
                fmt=marker,
                color="C1",
                markerfacecolor="white",
                markersize=5,
                capsize=5,
                label=f"{measured}, 95 % interval",
            )
    told = f"measured over {len(scores):,} pairs"
    axes.plot(scores[ranks - 1], ranks / len(scores), color="C0", label=told, zorder=3)
    few = LEAST_MEASURED / len(scores)
    axes.axhline(few, color="grey", linestyle=":", label=f"below: fewer than {LEAST_MEASURED} pairs")
    axes.set(
        title=f"How often two different people look alike\n{table.subjects:,} subjects, one photo each",
        xlabel="threshold: cosine of the two faces",
        ylabel="false match rate: share of the pairs at or above it",
        yscale="log",
        xlim=(max(-0.1, float(scores[-1])), float(scores[0]) + 0.02),
    )
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    save(figure, path)


def plot_gate(report: Mapping[str, Any], path: Path) -> None:
    """Draw TPIR, and failures to acquire, of each condition of `edge.evaluate.gate/1`, gated and ungated.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    conditions: Mapping[str, Any] = report["conditions"]
    figure = new_figure((13, 7))
    upper, lower = figure.subplots(2, 1, sharex=True)
    places = np.arange(len(conditions))
    kinds = {
        "ungated": ("every shot is used", "o", -0.22),
        "gated": ("the gate refuses bad shots", "s", 0.0),
        "accepted": ("of the shots that the gate passed", "x", 0.22),
    }
    for axes, key, shown in ((upper, "tpir", tuple(kinds)), (lower, "fta", ("ungated", "gated"))):
        for kind in shown:
            label, marker, aside = kinds[kind]
            at, values, counts = [], [], []
            for place, condition in zip(places, conditions.values(), strict=True):
                if (rate := condition[kind][key]) is not None:
                    lost = condition["gated"]["fta"] if kind == "accepted" else 0.0
                    at.append(place + aside)
                    values.append(rate)
                    counts.append(max(1, round(report["n_genuine"] * (1 - lost))))
            axes.errorbar(at, values, _far(values, counts), fmt=marker, capsize=2, label=label, markersize=5)
        axes.grid(visible=True, alpha=0.3)
        axes.set(ylim=(-0.03, 1.03))
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    upper.set(
        ylabel="TPIR: subjects recognised",
        title="Probes made worse, at the product's threshold\n"
        f"{report['n_subjects']:,} subjects enrolled, {report['n_genuine']:,} probes of them; "
        "bars: 95 % intervals",
    )
    lower.set(
        ylabel="share of probes without a usable shot",
        xlabel=f"blur, motion: pixels at a face of {REFERENCE_FACE_PX:.0f} px; small: width of the face in "
        "pixels; dark, bright: times the light; jpeg: quality",
    )
    lower.set_xticks(places, list(conditions), rotation=60, ha="right")
    save(figure, path)


def plot_reject(report: Mapping[str, Any], shares: Sequence[float], path: Path) -> None:
    """Draw the share of useless shots over the `shares` refused, of `edge.evaluate.gate/1`.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    figure = new_figure((8, 5))
    axes = figure.subplots()
    for (name, wrong), style in zip(report["reject"].items(), STYLES, strict=False):
        axes.plot(shares, wrong, style, label=name)
    axes.set(
        xlabel="share of shots refused, the worst first",
        ylabel="share of the others not named rightly",
        ylim=(0, None),
        title=f"Spoiled probes that pass the gate; {report['n_genuine']:,} probes in each condition",
    )
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    save(figure, path)


def plot_damages(report: Mapping[str, Any], path: Path) -> None:
    """Draw the share of strangers let in under a shared damage, and who can be enrolled.

    Takes `edge.evaluate.damages/1`.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    figure = new_figure((12, 8))
    upper, lower = figure.subplots(2, 1, sharex=True)
    names = list(report["conditions"])
    for target, marker, colour, aside in (
        ("0.01", "o", "tab:blue", -0.12),
        ("0.001", "s", "tab:orange", 0.12),
    ):
        told = [report["conditions"][name]["let_in"][target] for name in names]
        shares = [each["share"] for each in told]
        far = [
            [each["share"] - each["low"] for each in told],
            [each["high"] - each["share"] for each in told],
        ]
        places = [at + aside for at in range(len(names))]
        label = f"target {target}"
        upper.errorbar(places, shares, far, fmt=marker, color=colour, capsize=2, label=label, markersize=6)
        upper.axhline(2 * float(target), color=colour, linestyle="--", label=f"twice {target}")
    upper.set(
        ylabel="share of strangers let in",
        title=f"{report['subjects']:,} subjects, one photo each; gallery and strangers share the damage; "
        "bars: 95 % intervals",
    )
    upper.set_yscale("symlog", linthresh=1e-3)
    upper.set_ylim(bottom=-1e-4)
    for key, marker, label in (
        ("found", "^", "a face is found"),
        ("shots", "o", "taken at the door"),
        ("enrolled", "s", "enrolled"),
    ):
        shares = [report["conditions"][name][key] / report["subjects"] for name in names]
        lower.plot(range(len(names)), shares, marker, label=label)
    lower.set(ylabel="share of photos", ylim=(-0.03, 1.03))
    for axes in (upper, lower):
        axes.grid(visible=True, alpha=0.3)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    lower.set_xticks(range(len(names)), names, rotation=30, ha="right")
    save(figure, path)


def plot_conditions(report: Mapping[str, Any], path: Path) -> None:
    """Draw TPIR, and the false match rate over the promise, of `edge.evaluate.conditions/1`.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    figure = new_figure((12, 8))
    upper, lower = figure.subplots(2, 1, sharex=True)
    names = list(report["probes"])
    sides = (
        ("probes", "clean gallery, worse probes", "o", "tab:blue", -0.12),
        ("both", "both worse", "s", "tab:orange", 0.12),
    )
    for side, label, marker, colour, aside in sides:
        shown = [(at, report[side][name]) for at, name in enumerate(names) if report[side][name]["enrolled"]]
        shares = [figures["tpir"]["0.01"] for _, figures in shown]
        far = _far(shares, [report["n_genuine"]] * len(shown))
        places = [at + aside for at, _ in shown]
        upper.errorbar(places, shares, far, fmt=marker, color=colour, capsize=2, label=label, markersize=6)
        for rate, filled in (("0.01", "full"), ("0.001", "none")):
            beside = aside + (0.03 if filled == "none" else -0.03)
            times = [(at + beside, f["fmr"][rate]) for at, f in shown if f["fmr"]]
            seen = [(x, f["times_promised"], f["interval"]) for x, f in times if f["times_promised"] > 0]
            told = f"{label}, promised {rate}"
            bars = [[max(0.0, y - low) for _, y, (low, _) in seen], [high - y for _, y, (_, high) in seen]]
            lower.errorbar(
                [x for x, _, _ in seen],
                [y for _, y, _ in seen],
                bars,
                fmt=marker,
                capsize=2,
                color=colour,
                fillstyle=filled,
                label=told,
                markersize=6,
            )
    upper.set(
        ylabel="TPIR at FPIR .01",
        ylim=(-0.03, 1.03),
        title=f"{report['n_subjects']:,} subjects with one photo, {report['n_genuine']:,} probes of them, "
        f"{report['n_unknown']:,} strangers; bars: 95 % intervals\n"
        "What the gate refuses is missed; no square: enrolment refuses every such photo",
    )
    lower.axhline(1, color="grey", linestyle=":")
    lower.axhline(2, color="tab:red", linestyle="--", label="twice the promise")
    lower.set(ylabel="false match rate obtained / promised", yscale="log", ylim=(0.2, 12))
    lower.set_yticks([0.25, 0.5, 1, 2, 4, 8], ["1/4", "1/2", "1", "2", "4", "8"])
    lower.minorticks_off()
    for axes in (upper, lower):
        axes.grid(visible=True, alpha=0.3)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    lower.set_xticks(np.arange(len(names)), names, rotation=45, ha="right")
    save(figure, path)


def plot_groups(report: Mapping[str, Any], path: Path) -> None:
    """Draw the share of strangers let in over the promise, of each group of `edge.evaluate.groups/1`.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    groups: Mapping[str, Any] = report["groups"]
    figure = new_figure((5 + 4.5 * len(report["targets"]), 1.8 + 0.42 * len(groups)))
    panels = np.atleast_1d(figure.subplots(1, len(report["targets"]), sharey=True))
    kinds = (
        ("without_shift", "without the gallery's shift", "o", "tab:blue", -0.14),
        ("with_shift", "with it", "s", "tab:orange", 0.14),
    )
    for axes, target in zip(panels, report["targets"], strict=True):
        shown = [figures[f"{target:g}"] for figures in groups.values()]
        times = [each[kind]["times_promised"] for each in shown for kind, *_ in kinds]
        floor = min((value for value in times if value > 0), default=0.2) / 2
        for kind, label, marker, colour, aside in kinds:
            for at, figures in enumerate(shown):
                value = max(figures[kind]["times_promised"], floor)
                low, high = (max(bound, floor) for bound in figures[kind]["times_interval"])
                far = [[max(0.0, value - low)], [max(0.0, high - value)]]
                told = label if at == 0 else None
                axes.errorbar(
                    [value], [at + aside], xerr=far, fmt=marker, color=colour, capsize=3, label=told
                )
        axes.axvline(1, color="grey", linestyle=":")
        axes.axvline(2, color="tab:red", linestyle="--", label="twice the promise")
        axes.set(
            title=f"promised: {target * 1000:g} of 1,000 strangers",
            xlabel=f"let in / promised (nobody: at {floor:.2g})",
            xscale="log",
        )
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(visible=True, axis="x", which="both", alpha=0.3)
    names = [f"{name}\n{figures['subjects']:,} people" for name, figures in groups.items()]
    panels[0].set_yticks(range(len(names)), names, fontsize=8)
    panels[0].invert_yaxis()
    panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    figure.suptitle(
        f"{report['enrolled']} people of a group enrolled, the others of it strangers; bars: 95 % intervals",
        fontsize=11,
    )
    save(figure, path)


def plot_liveness(report: Mapping[str, Any], path: Path) -> None:
    """Draw who is taken for what: rates by kind, light and size with intervals, and one against the other.

    Raises:
        ConfigError: matplotlib is not installed, or `path` cannot be written.
    """
    figure = new_figure((12, 5))
    rates, curve = figure.subplots(1, 2, width_ratios=(3, 2))
    rows = {"all": report["all"]} | {kind: {"apcer": each} for kind, each in report["kinds"].items()}
    for values in report["groups"].values():
        rows |= values
    rows |= {f"face {px} px": each for px, each in report["face_px"].items()}
    for key, colour, aside, label in (
        ("apcer", "tab:red", 0.15, "attacks that pass (APCER)"),
        ("bpcer", "tab:blue", -0.15, "live faces refused (BPCER)"),
    ):
        told = [
            (place + aside, each[key]) for place, _, each in _rows(rows) if each.get(key, {}).get("total")
        ]
        places, shares = [place for place, _ in told], [each["share"] for _, each in told]
        far = [
            [each["share"] - each["low"] for _, each in told],
            [each["high"] - each["share"] for _, each in told],
        ]
        rates.errorbar(shares, places, xerr=far, fmt="o", color=colour, capsize=3, label=label)
    rates.set_yticks(range(len(rows)), list(rows)[::-1])
    rates.set(title="At the threshold in force, 95 % intervals", xlabel="share of visits", xlim=(0, None))
    rates.grid(visible=True, axis="x", alpha=0.3)
    rates.legend(fontsize=9)
    curve.step(report["curve"]["apcer"], report["curve"]["bpcer"], where="post", color="tab:blue")
    now = report["all"]
    curve.plot(
        [now["apcer"]["share"]], [now["bpcer"]["share"]], "o", color="tab:red", label="threshold in force"
    )
    curve.plot([0, 1], [0, 1], ":", color="grey", label="equal error rate")
    curve.set(title="At every threshold", xlabel="APCER", ylabel="BPCER", xlim=(0, 0.3), ylim=(0, 0.3))
    curve.grid(visible=True, alpha=0.3)
    curve.legend(fontsize=9)
    save(figure, path)


def _far(shares: Sequence[float], counts: Sequence[int]) -> list[list[float]]:
    """Return how far the intervals of some shares reach below and above them, as error bars take it."""
    bounds = [share_interval(share, count) for share, count in zip(shares, counts, strict=True)]
    below = [share - low for share, (low, _) in zip(shares, bounds, strict=True)]
    return [below, [high - share for share, (_, high) in zip(shares, bounds, strict=True)]]


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

TARGET = 0.01
"""FPIR that `edge evaluate oneshot` aims at."""

WORDS = {
    "1 template": "gallery: one photo",
    "mean of 3": "gallery: mean of 3 photos",
    "mean of 5": "gallery: mean of 5 photos",
    "mean of 10": "gallery: mean of 10 photos",
    "1-3 prototypes": "gallery: 1-3 prototypes\n(the product)",
    "all photos as rows": "gallery: every photo",
    "softmax, 1 photo": "trained head: one photo",
    "softmax, 3 photos": "trained head: 3 photos",
    "softmax, all photos": "trained head: every photo",
    "enrol": "gallery: enrol\n(the product)",
    "mean into a spare logit": "trained head: write the\nmean into a spare output",
    "fine-tune on the newcomer": "trained head: train on\nthe newcomer alone",
    "fine-tune on everybody": "trained head: train on\neverybody",
    "retrain from nothing": "trained head: train anew",
}
"""What the rows of the report are called in the picture."""


def plot_oneshot(report: Mapping[str, Any], path: Path) -> None:
    """Draw a report of `edge evaluate oneshot`.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    figure = new_figure((13, 10))
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 1))
    _recognition(figure.add_subplot(grid[0, 0]), report["variants"], report["probes"])
    _training(figure.add_subplot(grid[0, 1]), report["variants"])
    _growth(figure.add_subplot(grid[1, 0]), report["growth"])
    _lists(figure.add_subplot(grid[1, 1]), report["siamese"], report["strangers"])
    figure.suptitle(
        "A gallery (blue) and a trained softmax head (orange): "
        f"{report['subjects']:,} subjects, {report['probes']:,} probes of them, "
        f"{report['strangers']:,} strangers"
    )
    save(figure, path)


def plot_growth(report: Mapping[str, Any], path: Path) -> None:
    """Draw a report of `edge evaluate growth`.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    figure = new_figure((13, 6))
    known, cost = figure.subplots(1, 2)
    whole = max(report["sizes"], key=int)
    for dim, sizes in report["sizes"].items():
        rates = [each["tpir"] for each in sizes.values()]
        far = [
            [each["value"] - each["low"] for each in rates],
            [each["high"] - each["value"] for each in rates],
        ]
        label = f"{dim} values"
        places = [int(size) for size in sizes]
        known.errorbar(places, [each["value"] for each in rates], far, fmt="o-", capsize=3, label=label)
    places = [int(size) for size in report["farther"]]
    rates = [each["tpir"] for each in report["farther"].values()]
    low, value, high = ([each[name] for each in rates] for name in ("low", "value", "high"))
    known.plot(places, value, ":", marker="x", color="grey", label=f"{whole} values, the tail continued")
    known.fill_between(places, low, high, alpha=0.2, color="grey")
    known.set(xscale="log", xlabel="enrolled", ylabel="TPIR", ylim=(0, 1.02))
    known.set_title(f"Recognised from one photo while {TARGET:.0%} of the strangers pass")
    known.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncol=3)
    places = [int(size) for size in report["lookup_ms"]]
    cost.plot(places, list(report["lookup_ms"].values()), "o-", label="milliseconds a lookup, one core")
    cost.plot(places, [size * int(whole) * 5 / 1e6 for size in places], "s--", label="MB of the gallery")
    cost.set(xscale="log", yscale="log", xlabel="enrolled", title=f"What it costs, {whole} values a row")
    cost.legend()
    for axes in (known, cost):
        axes.grid(visible=True, alpha=0.3)
    save(figure, path)


def _recognition(axes: Any, variants: Mapping[str, Any], probes: int) -> None:
    for place, name, each in _rows(variants):
        value, colour = each["tpir"][str(TARGET)], HEAD if name.startswith("softmax") else GALLERY
        far = _far([value], [probes])
        axes.errorbar([value], [place], xerr=far, fmt="o", color=colour, capsize=4, markersize=7)
        axes.annotate(f"{value:.3f}", (value, place), (0, 7), textcoords="offset points", ha="center")
    axes.set(
        title=f"Recognised while {TARGET:.0%} of the strangers pass\n(TPIR, 95 % interval of the probes)",
        ylim=(-0.6, len(variants) - 0.3),
    )
    axes.set_yticks(range(len(variants)), [WORDS.get(name, name) for name in list(variants)[::-1]])
    axes.grid(visible=True, axis="x", alpha=0.3)


def _training(axes: Any, variants: Mapping[str, Any]) -> None:
    longest_s = max(each["train_s"] for each in variants.values())
    for place, name, each in _rows(variants):
        trained = name.startswith("softmax")
        axes.barh([place], [each["train_s"]], color=HEAD if trained else GALLERY)
        took = f"{each['train_s']:.1f} s; " if trained else "no training; "
        size = f"{each['rows']:,} rows, {each['bytes'] / 1e6:.2f} MB, {each['ms_lookup']:.3f} ms a lookup"
        axes.text(each["train_s"], place, f" {took}{size}", va="center", fontsize=9)
    axes.set(title="Training, and what is kept", xlabel="seconds", xlim=(0, longest_s * 2.8 or 1))
    axes.set_ylim(-0.6, len(variants) - 0.3)
    axes.tick_params(labelleft=False)


def _growth(axes: Any, growth: Mapping[str, Any]) -> None:
    for place, _, each in _rows(growth):
        own, damage = each["newcomer_rank1"], max(0.0, -each["others_rank1_change"])
        axes.barh([place + 0.2], [own], 0.38, color="tab:green")
        axes.barh([place - 0.2], [damage], 0.38, color="tab:red")
        axes.text(own, place + 0.2, f" {own:.0%}", va="center", fontsize=9)
        axes.text(damage, place - 0.2, f" {damage:.2%}", va="center", fontsize=9)
        told = f"{each['ms']:,.1f} ms ({each['newcomers']} tried)"
        axes.text(1.15, place, told, va="center", fontsize=9)
    axes.barh([0], [0], color="tab:green", label="newcomer recognised (rank 1)")
    axes.barh([0], [0], color="tab:red", label="others no longer recognised (rank 1)")
    axes.set(title="One more subject, three photos", xlim=(0, 1.75), xticks=(0, 0.25, 0.5, 0.75, 1))
    axes.set_yticks(range(len(growth)), [WORDS.get(name, name) for name in list(growth)[::-1]])
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.07), ncols=2, fontsize=9, frameon=False)


def _lists(axes: Any, siamese: Mapping[str, Any], strangers: int) -> None:
    sizes = np.array([int(size) for size in siamese], np.float64)
    for name, label, colour, aside in (
        ("one_to_one", "one threshold, whatever the list", "tab:red", 0.97),
        ("rule", "threshold that follows the list (the product)", "tab:blue", 1.03),
    ):
        rates = np.array([entry[name]["fpir"] for entry in siamese.values()], np.float64)
        x, y = drawable(sizes * aside, rates, log_y=True)
        far = _far(y.tolist(), [strangers] * len(y))
        axes.errorbar(x, y, far, fmt="o-", color=colour, capsize=4, label=label)
    axes.axhline(TARGET, color="grey", linestyle=":", label=f"target, {TARGET:.0%}")
    axes.set(
        title="Strangers accepted, by length of the list\n(FPIR, 95 % interval of the strangers)",
        xlabel="subjects that a probe is compared with",
        ylabel="FPIR",
        xscale="log",
        yscale="log",
    )
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=9)


def _rows(named: Mapping[str, Any]) -> Iterator[tuple[int, str, Any]]:
    """Yield place, name and entry, the first at the top of an axis that rises."""
    for place, (name, each) in zip(range(len(named) - 1, -1, -1), named.items(), strict=True):
        yield place, name, each
