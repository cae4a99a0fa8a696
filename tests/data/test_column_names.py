"""Columns by the names that people give them: in several languages, and told apart from identifiers by their content."""

from __future__ import annotations

import pytest

from connection.data.pair_file import PairFile
from tests.data.test_pair_file import read, refused, write

ROWS = [(f"the door {number} stops", f"look at the lamp {number}", number % 6) for number in range(12)]
GOOD = [(one, two, float(label)) for one, two, label in ROWS]
LETTERS = [(number, f"REQ-{number}", one, f"T{number}", two, label) for number, (one, two, label) in enumerate(ROWS)]


def table(header, rows=ROWS):
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


@pytest.mark.parametrize(
    "header",
    [
        "q1,q2,label", "s1,s2,score", "Satz 1,Satz 2,Bewertung", "문장1,문장2,유사도", "文1,文2,類似度", "句子1,句子2,相似度",
        "phrase_a,phrase_b,similarité", "Frase A,Frase B,puntuación", "sentence1,sentence2,class", "text1,text2,gold",
        "First sentence,Second sentence,Mean similarity rating", "text_x,text_y,isDuplicate", "source,target,label",
        "a,b,label", "anchor,positive,score", "text,text_pair,y", "sentence,sentence,label", "text,text.1,gold_label",
        "sent0,sent1,score",
        "Sentence 1,Sentence 2,Similarity (0-5)", "req_source,req_target,is_linked", "문장 가,문장 나,점수",
        "\u1106\u116e\u11ab\u110c\u1161\u11bc1,\u1106\u116e\u11ab\u110c\u1161\u11bc2,score",
        "sentence\uff11,sentence\uff12,score",
        "claim,evidence,target", "anforderung,testfall,ähnlichkeit", "Question (EN) 1,Question (EN) 2,Expert score",
    ],
)  # fmt: skip
def test_names_in_use(tmp_path, header):
    file = PairFile.open(write(tmp_path / "p.csv", table(header)))
    assert file.columns.header
    assert file.columns.names == tuple(header.split(","))
    assert read(file.path)[:2] == (GOOD, {})


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("n,left_id,left_name,right_id,right_name,label", ("left_name", "right_name", "label")),
        ("class,req1,text1,test1,text2,score", ("text1", "text2", "score")),
        ("y,id_a,req_a,id_b,req_b,match", None),  # two names of labels
        ("index,id1,title_l,id2,title_r,Overall score", ("title_l", "title_r", "Overall score")),
    ],
)
def test_identifiers_beside_the_text_are_left_alone(tmp_path, header, names):
    path = write(tmp_path / "p.csv", table(header, LETTERS))
    if names:
        assert PairFile.open(path).columns.names == names
        assert read(path)[:2] == (GOOD, {})
    else:
        assert "column of the label: y or match" in refused(path)


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("Requirement. short;Test. long;Mark".replace(";", ","), ROWS),
        ("sentence1,sentence2,agreement", ROWS),
        ("id,Requirement,n,Test,x,Marked", [(n, one, req, two, test, label) for n, req, one, test, two, label in LETTERS]),
    ],
)
def test_the_way_out_of_unknown_names_works_when_typed(tmp_path, header, rows):
    path = write(tmp_path / "p.csv", table(header, rows))
    declared = refused(path).partition("by their content: --columns ")[2].split()[0]
    assert read(path, declared)[:2] == (GOOD, {})


def test_several_columns_of_labels_are_named(tmp_path):
    rows = [(*row, (row[2] + 1) % 6, (row[2] + 2) % 6) for row in ROWS]
    said = refused(write(tmp_path / "p.csv", table("sentence1,sentence2,annotator A,annotator B,annotator C", rows)))
    assert "train on their mean: --columns sentence1=1,sentence2=2,label=3,4,5" in said


def test_sentences_that_are_numbers_are_taken_only_if_declared(tmp_path):
    rows = [(1000 + number, f"T-{number}", number % 6) for number in range(12)]
    path = write(tmp_path / "p.csv", table("requirement,test,score", rows))
    said = refused(path)
    assert "column 'requirement' and 'test': numbers or identifiers and no sentences" in said
    declared = said.partition("by their content: --columns ")[2].split()[0]
    assert read(path, declared)[0][1] == ("1001", "T-1", 1.0)


def test_one_column_of_numbers_is_said(tmp_path):
    rows = [(one, 1000 + number, label) for number, (one, _, label) in enumerate(ROWS)]
    file = PairFile.open(write(tmp_path / "p.csv", table("requirement,test,score", rows)))
    assert "numbers or identifiers where sentences should be" in str(file)


def test_a_first_row_of_sentences_that_differ_in_a_number_is_no_header(tmp_path):
    rows = [("valve 1", "valve 2", 1), ("valve 3", "valve 4", 0), ("a door", "a lamp", 1)]
    assert read(write(tmp_path / "p.csv", table("valve 5,valve 6,0", rows)))[0][0] == ("valve 5", "valve 6", 0)
