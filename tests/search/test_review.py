"""The page on which a person decides: what is in the file, and in headless Chromium what its keys do and what it saves."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from connection.data.pair_file import PairFile
from connection.search.known_links import KnownLinks, named_rows, read_known
from connection.search.link_tables import LinkedLists
from connection.search.linking import Candidates, Links
from connection.search.review import write_review
from connection.search.texts import Texts
from connection.system.csv_output import new_csv
from tests.search.chromium import Chromium, chromium, saved  # noqa: F401

HOSTILE = [
    "</script><script>document.title='owned'</script>", "<!--<script>", "<!--DATA--><!--POLICY-->", "=HYPERLINK(1)",
    'a "quoted", text\nof two lines', "steps:\n- one", "a\u2028b\u2029c\u0000d\ud800e", "한국어 \u202e מימין", "x" * 100_000,
    "<img src=x onerror=alert(1)>",
]  # fmt: skip


def texts_of(name, texts, letter) -> Texts:
    ids = [f"{letter}{row}" for row in range(len(texts))]
    return Texts(texts, list(range(2, 2 + len(texts))), ids, {}, Path(name), "text")


def lists_of(one, two, cosines, known=((), ())) -> LinkedLists:
    """Every pair of two lists as a candidate, in the lists' order; connected from cosine 0.5 on."""
    n, m = cosines.shape
    a, b = np.repeat(np.arange(n), m), np.tile(np.arange(m), n)
    rank = (np.argsort(np.argsort(-cosines, axis=1), axis=1) + 1).ravel()
    candidates = Candidates(a, b, cosines.astype(np.float32).ravel(), rank)
    found = Links(candidates, candidates.cosine >= 0.5, (candidates[rank == 1], candidates[:0]), None)
    links = KnownLinks(np.array(known[0], np.int64), np.array(known[1], np.int64), [])
    return LinkedLists(texts_of("<reqs>.csv", one, "R"), texts_of("tests.csv", two, "T"), found, 5 * cosines.ravel(), links)


COSINES = np.random.default_rng(0).uniform(0, 1, (10, 10))


@pytest.fixture
def hostile_page(tmp_path):
    write_review(tmp_path / "review.html", lists_of(HOSTILE, HOSTILE[::-1], COSINES), (0, 5), 0.5, "about </script>")
    return tmp_path / "review.html"


def content_of(page: Path) -> dict:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), flags=re.S)
    return json.loads(data)


def test_the_page_holds_every_text_as_data_and_none_as_markup(hostile_page):
    content = content_of(hostile_page)
    assert [side["texts"] for side in content["sides"]] == [HOSTILE, HOSTILE[::-1]]
    page = hostile_page.read_text("utf-8")
    assert page.count("<script") == 2 + page.split('id="data">')[1].split("</script>")[0].count("<script")
    assert "<" not in page.split('id="data">')[1].split("</script>")[0]
    assert not re.search("[\u2028\u2029]", page)
    assert content["grades"] == [0, 1, 2, 3, 4, 5]


def test_the_page_loads_nothing_and_runs_its_own_script_alone(hostile_page):
    page = re.sub(r'(?<=id="data">).*?(?=</script>)', "", hostile_page.read_text("utf-8"), flags=re.S)
    assert not re.search(r"https?:|\bsrc=|\bhref=|@import|url\(|fetch\(|XMLHttpRequest|innerHTML|eval\(", page)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    for name in ("style", "script"):
        (block,) = re.findall(rf"<{name}>(.*?)</{name}>", page, flags=re.S)
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")


@pytest.mark.parametrize(
    ("labels", "low", "high", "grades"),
    [(None, 0, 1, []), ((0, 1), 0, 1, []), ((6, 1), 6, 1, [1, 2, 3, 4, 5, 6]), ((0, 100), 0, 100, []), ((-1, 1), -1, 1, []),
     ((0.5, 3), 0.5, 3, [])],
)  # fmt: skip
def test_decisions_are_labels_on_the_models_scale(tmp_path, labels, low, high, grades):
    write_review(tmp_path / "page.html", lists_of(["a"], ["b"], np.ones((1, 1))), labels, None, "")
    content = content_of(tmp_path / "page.html")
    assert (content["low"], content["high"], content["grades"]) == (low, high, grades)
    assert content["save_as"] == "page-decisions.csv"


def test_the_same_candidates_are_the_same_page_to_the_browsers_memory(tmp_path):
    digests = []
    for texts in (["a", "b"], ["a", "b"], ["a", "c"]):
        write_review(tmp_path / "page.html", lists_of(texts, ["x", "y"], np.eye(2)), (0, 1), None, "")
        digests.append(content_of(tmp_path / "page.html")["digest"])
    assert digests[0] == digests[1] != digests[2]


def test_negative_cosines_stay_numbers_and_hostile_texts_no_formulas(tmp_path):
    lists = lists_of(HOSTILE, HOSTILE, COSINES - 1)
    for name, rows in (("links.csv", lists.candidate_rows), ("uncovered.csv", lists.uncovered_rows)):
        with new_csv(tmp_path / name) as output:
            output.rows(rows())
    with open(tmp_path / "links.csv", encoding="utf-8-sig", newline="") as file:
        links = list(csv.DictReader(file))
    np.testing.assert_allclose([float(row["cosine"]) for row in links], (COSINES - 1).ravel(), atol=1e-4)
    assert links[0]["cosine"].startswith("-0.")
    assert not [row for row in links if row["sentence1"].startswith(tuple("=+-@\t\r"))]
    with open(tmp_path / "uncovered.csv", encoding="utf-8-sig", newline="") as file:
        uncovered = list(csv.DictReader(file))
    assert len(uncovered) == 20
    assert float(uncovered[0]["cosine of the best"]) == pytest.approx((COSINES - 1)[0].max(), abs=1e-4)


def shown(browser: Chromium) -> list[str]:
    """Ids of the candidates that the page shows."""
    return browser.value("[...document.querySelectorAll('#list li .ids')].map((place) => place.textContent)")


def counts(browser: Chromium) -> str:
    return browser.value("document.getElementById('counts').textContent")


def troubles(browser: Chromium) -> list[str]:
    """Errors of the script, refusals of the policy, and requests for anything but the page."""
    return [
        event["method"]
        for event in browser.events
        if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")
        or (event["method"] == "Network.requestWillBeSent" and event["params"]["request"]["url"].split(":")[0] != "file")
    ]


def test_in_chromium_the_keys_decide_undo_and_save_what_the_training_takes(chromium, hostile_page):  # noqa: F811
    chromium.events.clear()
    chromium.open(hostile_page)
    assert chromium.value("document.title") == "Review: <reqs>.csv and tests.csv"
    assert counts(chromium) == "0 accepted, 0 rejected, 100 undecided of 100; 100 shown."
    assert shown(chromium)[:2] == ["R0 ↔ T0", "R0 ↔ T1"]
    chromium.press("a", "r", "3", "2", "a", "u")  # the last one is taken back
    assert counts(chromium) == "2 accepted, 2 rejected, 96 undecided of 100; 100 shown."
    chromium.press("k", "c")  # the fourth, cleared
    assert counts(chromium) == "2 accepted, 1 rejected, 97 undecided of 100; 100 shown."
    chromium.press("j", "ArrowDown", "a")  # the sixth
    chromium.press("n", "r", "p")  # R5 ↔ T0, on the second page
    chromium.press("j", "j", "j", "j", "j", "j", "j", "a")  # R0 ↔ T7
    assert troubles(chromium) == []
    file = saved(chromium, hostile_page)
    rows = [("R0", "T0", "5"), ("R0", "T1", "0"), ("R0", "T2", "3"), ("R0", "T5", "5"), ("R0", "T7", "5"), ("R5", "T0", "0")]
    with open(file, encoding="utf-8-sig", newline="") as stream:
        found = list(csv.reader(stream))
    assert found[0] == ["sentence1", "sentence2", "label", "id1", "id2"]
    assert [(id1, id2, label) for _, _, label, id1, id2 in found[1:]] == rows
    assert all(not cell.startswith(tuple("=+-@\t\r")) for row in found for cell in row)
    (chunk,) = PairFile.open(file).chunks()  # as the training command reads it
    assert not chunk.bad
    assert chunk.label.tolist() == [5, 0, 3, 5, 5, 0]
    ids = named_rows([f"R{row}" for row in range(10)], HOSTILE), named_rows([f"T{row}" for row in range(10)], HOSTILE[::-1])
    known = read_known([file], *ids, 10, (0, 5))
    assert known.links.tolist() == [0, 2, 5, 7]
    assert known.others.tolist() == [1, 50]
    with open(file, encoding="utf-8-sig", newline="") as stream, open(file.with_name("texts.csv"), "w", newline="") as other:
        csv.writer(other).writerows([row[:2] for row in csv.reader(stream)])
    assert read_known([file.with_name("texts.csv")], *ids, 10, None).links.tolist() == [0, 1, 2, 5, 7, 50]  # texts as well


def test_in_chromium_a_page_without_candidates_says_so(chromium, tmp_path):  # noqa: F811
    write_review(tmp_path / "empty.html", lists_of([], [], np.zeros((0, 0))), None, None, "about")
    chromium.events.clear()
    chromium.open(tmp_path / "empty.html")
    chromium.press("a", "u", "j", "n", "s")
    assert chromium.value("document.getElementById('none').hidden") is False
    assert counts(chromium) == "0 accepted, 0 rejected, 0 undecided of 0; 0 shown."
    assert troubles(chromium) == []


def test_in_chromium_decisions_are_remembered_filtered_and_sorted(chromium, tmp_path):  # noqa: F811
    page = tmp_path / "links.html"
    texts = [f"requirement {row}" for row in range(20)]
    cosines = np.random.default_rng(1).permutation(2000).reshape(20, 100) / 2000
    write_review(page, lists_of(texts, [f"test {row}" for row in range(100)], cosines, ([5], [6])), (0, 1), 0.5, "about")
    chromium.open(page)
    chromium.press("a", "r", "r")
    chromium.reload()
    assert counts(chromium).startswith("1 accepted, 2 rejected, 1997 undecided")
    assert chromium.value("document.querySelector('[aria-current=true] .ids').textContent") == "R0 ↔ T3"
    choose = "(() => {{ const choice = document.getElementById('{}'); choice.value = '{}'; " \
             "choice.dispatchEvent(new Event('change')); }})()"  # fmt: skip
    for state, number in (("rejected", 2), ("accepted", 1), ("undecided", 1997), ("connected", 1000), ("other", 1000),
                          ("new", 1998), ("all", 2000)):  # fmt: skip
        chromium.value(choose.format("show", state))
        assert counts(chromium).endswith(f" {number} shown."), state
    chromium.value(choose.format("order", "high"))
    order = np.argsort(-cosines.ravel())
    assert shown(chromium) == [f"R{pair // 100} ↔ T{pair % 100}" for pair in order[:50]]
    chromium.value(choose.format("order", "unsure"))
    assert {f"R{pair // 100} ↔ T{pair % 100}" for pair in np.argsort(np.abs(cosines.ravel() - 0.5))[:3]} == set(
        shown(chromium)[:3]
    )
    chromium.press("/", *"requirement 17", "Escape")
    assert counts(chromium).endswith(" 100 shown.")
    assert chromium.value("document.activeElement.tagName") == "LI"
    chromium.value("document.getElementById('letters').click()")
    chromium.press("a")
    assert counts(chromium).startswith("1 accepted, 2 rejected")  # letter keys are off
    assert troubles(chromium) == []


def test_in_chromium_every_control_has_a_name_and_works_on_a_phone_in_both_themes(chromium, tmp_path):  # noqa: F811
    page = tmp_path / "review.html"
    write_review(page, lists_of(HOSTILE, HOSTILE, COSINES), (0, 5), 0.5, "about")
    chromium.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    chromium.open(page)
    chromium.call("Accessibility.enable")
    nodes = chromium.call("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in nodes if node.get("role", {}).get("value") in
                ("button", "searchbox", "combobox", "checkbox", "progressbar")]  # fmt: skip
    assert len(controls) > 100
    assert all(node["name"]["value"].strip() for node in controls)
    assert chromium.value("document.documentElement.scrollWidth") <= 360  # nothing is cut at the side
    assert chromium.value("Math.min(...[...document.querySelectorAll('button')].map((one) => one.offsetHeight))") >= 24
    chromium.value("document.querySelector('#list .yes').click()")
    assert counts(chromium).startswith("1 accepted")
    contrast = """(() => {
      const light = (color) => { const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
        .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const of = (name) => { const style = getComputedStyle(document.querySelector(name)); return light(style.color); };
      const on = (name) => light(getComputedStyle(document.querySelector(name)).backgroundColor);
      return [["body", "body"], ["li .facts", "li.undecided"], ["li.accepted .state", "li.accepted"],
        ["li.accepted .facts", "li.accepted"], ["button", "button"]].map(([text, back]) => {
          const [one, two] = [of(text), on(back)].sort((a, b) => b - a); return (one + 0.05) / (two + 0.05); }); })()"""
    for theme in ("light", "dark"):
        chromium.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        assert min(chromium.value(contrast)) >= 4.5, theme  # WCAG 2.2, 1.4.3
    chromium.call("Emulation.clearDeviceMetricsOverride")
