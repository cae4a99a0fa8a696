"""Makes pages of a site from the documents as they lie in the repository; mkdocs calls the functions on_... (make docs)."""

from __future__ import annotations

import os.path
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Pages that are not in docs/, and their names in the site.
OUTSIDE = {
    "README.md": "index.md",
    "README.ko.md": "README.ko.md",
    "data/README.md": "bundled-pairs.md",
    "transformers/bert/README.md": "weights.md",
    "LICENSE": "licence.md",
}
INSIDE = {name: source for source, name in OUTSIDE.items()}
LINK = re.compile(r"(\]\()([^)#\s:]+)([)#])")  # relative ones


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not in docs/."""
    from mkdocs.structure.files import File

    for source, name in OUTSIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        text = f"# Licence\n\n```\n{text}```\n" if source == "LICENSE" else text
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page's text with the links of the site, and as Python-Markdown reads lists."""
    return spaced(linked(markdown, INSIDE.get(page.file.src_uri, f"docs/{page.file.src_uri}")))


def linked(text: str, source: str) -> str:
    """Return a document's text with its relative links as they are in the site. source: its path in the repository."""

    def in_site(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(os.path.dirname(source), link[2]))
        return link[1] + OUTSIDE.get(target, target.removeprefix("docs/")) + link[3]

    return LINK.sub(in_site, text)


def spaced(text: str) -> str:
    """Return a text with an empty line before each list that follows a line of text: Python-Markdown sees no list else."""
    lines: list[str] = []
    code = False
    for line in text.split("\n"):
        code ^= line.lstrip().startswith("```")
        before = lines[-1] if lines else ""
        if not code and re.match(r"- |1\. ", line) and before and not re.match(r"- |\d+\. |\s|#", before):
            lines.append("")
        lines.append(line)
    return "\n".join(lines)
