"""Code usage: how often each of the 4-bit values is used on normally distributed weights."""

import numpy as np

from reports.codebooks import CODEBOOKS, code_shares, gaussian
from reports.figures.drawing import Drawing, FigureKind
from reports.figures.quantization_error import PROVENANCE, SEED
from reports.model import Results
from reports.style import GREY, QUANT_TYPES, Palette, new_figure

BLOCK_SIZE = 64


def draw(_: Results, palette: Palette) -> Drawing:
    samples = gaussian(SEED)
    shares = {name: code_shares(samples, BLOCK_SIZE, book) for name, book in CODEBOOKS.items()}
    figure = new_figure(9.5, 4.4)
    grid = figure.subplots(2, 1, sharey=True)
    for axes, name in zip(grid, shares):
        _draw_codebook(axes, name, shares[name])
    bits = {name: entropy(share) for name, share in shares.items()}
    title = f"A code carries {bits['NF4']:.2f} of its 4 bits as information in NF4, {bits['FP4']:.2f} in FP4"
    rare = {name: 100 * float(share.min()) for name, share in shares.items()}
    reading = (
        f"On normally distributed weights in blocks of {BLOCK_SIZE}, the codes of NF4 carry {bits['NF4']:.2f} bits of "
        f"information each and those of FP4 {bits['FP4']:.2f}; the rarest value is used for {rare['NF4']:.2f} % of the "
        f"weights in NF4 and {rare['FP4']:.2f} % in FP4."
    )
    rows = [
        (name, rank, float(value), float(share))
        for name in shares
        for rank, (value, share) in enumerate(zip(CODEBOOKS[name], shares[name]))
    ]
    return Drawing(figure, title, reading, ("quant_type", "rank", "value", "share"), rows, [], PROVENANCE)


def entropy(shares: np.ndarray) -> float:
    """Bits of information a code carries: -sum(p log2 p)."""
    used = shares[shares > 0]
    return float(-(used * np.log2(used)).sum())


def _draw_codebook(axes, name: str, shares: np.ndarray) -> None:
    values = CODEBOOKS[name]
    positions = np.arange(len(values))
    axes.bar(positions, 100 * shares, color=QUANT_TYPES[name], width=0.75)
    for position, share in zip(positions, shares):
        axes.annotate(
            f"{100 * share:.1f}",
            (position, 100 * share),
            (0, 3.5),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    axes.axhline(100 / 16, color=GREY, linewidth=1, linestyle="--")
    axes.annotate(
        "even use",
        (1.0, 100 / 16),
        (2, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        color=GREY,
        fontsize=8,
        va="center",
    )
    axes.set_xticks(positions, [f"{value:.3f}" for value in values], fontsize=7.5)
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.set_ylim(0, 14)
    axes.set_ylabel("share (%)")
    axes.set_xlabel("value of the code, as a fraction of absmax (no unit)")
    both_zeros = "; +0 and -0 are counted together" if name == "FP4" else ""
    axes.set_title(f"{name}: share of weights by value{both_zeros}", color=QUANT_TYPES[name])
    axes.grid(axis="x", visible=False)


FIGURE = FigureKind(
    "code_usage",
    "Code usage",
    "Does each of the 16 codes earn its place?",
    "nothing: computed from the codebooks",
    lambda results: [results],
    draw,
)
