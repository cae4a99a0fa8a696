"""Whether a row has the cells that its file's columns promise: rows of another width, and repeated column names."""

from __future__ import annotations

import dataclasses

from connection.data.column_names import visible
from connection.data.columns import Columns
from connection.data.labels import is_label
from connection.data.row_texts import is_text

ODD_QUOTES = ("\u201c", "\u201e", "\u00ab", "\u2018", "`")


@dataclasses.dataclass(frozen=True)
class RowShape:
    """The shape of a file's rows."""

    columns: Columns
    delimiter: str  # between cells of text; "" in other formats
    named: bool  # whether the columns have names

    def is_header(self, cells: list[str]) -> bool:
        """Returns whether a row repeats the column names: several files were put together, or a page's head was copied."""
        places, names = self.columns.places, self.columns.names
        return (
            self.named and cells[places[-1]].strip() == names[-1]
            and all(visible(cells[place]).strip() == name for place, name in zip(places, names, strict=True))
        )  # fmt: skip

    def ragged_because(self, cells: list[str]) -> str:
        """Returns the cause of a row with more cells than the first one, where it shows."""
        width = self.columns.width
        if len(cells) > width and not self.columns.labelled:
            return ": a comma in a text without quotes?" if self.delimiter == "," else ""
        label = self.columns.places[-1]
        last = len(cells) == width + 1 and label == width - 1
        if last and all(cell.strip().lstrip("+-").isdecimal() for cell in cells[label:]):
            return ": a label with a decimal comma and no quotes? Write a point, or save with semicolons"
        if len(cells) > width and cells[0].strip()[:1] in ODD_QUOTES:
            return f': the quotes around its cells are {cells[0].strip()[0]} and not "'
        if label == width - 1 < len(cells) - 1 and is_label(cells[label]) and not any(map(is_label, cells[width:])):
            return ": a column without a name? Give it one in the first row"
        return ""

    def fitted(self, cells: list[str]) -> list[str] | None:
        """Returns the cells of a row of any width if the columns in use are there for certain; else None.

        Delimited text may hold a delimiter in a sentence, which moves all cells after it. The label tells: it must be a label,
        stand after both sentences, and not be cut by a decimal comma.
        """
        width, places = self.columns.width, self.columns.places
        if len(cells) == width:
            return cells
        if len(cells) > width and not any(map(str.strip, cells[width:])):  # delimiters at the end of the line
            return cells
        if len(cells) <= max(self.columns.used):
            return None
        if not self.delimiter:
            return cells
        # Nothing tells whether a delimiter in a sentence has moved the cells.
        if not self.columns.labelled or self.columns.weight is not None:
            return None
        label = places[2]
        if not is_label(cells[label]) or not (is_text(cells[places[0]]) and is_text(cells[places[1]])):
            return None
        if len(cells) < width:
            return cells if label == max(places) or self.delimiter == "\t" else None
        if label == max(places):
            sure = self.delimiter == "\t" or (label < width - 1 and not is_label(cells[label + 1]))
        else:
            sure = self.delimiter == "\t" and len(cells) == self.columns.wider
        return cells if sure else None
