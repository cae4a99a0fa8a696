# PYTHON_ARGCOMPLETE_OK
"""Build a run's report.html again, or a page of several runs side by side; write the plots as PNG and SVG files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from connection.system.errors import InputError, RunError, exit_status
from connection.system.escapes import printable
from connection.system.flags import Flags
from connection.system.paths import expand, resolve
from connection.system.plain_files import is_link
from connection.system.versions import require_libraries

EXAMPLES = (
    "python -m tools.report output/run",
    "python -m tools.report output/run-a output/run-b -o side-by-side.html --plots plots",
)
SEVERAL = "side-by-side.html"


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 done, 1 a file could not be written, 2 bad usage or a folder without a run."""
    parser = Flags("python -m tools.report", __doc__, EXAMPLES)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run; others are compared with the first")
    parser.add_argument(
        "-o", "--output", default="", metavar="FILE",
        help=f"the page (default: report.html in the run's folder; of several runs {SEVERAL} in this folder)",
    )  # fmt: skip
    parser.add_argument("--plots", default="", metavar="FOLDER", help="also write each plot there, as PNG and as SVG")
    given = parser.parse_args(argv)
    return exit_status(lambda: build(given.runs, given.output, given.plots), failed="The report could not be written")


def build(names: Sequence[str], output: str, plots: str) -> int:
    """Write the page and, if a folder is given, the plots."""
    runs = [resolve(name) for name in names]
    if len(set(runs)) < len(runs):
        raise InputError("A run is given twice: give each once.")
    target = expand(output) if output else Path(SEVERAL) if len(runs) > 1 else runs[0] / "report.html"
    problems = []
    if target.suffix.lower() not in (".html", ".htm"):
        problems.append(f"-o {printable(target)}: a page is written; end its name in .html")
    if target.is_dir() or is_link(target) or not target.absolute().parent.is_dir():
        problems.append(f"{printable(target)}: it should be a file, not a link, in a folder that is there")
    folder = expand(plots) if plots else None
    if folder and folder.exists() and not folder.is_dir():
        problems.append(f"--plots {printable(folder)}: it is a file; give a folder")
    if problems:
        raise InputError(problems[0]) if len(problems) == 1 else InputError.listing("This can't be written:", problems)
    require_libraries()
    from connection.reports.html_report import write_page
    from connection.reports.plots import shown_of
    from connection.reports.run_files import read_run
    from connection.reports.svg import MISSING, write_plots

    write_page(target, runs)
    print(f"report  {printable(target)}")
    if folder:
        try:
            written = write_plots(folder, shown_of([read_run(run) for run in runs]))
        except ImportError:
            raise RunError(MISSING) from None
        print(f"plots   {printable(folder)}: {', '.join(dict.fromkeys(file.stem for file in written))}, each as .png and .svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
