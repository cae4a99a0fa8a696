"""Draws plots through matplotlib: as SVG for the page, in its own colours and fonts, and as PNG and SVG files."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from connection.reports.plots import BEFORE, GRID, INK, PLOTS, POINTS, RUNS, Shown
from connection.system.atomic_files import atomic_file
from connection.system.escapes import printable

MISSING = "There are no plots: matplotlib is not installed. Type: pip install -r requirements.txt"
SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
# The page gives these their values, others in the dark.
VARIABLES = {INK: "currentColor", GRID: "var(--grid)", BEFORE: "var(--before)", "#ffffff": "var(--back)"}
VARIABLES |= {colour: f"var(--run{place})" for place, colour in enumerate(RUNS)}
FONTS = (
    "Noto Sans CJK KR",
    "Noto Sans CJK JP",
    "NanumGothic",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "AppleGothic",
    "Yu Gothic",
)
STYLE = {
    "font.size": 11, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": INK,
    "axes.titlesize": 11, "axes.labelsize": 11, "xtick.labelsize": 10, "ytick.labelsize": 10, "legend.fontsize": 11,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": False, "axes.linewidth": 0.8,
    "text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "report", "axes.unicode_minus": True,
}  # fmt: skip


def draw_inline(shown: Sequence[Shown], titles: Sequence[str] = ()) -> dict[str, tuple[str, str]]:
    """Return {name: (SVG element for a page, text alternative)} of the plots that there is something to draw for.

    titles: the texts that the points of `predicted` show under the pointer. Raises `ImportError` without matplotlib.
    """
    found = {}
    for name, figure, told in _drawn(shown):
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        found[name] = (_for_page(stream.getvalue(), name, told, titles if name == "predicted" else ()), told)
    return found


def write_plots(folder: Path, shown: Sequence[Shown]) -> list[Path]:
    """Write each plot as NAME.png and NAME.svg into a folder. Raises `ImportError` without matplotlib, and `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure, _ in _drawn(shown):
        written += save_plot(figure, folder / name)
    return written


def _drawn(shown: Sequence[Shown]) -> Iterator[tuple[str, Any, str]]:
    from matplotlib.figure import Figure

    with report_style():
        for name, plot in PLOTS.items():
            figure = Figure(layout="constrained")
            if told := plot(figure, shown):
                yield name, figure, printable(told)


@contextlib.contextmanager
def report_style() -> Iterator[None]:
    """Have matplotlib draw in the report's style and fonts."""
    from matplotlib import font_manager, rc_context

    with _quiet():
        there = set(font_manager.get_font_names())
        with rc_context(STYLE | {"font.family": ["DejaVu Sans", *(font for font in FONTS if font in there)]}):
            yield


def save_plot(figure: Any, file: Path) -> list[Path]:
    """Write a figure as FILE.png and FILE.svg, for a `file` without ending."""
    files = [file.with_name(f"{file.name}.{form}") for form in ("png", "svg")]
    for path in files:
        form = path.suffix[1:]
        with atomic_file(path) as new:
            figure.savefig(new, format=form, dpi=200, metadata={"Date": None} if form == "svg" else None)
    return files


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what matplotlib says on its first start, and on letters whose width it has to guess."""
    import warnings

    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        log.setLevel(level)


def _for_page(content: bytes, name: str, told: str, titles: Sequence[str]) -> str:
    """Return the SVG element with ids of its own, colours that the page sets, and its points' pairs."""
    ElementTree.register_namespace("", SVG[1:-1])
    root = ElementTree.fromstring(content)
    for odd in [child for child in root if child.tag == f"{SVG}metadata"]:
        root.remove(odd)
    points = next((part for part in root.iter() if part.get("id") == POINTS), None)
    if points is not None:
        for mark, title in zip((part for part in points.iter(f"{SVG}use")), titles, strict=False):
            ElementTree.SubElement(mark, f"{SVG}title").text = title
    referred = set(re.findall(r"url\(#([^)]+)\)", content.decode())) | set(
        re.findall(r'xlink:href="#([^"]+)"', content.decode())
    )
    for part in root.iter():
        _restyle(part, name, referred)
    root.attrib.pop("width", None)
    root.attrib.pop("height", None)
    root.attrib |= {"role": "img", "aria-label": told}
    return ElementTree.tostring(root, encoding="unicode")


def _restyle(part: ElementTree.Element, name: str, referred: set[str]) -> None:
    own = part.attrib.pop("id", None)
    if own in referred:
        part.set("id", f"{name}-{own}")
    if link := part.attrib.pop(f"{XLINK}href", None):
        part.set("href", f"#{name}-{link[1:]}")
    if clip := part.get("clip-path"):
        part.set("clip-path", clip.replace("#", f"#{name}-"))
    if style := part.get("style"):
        style = re.sub(r"#[0-9a-f]{6}", lambda found: VARIABLES.get(found[0], found[0]), style)
        if part.tag == f"{SVG}text":
            style = re.sub(r"font: ([\d.]+)px [^;]*", r"font-size: \1px", style)
            style += "" if "fill" in style else "; fill: currentColor"
        part.set("style", style)
    if part.tag == f"{SVG}style":
        part.text = ""
