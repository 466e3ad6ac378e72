"""Charts as SVG for a page: drawn by matplotlib, coloured by the page, so that it may be light or dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pipeline.errors import ConfigError

WIDTH, HALF = 9.2, 4.5
"""Inches, of a chart that is as wide as the page, and of one of two side by side."""

# matplotlib knows colours only: these stand for the page's own, and become them in the SVG.
INK, MUTED, RULE, PAPER = "#010101", "#020202", "#030303", "#040404"
FIRST, SECOND, BAD = "#050501", "#050502", "#050503"
GROUPS = tuple(f"#06060{n}" for n in range(1, 9))
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    PAPER: "card",
    FIRST: "first",
    SECOND: "second",
    BAD: "bad",
} | {colour: f"group{n}" for n, colour in enumerate(GROUPS, 1)}
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titlecolor": MUTED,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
}
_OWN_IDS = re.compile(r' id="(?:figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|legend)_?\d+"')

Draw = Callable[[Any], None]
"""Draws on an array of axes, or on the only one."""


def svg(
    name: str, title: str, draw: Draw, *, height: float = 2.4, width: float = WIDTH, **grid: Any
) -> Markup:
    """A chart as an <svg> element. name: its own in the page. title: what it shows, for screen readers.

    grid: as matplotlib's `subplots`. Raises ConfigError where matplotlib isn't installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            f"reports are drawn by matplotlib, which can't be loaded ({error}): "
            'install it with pip install "nightherd[report]"'
        ) from None
    file = io.StringIO()
    with rc_context(_STYLE | {"svg.hashsalt": name}), warnings.catch_warnings():
        # The page's fonts draw the texts, and not matplotlib's, which lack most scripts.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots(**grid))
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Markup(_for_page(file.getvalue(), title))


def timeline(starts: Sequence[int], width: int, rows: NDArray[Any], tokens: NDArray[Any]) -> Draw:
    """starts: of the bins, seconds since 1970. rows, tokens: in each bin, shape [2, bins] for tokens."""

    def draw(axes: Any) -> None:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        zone = datetime.now().astimezone().tzinfo
        times = [datetime.fromtimestamp(start, zone) for start in [*starts, starts[-1] + width]]
        above, below = axes
        _area(above, times, rows / width, FIRST)
        above.set_title("rows a second")
        for values, colour, label in zip(tokens / width, (FIRST, SECOND), ("in", "out"), strict=True):
            _area(below, times, values, colour, label)
        below.set_title("tokens a second")
        below.legend(
            loc="lower right", bbox_to_anchor=(1, 0.97), ncols=2, labelcolor="linecolor", borderaxespad=0.2
        )
        locator = AutoDateLocator(tz=zone)
        below.xaxis.set_major_locator(locator)
        below.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=zone))
        below.set_xlim(times[0], times[-1])

    return draw


def histogram(values: NDArray[np.float64], unit: str, marks: Sequence[tuple[str, float]]) -> Draw:
    """marks: named places on the axis, as a median."""

    def draw(axes: Any) -> None:
        bins, logarithmic = _bins(values)
        whole = bool((values % 1 == 0).all())
        shown = np.clip(values, bins[0], bins[-1])
        axes.hist(shown, bins=list(bins), color=FIRST, edgecolor=PAPER, linewidth=0.5)
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:,g}")
        elif whole:
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_yticks([])
        axes.set_xlabel(unit)
        top = axes.get_ylim()[1]
        axes.set_ylim(0, top * 1.2)
        for label, place in marks:
            axes.axvline(place, ymax=0.86, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
            axes.text(place, top * 1.06, label, ha="center", va="bottom", color=INK, fontsize=8)

    return draw


def labels(names: Sequence[str], rows: Sequence[int], sure: NDArray[Any] | None) -> Draw:
    """Rows of each label; sure: shape [labels, bins], rows by their label's probability from 0 to 1."""

    def draw(axes: Any) -> None:
        left = axes if sure is None else axes[0]
        places = np.arange(len(names))
        left.barh(places, rows, color=FIRST, height=0.66)
        most = max(rows)
        for place, number in zip(places, rows, strict=True):
            left.text(number + most * 0.015, place, f"{number:,}", va="center", color=INK, fontsize=8)
        left.set_yticks(places, [_short(name) for name in names])
        left.set_ylim(len(names) - 0.4, -0.6)
        left.set_xlim(0, most * 1.12)
        left.set_xticks([])
        left.grid(visible=False)
        left.tick_params(axis="y", labelcolor=INK)
        left.set_title("rows")
        if sure is not None:
            _strips(axes[1], sure)

    return draw


def confusion(
    names: Sequence[str], counts: NDArray[np.int64], axes_names: tuple[str, str] = ("gold", "answer")
) -> Draw:
    """counts: shape [names, names], rows by one label and then by the other. axes_names: what these are."""

    def draw(axes: Any) -> None:
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        for (row, column), number in np.ndenumerate(counts):
            colour = FIRST if row == column else BAD
            axes.add_patch(_cell(column, row, colour, float(shares[row, column])))
            if number:
                strong = shares[row, column] > 0.6
                axes.text(
                    column,
                    row,
                    f"{number:,}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=PAPER if strong else INK,
                )
        short = [_short(name, 14) for name in names]
        axes.set_xticks(range(len(names)), short, rotation=40 if len(names) > 4 else 0)
        if len(names) > 4:
            for tick in axes.get_xticklabels():
                tick.set_ha("right")
        axes.set_yticks(range(len(names)), short)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(axes_names[1])
        axes.set_ylabel(axes_names[0])
        axes.tick_params(labelcolor=INK, length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)

    return draw


def reliability(probability: Sequence[float], accuracy: Sequence[float], rows: Sequence[int]) -> Draw:
    """One entry for each bin of probabilities."""

    def draw(axes: Any) -> None:
        above, below = axes
        above.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)))
        above.vlines(probability, probability, accuracy, color=BAD, linewidth=3, alpha=0.35)
        above.plot(probability, accuracy, color=FIRST, marker="o", markersize=4, linewidth=1.4)
        above.set_ylim(-0.02, 1.02)
        above.set_ylabel("share that is right")
        below.bar(probability, rows, width=0.06, color=FIRST, alpha=0.6)
        below.set_xlim(-0.02, 1.02)
        below.set_yticks([])
        below.set_ylabel("rows")
        below.set_xlabel("probability of the answer")

    return draw


def scatter(points: NDArray[np.float64], groups: Sequence[str], names: Sequence[str]) -> Draw:
    """Points in a plane. groups: of each point. names: of the groups that have a colour of their own."""

    def draw(axes: Any) -> None:
        own = np.array(groups, object)
        rest = ~np.isin(own, np.array(names, object)) if names else np.ones(len(points), bool)
        colour = FIRST if not names else MUTED
        axes.scatter(*points[rest].T, s=7, color=colour, alpha=0.55, linewidths=0)
        for name, colour in zip(names, GROUPS, strict=False):
            axes.scatter(
                *points[own == name].T, s=8, color=colour, alpha=0.75, linewidths=0, label=_short(name, 20)
            )
        if names:
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), labelcolor=INK, handletextpad=0.2)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.set_aspect("equal", adjustable="datalim")

    return draw


def _area(axes: Any, times: Sequence[datetime], values: NDArray[Any], colour: str, label: str = "") -> None:
    steps: Any = [*values, values[-1]]
    axes.fill_between(times, steps, step="post", color=colour, alpha=0.16, linewidth=0)
    axes.step(times, steps, where="post", color=colour, linewidth=1.2, label=label)
    axes.set_ylim(bottom=0)


def _strips(axes: Any, sure: NDArray[Any]) -> None:
    bins = sure.shape[1]
    for row, counts in enumerate(sure):
        most = max(int(counts.max()), 1)
        axes.bar(
            (np.arange(bins) + 0.5) / bins,
            -0.8 * counts / most,
            width=0.9 / bins,
            bottom=row + 0.33,
            color=SECOND,
            linewidth=0,
        )
    axes.set_ylim(len(sure) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.set_title("rows by the probability of their label")


def _cell(column: int, row: int, colour: str, share: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, color=colour, alpha=share, linewidth=0)


def _bins(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], bool]:
    """The bins' edges, and whether they grow: for numbers of many sizes. What lies beyond is in the last."""
    low, high = float(values.min()), float(np.quantile(values, 0.995))
    positive = values[values > 0]
    if len(positive) == len(values) and np.median(values) * 30 < values.max():
        return np.geomspace(low, values.max(), 41), True
    if (values % 1 == 0).all():
        # Bins of whole numbers hold equally many of them.
        step = max(1, round((high - low) / 40))
        return np.arange(low - 0.5, np.ceil(high) + 0.5 + step, step), False
    return np.linspace(low, high if high > low else low + 1, 41), False


def _short(name: str, most: int = 28) -> str:
    text = " ".join(name.split()) or "(empty)"
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _for_page(text: str, title: str) -> str:
    """matplotlib's file as a piece of the page: its colours are the page's, its ids don't clash."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = _OWN_IDS.sub("", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    head = f'<svg role="img" aria-label="{title}" class="chart" '
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", text.replace("<svg ", head, 1), count=1)
