"""One look for all figures: colour-blind-safe colours (Okabe and Ito 2008), light lines, readable at report size.

Ink, paper and grid are drawn in fixed greys that :func:`to_svg` turns into CSS variables, so that a figure follows the
reader's light or dark scheme. matplotlib is imported only when a figure is made.
"""

import io
import re
from base64 import b64encode
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, PAPER, GRID, HOLE = "#1f2328", "#667080", "#fefefe", "#d9dee4", "#cfd4da"
BLUE, SKY, ORANGE, GREEN, VERMILION, PURPLE = (
    "#0072b2",
    "#56b4e9",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
)
AREA_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY)
_DARK = {INK: "#e6e9ee", MUTED: "#9aa4b1", PAPER: "#14181d", GRID: "#333b45", HOLE: "#3d4651"}
_NAMES = {INK: "ink", MUTED: "muted", PAPER: "paper", GRID: "grid", HOLE: "hole"}

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelsize": 9,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "neurobridge",
}

P = ParamSpec("P")


def styled(draw: "Callable[P, Figure]") -> "Callable[P, Figure]":
    """Run a drawing function under this style."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return wrapper


def new_figure(width: float, height: float, *, pad: float = 0.04) -> "Figure":
    """An empty figure of that size in inches, laid out without overlaps, ``pad`` inches around each panel."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=pad, h_pad=pad, wspace=pad / 2, hspace=pad / 2)
    return Figure(figsize=(width, height), layout=layout)


def to_svg(figure: "Figure") -> str:
    """The figure as an SVG document that follows the reader's colour scheme."""
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(stream, format="svg", dpi=200, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, name in _NAMES.items():
        text = text.replace(colour, f"var(--{name})")
    light, dark = (
        ";".join(f"--{name}:{values[colour]}" for colour, name in _NAMES.items())
        for values in ({colour: colour for colour in _NAMES}, _DARK)
    )
    style = f"<style>svg{{{light}}}@media screen and (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    return text.replace(">", f">{style}", 1)


def to_data_uri(figure: "Figure") -> str:
    """The figure's SVG as a ``data:`` address for an ``<img>``."""
    return "data:image/svg+xml;base64," + b64encode(to_svg(figure).encode()).decode()


def save_png(figure: "Figure", path: str | Path, *, dpi: int = 160) -> None:
    """Write the figure to ``path`` as PNG on white paper."""
    from neurobridge_tb.files import write_aside

    with write_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=dpi, facecolor="white")


def save_figure(figure: "Figure", stem: Path) -> None:
    """Write the figure as ``<stem>.png`` and ``<stem>.svg``."""
    from neurobridge_tb.files import write_aside

    stem.parent.mkdir(parents=True, exist_ok=True)
    save_png(figure, stem.with_name(f"{stem.name}.png"))
    with write_aside(stem.with_name(f"{stem.name}.svg")) as aside:
        aside.write_text(to_svg(figure), encoding="utf-8")


def light_grid(axes: "Axes", axis: str = "y") -> None:
    """Grid lines across one axis, and no tick marks."""
    axes.grid(True, axis=axis)  # type: ignore[arg-type]
    axes.tick_params(length=0)
