"""How every figure looks: colours that stay apart for colour-blind readers, one a provider, and the shared frame."""

import textwrap
from itertools import pairwise

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure  # after the backend is chosen

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/) for providers: the known ones keep theirs in every report.
KNOWN_PROVIDERS = {
    "qshard": "#0072B2",
    "bitsandbytes": "#D55E00",
    "reference": "#009E73",
    "cublas": "#CC79A7",
    "copy": "#000000",
}
OTHER_PROVIDERS = ["#E69F00", "#56B4E9", "#7F7F7F", "#8C6D1F", "#6A3D9A", "#B2DF8A"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h"]

# Paul Tol's muted palette for what is no provider (runs, memory parts), so that no colour has two meanings.
CATEGORIES = ["#332288", "#88CCEE", "#44AA99", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#117733"]
LINES = [("#332288", "-"), ("#44AA99", "--"), ("#CC6677", "-."), ("#999933", ":"), ("#882255", "-"), ("#117733", "--")]
HATCHES = ["", "//", "", "..", "", "\\\\", "", "xx", "--"]

QUANT_TYPES = {"NF4": "#332288", "FP4": "#CC6677"}
VERDICTS = {"PASS": "#117733", "FASTER": "#88CCEE", "FAIL": "#882255", "UNSURE": "#DDAA33"}
INK, GREY, FAINT = "#1A1A1A", "#666666", "#D9D9D9"

SETTINGS = {
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "svg.hashsalt": "qshard",
    "svg.fonttype": "path",
    "text.parse_math": False,
}


class Palette:
    """Colour and marker of each provider, the same in every figure of a report."""

    def __init__(self, providers: list[str]):
        others = [name for name in sorted(providers) if name not in KNOWN_PROVIDERS]
        self._colours = dict(KNOWN_PROVIDERS)
        self._colours.update({name: OTHER_PROVIDERS[i % len(OTHER_PROVIDERS)] for i, name in enumerate(others)})
        self._markers = {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(self._colours)}

    def colour(self, provider: str) -> str:
        return self._colours.get(provider, GREY)

    def marker(self, provider: str) -> str:
        return self._markers.get(provider, "o")


def new_figure(width: float, height: float) -> Figure:
    """A figure without any display, in inches, that keeps its parts from overlapping."""
    return Figure(figsize=(width, height), layout="constrained")


def frame(figure: Figure, title: str, caption: str) -> None:
    """The finding above, where the numbers come from below, both wrapped to the figure's width."""
    width = figure.get_figwidth()
    figure.suptitle(
        textwrap.fill(shorten(title, 240), int(width * 10.4)),
        x=0.01,
        ha="left",
        fontsize=12,
        fontweight="bold",
        color=INK,
    )
    lines = textwrap.wrap(" ".join(caption.split()), int(width * 19.0))
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=7, color=GREY)


def shorten(text: str, length: int) -> str:
    """`text` with single spaces, cut in the middle to `length` characters."""
    plain = " ".join(text.split())
    if len(plain) <= length:
        return plain
    half = (length - 3) // 2
    return f"{plain[:half]} … {plain[-half:]}"


def spread(positions: list[float], gap: float) -> list[float]:
    """Moves label positions apart to at least `gap`, in their order and as little as sorting downwards allows."""
    order = sorted(range(len(positions)), key=positions.__getitem__)
    moved = list(positions)
    for before, here in pairwise(order):
        moved[here] = max(moved[here], moved[before] + gap)
    excess = (sum(moved) - sum(positions)) / max(len(positions), 1)
    return [position - excess for position in moved]
