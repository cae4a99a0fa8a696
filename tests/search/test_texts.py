"""Lists of texts as people have them: which column is read, and what is refused."""

from __future__ import annotations

import json

import pytest

from connection.search.texts import read_texts
from connection.system.errors import InputError
from tests.conftest import write_pairs


def test_columns_by_their_usual_names_by_content_and_as_asked(tmp_path):
    rows = [("R1", "The door shall lock.", "high"), ("R2", "The lamp shall light up.", "low")]
    found = read_texts(write_pairs(tmp_path / "a.csv", rows, ("Req ID", "Requirements", "Priority")), other=True)
    assert (found.texts, found.ids, found.rows) == ([row[1] for row in rows], ["R1", "R2"], [2, 3])
    assert (found.column, found.others) == ("Requirements", {"Priority": ["high", "low"]})
    plain = [(f"R-{row}", f"The door {row} shall lock at night.") for row in range(12)]
    unusual = write_pairs(tmp_path / "b.csv", plain, ("Nummer", "Anforderung"))
    assert read_texts(unusual).texts == [row[1] for row in plain]
    assert read_texts(unusual).ids is None
    assert read_texts(unusual, "anforderung", "1").ids == [row[0] for row in plain]
    assert read_texts(unusual, "2").column == "Anforderung"


def test_a_file_of_one_text_a_line_and_json(tmp_path):
    (tmp_path / "list.txt").write_text("The door shall lock.\nThe lamp, too, is on.\n")
    found = read_texts(tmp_path / "list.txt")
    assert (found.texts, found.rows, found.ids) == (["The door shall lock.", "The lamp, too, is on."], [1, 2], None)
    (tmp_path / "list.jsonl").write_text("".join(json.dumps({"id": n, "text": f"text {n}"}) + "\n" for n in range(3)))
    found = read_texts(tmp_path / "list.jsonl")
    assert (found.texts, found.ids) == (["text 0", "text 1", "text 2"], ["0", "1", "2"])


@pytest.mark.parametrize("name", ["list.txt", "list.csv", "list.tsv"])
@pytest.mark.parametrize("lines", [
    ["A dog", "the cat, red", "a man"], ["The cat, red", "a dog", "a man"], ["The cat, red, big", "a; b", "a man, here"],
    ["A dog\tor two", "the cat", "a man"], ["A dog", "a man; a cat; a bird", "a | b"], ["Text", "a dog, red", "b"],
])  # fmt: skip
def test_a_line_is_a_text_with_the_delimiters_that_are_in_it(tmp_path, name, lines):
    (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    texts = lines[lines[0] == "Text" :]
    for column in ("", "1"):
        assert read_texts(tmp_path / name, column).texts == texts


@pytest.mark.parametrize("delimiter", ["\t", ";", "|", ","])
def test_a_list_of_two_columns_may_have_any_delimiter(tmp_path, delimiter):
    rows = [("R1", "the cat plays"), ("R2", "a dog"), ("R3", "the man")]
    found = read_texts(write_pairs(tmp_path / "list.txt", rows, ("id", "text"), delimiter))
    assert (found.ids, found.texts) == (["R1", "R2", "R3"], [row[1] for row in rows])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("id,text\n", "has no rows"),
        ("id,text\n1,a dog\n2,\n3, \n", "mend or remove them\n  - line 3: column text is blank\n  - line 4"),
        ("id,text\n1,a dog\n2,a cat, red\n", "line 3: 3 cells, the first row has 2: a comma in a text without quotes?"),
        ("text,id\na dog,1,,\na cat, red,2\n", "or remove them\n  - line 3: 3 cells, the first row has 2: a comma"),
        ("a,b\nThe dog plays here,The cat is there\nOne more,And another\n", "which column holds the texts"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path, content, said):
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(InputError) as error:
        read_texts(tmp_path / "list.csv")
    assert said in str(error.value)


def test_a_folder_of_lists_is_no_list(tmp_path):
    (tmp_path / "list.csv").write_text("a dog\n")
    with pytest.raises(InputError, match=r"is a folder; a file is needed: give the file in it, .*list\.csv"):
        read_texts(tmp_path)


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    file = write_pairs(tmp_path / "a.csv", [("1", "a dog")], ("id", "text"))
    with pytest.raises(
        InputError, match=r"no column is named body for the texts; it has 1 'id', 2 'text'\. Give --column NAME"
    ):
        read_texts(file, "body")
    with pytest.raises(InputError, match=r"2 'text'\. Give --id-b NAME or NUMBER"):
        read_texts(file, "", "key", flags=("--column-b", "--id-b"))


def test_names_below_a_title_are_found(tmp_path):
    (tmp_path / "a.csv").write_text("Our requirements,,\n,,\nID,Requirement,Owner\nR1,The door shall lock.,me\n")
    found = read_texts(tmp_path / "a.csv")
    assert (found.texts, found.ids, found.rows) == (["The door shall lock."], ["R1"], [4])
    (tmp_path / "b.csv").write_text("Our list,\nNummer,Anforderung\n1,The door shall lock.\n")
    assert read_texts(tmp_path / "b.csv", "Anforderung", "Nummer").texts == ["The door shall lock."]
    (tmp_path / "c.csv").write_text("text\nThe test is a question\ntext\n")  # names are not looked for below names
    assert read_texts(tmp_path / "c.csv").texts == ["The test is a question", "text"]
