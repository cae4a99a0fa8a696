"""Delimited text as programs write it: widths, quotes, marks and encodings; and which columns are taken by their content."""

from __future__ import annotations

import codecs
import csv
import io
import json

import openpyxl
import pytest

from connection.data.label_words import help_with_words
from connection.data.pair_file import PairFile
from connection.data.prepare import prepare
from connection.search.texts import read_texts
from connection.system.csv_output import new_csv
from ConnectionBert import load_tokenizer
from tests.data.test_pair_file import read, refused, write

SENTENCES = [(f"the door {number} stops, at once", f"look at the lamp {number}", number % 6) for number in range(12)]
HEADER = "sentence1,sentence2,score"
GOOD = [(one, two, float(label)) for one, two, label in SENTENCES]


def table(rows, header=HEADER, delimiter=","):
    return "".join(line + "\n" for line in [*([header] if header else []), *(delimiter.join(map(str, row)) for row in rows)])


@pytest.mark.parametrize(
    "text",
    [
        table([(f'"{one}"', two, label, "") for one, two, label in SENTENCES]),
        table([(f'"{number}"', f'"{row[0]}"', row[1], row[2]) for number, row in enumerate(SENTENCES, 1)]),
        table([(f'"{one}"', f' "{two}"', f" {label}") for one, two, label in SENTENCES], "sentence1, sentence2, score"),
        table([(f"'{one}'", f"'{two}'", label) for one, two, label in SENTENCES]),
        table([(f'"{one}"', two, label, "a note", "more") for one, two, label in SENTENCES], HEADER + ",note"),
        table([(f'"{one}"', two, label) for one, two, label in SENTENCES], HEADER + ",note"),
        "\ufeff\ufeff" + table([(f'"{one}"', two, label) for one, two, label in SENTENCES]),
        table([(f'"{one}"', two, label) for one, two, label in SENTENCES], "sentence1\u200b,\u2060sentence2,score"),
        "\ufeff\ufeff" + table([(f'"{one}"', two, label) for one, two, label in SENTENCES], ""),
        table([(f"{row[2]}-train", "", f'"{row[0]}"', "", row[1], "", row[2]) for row in SENTENCES], "", "|"),
        table(SENTENCES, "sentence1 :: sentence2 :: score", " :: "),
        table(SENTENCES, "", "@@@"),
        table([(f'"{one}"', f'"{two}"', label) for one, two, label in SENTENCES], HEADER.replace(",", ";\t"), ";\t"),
    ],
    ids=["trailing", "r", "spaces", "single", "wider", "narrower", "marks", "invisible", "marks-no-header", "doubled",
         "colons", "signs", "semicolon-tab"],
)  # fmt: skip
def test_rows_come_back_whole(tmp_path, text):
    assert read(write(tmp_path / "p.csv", text))[:2] == (GOOD, {})


def test_the_sts_benchmark_as_it_is_published(tmp_path):
    rows = [("main-news", "src", 2012, f"{number:04}", f"{row[2]}.000", row[0], row[1]) for number, row in enumerate(SENTENCES)]
    wide = [(*row, "http://example.org", "a note") if number in (3, 8) else row for number, row in enumerate(rows)]
    assert read(write(tmp_path / "p.csv", table(wide, "", "\t")))[:2] == (GOOD, {})


@pytest.mark.parametrize(
    "row",
    [
        "the door, and more,look,3,note", "the door,look,0,2,note", "the door,look,3", "look", "a,b,3,4,note",
        "the door,look,note,,",
    ],
)  # fmt: skip
def test_a_row_that_a_delimiter_has_moved_is_ragged_or_bad(tmp_path, row):
    path = write(tmp_path / "p.csv", table([], "sentence1,sentence2,score,note") + "a b,c d,2,note\n" + row + "\n")
    rows, bad, _ = read(path)
    assert rows[:1] == [("a b", "c d", 2)]
    assert rows[1:] == ([("the door", "look", 3)] if row == "the door,look,3" else [])
    assert list(bad) == ([] if row == "the door,look,3" else [3])


def test_unquoted_decimal_commas_are_ragged(tmp_path):
    rows, bad, _ = read(write(tmp_path / "p.csv", table([(f"a {number}", "b c", "0", number) for number in range(9)])))
    assert (rows, len(bad)) == ([], 9)


def test_a_label_in_front_does_not_vouch_for_sentences(tmp_path):
    rows, bad, _ = read(write(tmp_path / "p.csv", "score,sentence1,sentence2\n1,a b,c d\n2,a, b,c d\n3,e f,g h,\n"))
    assert (rows, list(bad)) == ([("a b", "c d", 1), ("e f", "g h", 3)], [3])


def test_quotes_with_a_backslash(tmp_path):
    text = HEADER + '\n"He said \\"stop\\", then went.","C:\\\\",1\n"a ""b"" c",d,2\n"C:\\new",e,3\n'
    rows, bad, _ = read(write(tmp_path / "p.csv", text))
    assert (rows, bad) == ([('He said "stop", then went.', "C:\\", 1), ('a "b" c', "d", 2), ("C:\\new", "e", 3)], {})


def test_a_backslash_at_the_end_of_a_cell_is_no_escape(tmp_path):
    assert read(write(tmp_path / "p.csv", HEADER + '\n"C:\\","d, e",1\n'))[0] == [("C:\\", "d, e", 1)]


def test_spaces_and_apostrophes_that_do_not_enclose_stay(tmp_path):
    rows = [(" a", "'t was", 1.0), ("'b'", "c", 2.0)]
    assert read(write(tmp_path / "p.csv", table(rows)))[0] == rows
    quoted = HEADER + '\n"he said, ""hi""", b,1\n'
    assert read(write(tmp_path / "q.csv", quoted))[0] == [('he said, "hi"', " b", 1)]


@pytest.mark.parametrize("encoding", ["iso2022_jp", "utf-32"])
def test_encodings_that_look_like_others(tmp_path, encoding):
    path = tmp_path / "p.csv"
    path.write_bytes((HEADER + "\n扉は閉まる,確かめる,1\nランプ,点く,2\n").encode(encoding))
    assert read(path)[0] == [("扉は閉まる", "確かめる", 1), ("ランプ", "点く", 2)]
    assert ("taken for" in str(PairFile.open(path))) == (encoding == "iso2022_jp")
    assert not codecs.encode("x", "utf-32").startswith(b"x")


@pytest.mark.parametrize("encoding", ["hz", "utf-7"])
def test_encodings_whose_bytes_are_all_ascii(tmp_path, encoding):
    rows = [("水泵必须停止", "检查水泵是否停止", 1), ("门打开了 ok", "测试门的状态", 2)]
    path = tmp_path / "p.csv"
    path.write_bytes(table(rows).encode(encoding))
    assert read(path)[:2] == (rows, {})
    assert "taken for" in str(PairFile.open(path))


def test_ascii_that_resembles_shifts_stays(tmp_path):
    rows = [("call +AddItem now", "C++ and ~{a} ~} b", 1), ("type +RemoveAll", "see +49170123", 2)]
    assert read(write(tmp_path / "p.csv", table(rows)))[:2] == (rows, {})


def test_hundreds_of_thousands_of_columns_are_refused_at_once(tmp_path):
    text = ",".join(map(str, range(100_000))) + "\n" + ",".join(["1"] * 100_000) + "\n"
    assert "100,000 columns; a table has at most 16,384" in refused(write(tmp_path / "p.csv", text))


def test_a_column_without_a_name_is_asked_for_its_name_which_then_helps(tmp_path):
    rows = [("a dog", "a cat", 1, "checked twice"), ("a man", "a boy", 2, "by hand")]
    bad = read(write(tmp_path / "p.csv", table(rows)))[1]
    assert all("a column without a name? Give it one in the first row" in what for what in bad.values())
    assert read(write(tmp_path / "p.csv", table(rows, HEADER + ",note")))[0] == [row[:3] for row in rows]


def test_text_that_was_read_in_a_wrong_encoding_is_found(tmp_path):
    good = "Le café est fermé à l'été, coût 5 €; 문은 잠긴다"
    path = write(tmp_path / "p.csv", f'{HEADER}\n"{good}",b,1\nCafé du matin,"{good}",2\nCafÃ© fermÃ©,c,3\n')
    assert [chunk.remarks for chunk in PairFile.open(path).chunks()] == [[(4, "mojibake", "CafÃ© fermÃ©")]]


def test_many_combining_marks_are_refused_at_once(tmp_path):
    marks = "a" + "\u0301\u0323" * 40_000
    accents = "e\u0301" * 900
    rows, bad, _ = read(write(tmp_path / "p.csv", f"{HEADER}\n{marks},b,1\na b,{accents},2\n"))
    assert (len(rows), bad) == (1, {2: "column sentence1: over 500 combining marks in a row"})


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_column_names_between_the_rows_are_left_out_and_said(tmp_path, tiny_folder, mark):
    text = table([("a b", "c d", "ja"), ("e f", "g h", "nein")]) + mark + table([("i j", "k l", "ja")])
    path = write(tmp_path / "p.csv", text)
    assert read(path) == ([("a b", "c d", 1), ("e f", "g h", 0), ("i j", "k l", 1)], {}, [2, 3, 5])
    found = prepare({"train": str(path)}, load_tokenizer(tiny_folder), 32, "", (None, None), tmp_path, False).findings
    assert [(row.name, row.severity, row.count, row.lines) for row in found][:1] == [("repeated-header", "warning", 1, [4])]


# --- columns by content ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [("1", "501"), ("REQ-1", "T-9"), ("4.2.1", "7.1")])
def test_identifiers_are_not_taken_for_sentences(tmp_path, ids):
    lines = [
        f"{ids[0]}{number},the door stops {number},{ids[1]}{number},look at it {number},{number % 2}" for number in range(9)
    ]
    path = write(tmp_path / "p.csv", table([], "Requirement,Requirement text,Test,Test text,label") + "\n".join(lines))
    message = refused(path)
    assert "column 'Requirement' and 'Test': numbers or identifiers and no sentences" in message
    assert "text in 'Requirement text' and 'Test text'" in message
    declared = "sentence1=Requirement text,sentence2=Test text,label=label"
    assert read(path, declared)[0][1] == ("the door stops 1", "look at it 1", 1)
    assert len(read(path, "sentence1=Requirement,sentence2=Test,label=label")[0]) == 9  # as asked


def test_counts_and_constants_are_no_labels(tmp_path):
    lines = [f"{number},2012,{number % 3},the door stops {number},look at it {number}" for number in range(12)]
    assert [row[2] for row in read(write(tmp_path / "p.csv", "\n".join(lines)))[0]] == [number % 3 for number in range(12)]


def test_the_code_of_a_line_end_is_no_word(tmp_path, tiny_folder):
    lines = [f"the door_x000D_ stops {row}_x000D__x000A_,look at it {row},{row % 6}" for row in range(12)]
    path = write(tmp_path / "p.csv", "\n".join(["sentence1,sentence2,score", *lines, "a _x0041_,b,1"]))
    assert [row[0] for row in read(path)[0]] == [*(f"the door  stops {row} " for row in range(12)), "a _x0041_"]
    found = prepare({"train": str(path)}, load_tokenizer(tiny_folder), 64, "", (0, 5), tmp_path, progress=False).findings
    assert [(row.severity, row.count) for row in found if row.name == "line-end-code"] == [("warning", 12)]


def test_tables_written_here_are_read_as_they_were_and_texts_in_apostrophes_stay(tmp_path):
    """Whatever a spreadsheet made of the file: other delimiters, no byte-order mark, a workbook."""
    texts = [
        "-5 °C is cold",
        "=SUM is a name",
        "it isn't; -5 is",
        "@home, it's here",
        "'tis so",
        "+",
        "a\n-b",
        "'-' is a minus",
    ]
    rows = [(text, f"look at it {row}", row % 6) for row, text in enumerate(texts)]
    with new_csv(tmp_path / "p.csv") as output:
        output.rows([("sentence1", "sentence2", "score", "cosine"), *((*row, 0.5) for row in rows)])
    assert read(tmp_path / "p.csv")[0] == rows
    cells = list(csv.reader(io.StringIO((tmp_path / "p.csv").read_text("utf-8-sig"), newline="")))
    assert cells[1][0] == "'-5 °C is cold"
    with open(tmp_path / "q.csv", "w", newline="") as file:
        csv.writer(file, delimiter=";").writerows(cells)
    assert read(tmp_path / "q.csv")[0] == rows
    assert read_texts(tmp_path / "q.csv", "sentence1").texts == texts
    book = openpyxl.Workbook()
    for row in cells:
        book.active.append(row)
    book.save(tmp_path / "p.xlsx")
    assert read(tmp_path / "p.xlsx")[0] == rows
    foreign = ["'-' is a minus", "'=", "'a' is a letter", "'tis - so"]  # in a table of others
    path = write(tmp_path / "f.csv", "sentence1,sentence2,score\n" + "".join(f"{text},b,1\n" for text in foreign))
    assert [row[0] for row in read(path)[0]] == foreign


def test_columns_of_few_codes_are_no_sentences(tmp_path):
    """Also where only some rows have them, as in the STS benchmark's own file."""
    lines = [f"main-news\tMSRvid\t2012\t{row}\t{row % 6}\tthe door stops {row}\tlook at it {row}" for row in range(30)]
    lines = [line + "\tx\tz" * (row % 3 == 0) for row, line in enumerate(lines)]
    assert read(write(tmp_path / "p.csv", "\n".join(lines)))[0][1] == ("the door stops 1", "look at it 1", 1)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.jsonl", json.dumps({"query": "a b", "pos": ["c d"], "neg": ["e f", "g h"], "label": 1}) + "\n", "'neg'"),
        (
            "p.csv",
            "Requirement,T1,T2,T3,T4\n" + "".join(f"the door {n} stops,{'x' * (n % 2)},,x,\n" for n in range(12)),
            "a matrix",
        ),
        ("p.jsonl", json.dumps({"query": "a b", "pos": ["c d", "x", "y"], "neg": ["e f"]}) + "\n", "pos holds lists"),
        ("p.csv", "Text,Score\na b [SEP] c d,0.5\n", "holds both sentences, '[SEP]' between them"),
        ("p.csv", "Text,Score\n" + "the door stops / look at it,1\na dog / a cat,0\n" * 3, "one column of text, Text"),
        (
            "p.json",
            json.dumps(
                [
                    {
                        "id": 1,
                        "annotations": [{"result": [{"value": {"choices": ["same"]}}]}],
                        "data": {"text1": "a b", "text2": "c d"},
                    }
                ]
                * 3
            ),
            "Label Studio's full export",
        ),
    ],
)
def test_other_shapes_say_what_can_be_done(tmp_path, name, content, said):
    message = refused(write(tmp_path / name, content))
    assert said in message
    assert "say which: --columns" not in message.replace("in a file that has all three, say which", "")


def test_the_column_that_may_hold_labels_in_words_is_the_one_that_repeats_them(tmp_path):
    """And neither a number of the row nor an identifier; the known words of the example come in their order."""
    words = ["superb", "none", "fair"]
    lines = [f"R-{row},The door {row} stops.,Look at it {row}.,{words[row % 3]}" for row in range(12)]
    path = write(tmp_path / "p.csv", "\n".join(["Nr,Anforderung,Pruefung,Guete", *lines]))
    said = refused(path)
    assert "if column 4 ('superb', 'none', 'fair') holds labels in words" in said
    assert "--columns sentence1=2,sentence2=3,label=4 --label-map" in said
    bad = next(iter(PairFile.open(path, "sentence1=2,sentence2=3,label=4").chunks())).bad
    assert '--label-map "none=0,superb=0.5,fair=1"' in help_with_words(row.what for row in bad)


def test_labels_in_words_without_a_header_are_declared_and_no_row_is_lost(tmp_path):
    words = ["weak", "strong", "fair"]
    lines = [f"the door {number} stops,look at it {number},{words[number % 3]}" for number in range(12)]
    path = write(tmp_path / "p.csv", "\n".join(lines))
    assert "--columns sentence1=1,sentence2=2,label=3" in refused(path)
    file = PairFile.open(path, "sentence1=1,sentence2=2,label=3", label_map="weak=0,fair=0.5,strong=1")
    assert [chunk.label.tolist() for chunk in file.chunks()] == [[0, 1, 0.5] * 4]
