"""report.html of every kind of run: its parts, its figures, what it may not hold, and in headless Chromium how it shows."""

from __future__ import annotations

import html
import json
import re
import shutil
import signal
import sys
from html.parser import HTMLParser

import pandas as pd
import pytest
import torch
from transformers import BertModel

import bertFineTuningWithConnectionData as driver
from connection.evaluation.calibration import fit_calibration
from connection.reports import html_report
from connection.reports.plots import PLOTS, points_of, shown_of
from connection.reports.run_files import Run, read_run, without_folders
from connection.reports.svg import MISSING, write_plots
from connection.reports.telling_pairs import newly_right, word_shares, worst
from connection.reports.verdict import judge
from connection.system.paths import ROOT
from tests.conftest import (
    MANY,
    binary,
    drawn_inline,
    run_inside,
    signal_in_step,
    tiny_config,
    train_and_test,
    write_bert,
    write_pairs,
)
from tests.search.chromium import chromium  # noqa: F401
from tools import report

PARTS = ["verdict", "pairs", "predictions", "cosines", "weak-spots", "training", "data", "use", "all"]
HOSTILE = [
    "</script><script>document.title='owned'</script>", "<img src=x onerror=alert(1)>", "]]></svg><i>", "{{ 7*7 }} {% if %}",
    "$\\frac{1}{0}$", "한국어 \u202e מימין", "=HYPERLINK(1)", "a\u2028b & c", "https://example.org/x", "\x1b[2J \"'",
]  # fmt: skip
VOID = {"meta", "br", "path", "use", "rect"}


@pytest.fixture(scope="module", autouse=True)
def pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html_report, "draw_inline", drawn_inline)
        patch.setattr(html_report, "word_shares", word_shares)
        yield


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A folder with a tiny model in it."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    write_bert(folder / "tiny", BertModel(tiny_config()).eval())
    return folder


@pytest.fixture(scope="module")
def graded(there):
    train_and_test(there / "tiny", there / "graded", MANY, "--cache-dir", there / "cache", "--log-steps", 1)
    return there / "graded"


@pytest.fixture(scope="module")
def two_labels(there):
    train_and_test(there / "tiny", there / "binary", binary(MANY), "--cache-dir", there / "cache")
    return there / "binary"


@pytest.fixture(scope="module")
def no_dev(there):
    files = [write_pairs(there / name, rows) for name, rows in (("a.csv", MANY[:40]), ("b.csv", MANY[70:]))]
    shown = run_inside(driver.main, "--model-dir", there / "tiny", "--train-file", files[0], "--test-file", files[1],
                       "--epochs", 1, "--max-length", 32, "--output-dir", there / "no-dev",
                       "--cache-dir", there / "cache")  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    return there / "no-dev"


@pytest.fixture(scope="module")
def interrupted(there):
    file = write_pairs(there / "c.csv", MANY)
    with pytest.MonkeyPatch.context() as patch:
        signal_in_step(patch, 3, signal.SIGINT)
        shown = run_inside(driver.main, "--model-dir", there / "tiny", "--train-file", file, "--dev-fraction", "0.2",
                           "--max-length", 32, "--output-dir", there / "interrupted", "--log-steps", 1)  # fmt: skip
    assert shown.returncode == 130, shown.stderr
    return there / "interrupted"


@pytest.fixture(scope="module")
def seeds(there):
    with pytest.MonkeyPatch.context() as patch:  # drawn once, in the end
        patch.setattr(html_report, "draw_inline", lambda *words: {})
        train_and_test(there / "tiny", there / "seeds", MANY, "--seeds", 3, "--cache-dir", there / "cache")
    build(there / "seeds")
    return there / "seeds"


@pytest.fixture(scope="module")
def hostile(there, graded):
    """A run whose texts, paths and settings are those of an attacker."""
    folder = there / "<b>한국어 & co"
    shutil.copytree(graded, folder)
    table = pd.read_csv(folder / "errors.csv", dtype=str, keep_default_na=False)
    for place in range(len(table)):
        table.loc[place, ["sentence1", "sentence2"]] = HOSTILE[place % 10], HOSTILE[-place % 10]
    table.to_csv(folder / "errors.csv", index=False)
    settings = json.loads((folder / "settings.json").read_text())
    settings |= {
        "model_dir": "/home/someone/<script>m",
        "train_file": "C:\\Users\\someone\\<i>.csv",
        "<u>": "<script>",
        "given": ["loss"],
    }
    settings |= {"loss": "<script>", "versions": {"<i>": "</style>"}, "platform": "/srv/secret/<i>"}
    (folder / "settings.json").write_text(json.dumps(settings))
    finding = {"name": "<i>", "file": "/home/someone/<i>.csv", "count": 2, "lines": [1, 2], "example": HOSTILE[0]}
    finding |= {"severity": "error", "effect": "<i>", "remedy": "see /home/someone/notes/<i>.csv"}
    (folder / "audit.json").write_text(json.dumps({"findings": [finding]}))
    build(folder)
    return folder


def build(*runs, flags=()):
    shown = run_inside(report.main, *runs, *flags)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def page_of(run) -> str:
    return (run / "report.html").read_text("utf-8")


class Outline(HTMLParser):
    """Headings, ids, tags and their attributes, and whether each element ends where it should."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.open, self.headings = [], [], []  # type: ignore[var-annotated]
        self.feed(page)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID - {"path", "use", "rect"}:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("kind", ["graded", "two_labels", "no_dev", "interrupted", "seeds", "hostile"])
def test_every_kind_of_run_has_a_whole_page_that_loads_nothing(kind, request):
    run = request.getfixturevalue(kind)
    page = page_of(run)
    assert len(page) < 500_000
    outline = Outline(page)
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(outline.headings, outline.headings[1:], strict=False))
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = [part for part in PARTS if kind != "interrupted" or part not in ("predictions", "cosines", "weak-spots")]
    assert [name for name in ids if name in PARTS] == wanted
    pictures = [attributes for tag, attributes in outline.tags if tag == "svg"]
    assert len(pictures) >= (2 if kind == "interrupted" else 6)
    assert all(picture["role"] == "img" and len(picture["aria-label"]) > 30 for picture in pictures)
    assert not {tag for tag, _ in outline.tags} & {"script", "img", "link", "iframe", "image", "object", "i"}
    links = [value for _, attributes in outline.tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)
    assert "default-src 'none'; style-src 'unsafe-inline'" in page
    for secret in (str(ROOT), str(run.parent), "someone", "/srv"):
        assert secret not in page
    assert "<title>" in page.split("<style>")[0]


def test_the_tile_and_the_verdict_say_what_came_of_it(graded, interrupted, no_dev):
    results = json.loads((graded / "results.json").read_text())
    assert '<section class="tile ' + judge(read_run(graded)).kind in page_of(graded)
    base, final = (100 * results[when]["test"]["spearman"] for when in ("base", "final"))
    assert f"the model has {final:.0f} of 100 points" in page_of(graded)
    assert f"before fine-tuning it had {base:.0f}." in page_of(graded)
    assert '<section class="tile interrupted"' in page_of(interrupted)
    assert "--resume" in page_of(interrupted)


@pytest.mark.parametrize(
    ("gain", "kind", "word"),
    [
        ({"spearman": 0.2, "low": 0.1, "high": 0.3, "p": 0.001}, "worked", "hardly chance"),
        ({"spearman": -0.2, "low": -0.3, "high": -0.1, "p": 0.001}, "worse", "hardly chance"),
        ({"spearman": 0.2, "low": -0.1, "high": 0.4, "p": 0.2}, "chance", "Nobody can tell yet"),
        ({"spearman": 0.2, "low": None, "high": None, "p": None}, "unmeasured", "too few"),
        (None, "unmeasured", "No test pairs"),
    ],
)
def test_the_verdict_follows_the_interval(graded, gain, kind, word):
    run = read_run(graded)
    run.results["gain"] = {"test": gain} if gain else {}
    verdict = judge(run)
    assert verdict.kind == kind
    assert word in verdict.sentences
    assert "which it was not trained on" in verdict.sentences or kind == "unmeasured"


def test_the_verdict_does_not_hide_test_pairs_that_were_trained_on(graded):
    run = read_run(graded)
    run.results["gain"] = {"test": {"spearman": 0.2, "low": 0.1, "high": 0.3, "p": 0.001}}
    run.findings = [
        {"name": "leaked-pair", "file": "/x/graded-test.csv", "count": 7},
        {"name": "leaked-pair", "file": "dev", "count": 9},
    ]
    assert "(7 of them trained on too, which makes this too high)" in judge(run).sentences
    assert "not trained on" not in judge(run).sentences


@pytest.mark.parametrize(
    ("dev", "test", "asked"),
    [
        ("/x/dev/graded-test.csv", "/x/test/graded-test.csv", "test/graded-test.csv"),
        ("C:\\x\\dev\\graded-test.csv", "C:\\x\\test\\graded-test.csv", "test\\graded-test.csv"),
        ("/x/graded-test.csv", "/x/graded-test.csv", "graded-test.csv"),  # one file for both: the same pairs twice
    ],
)
def test_leaks_of_dev_pairs_are_not_counted_as_test_pairs(graded, dev, test, asked):
    run = read_run(graded)
    run.settings["test_file"] = asked
    run.results["gain"] = {"test": {"spearman": 0.2, "low": 0.1, "high": 0.3, "p": 0.001}}
    run.findings = [
        {"name": "leaked-pair", "file": dev, "count": 7 if dev == test else 9},
        {"name": "leaked-pair", "file": test, "count": 7},
        {"name": "shared-sentence", "file": test, "count": 3},
    ]
    assert "(7 of them trained on too, which makes this too high)" in judge(run).sentences


def test_the_predicted_labels_of_both_models_are_those_of_the_run(graded, two_labels):
    run = read_run(graded)
    errors = pd.read_csv(graded / "errors.csv", encoding="utf-8-sig")
    for split, table in run.pairs.items():
        of_split = errors[errors["split"] == split].sort_values("line")
        assert table["line"].tolist() == of_split["line"].tolist()
        assert table["after"].tolist() == pytest.approx(of_split["predicted"].tolist(), abs=2e-6)
    results = json.loads((graded / "results.json").read_text())
    for when, model in (("before", "base"), ("after", "final")):
        error = (run.pairs["test"][when] - run.pairs["test"]["label"]).abs().mean()
        assert error == pytest.approx(results[model]["test"]["graded"]["mean_absolute_error"], abs=1e-5)
    run = read_run(two_labels)
    results = json.loads((two_labels / "results.json").read_text())
    for when, model in (("before", "base"), ("after", "final")):
        right = (run.pairs["test"][f"called_{when}"] == run.pairs["test"]["label"]).mean()
        assert right == pytest.approx(results[model]["test"]["binary"]["accuracy"])
    page = page_of(two_labels)
    cells = [int(cell) for cell in re.findall(r'class="(?:right|wrong)"[^>]*><b>(\d+)</b>', page)]
    test = run.pairs["test"]
    assert cells == [int(((test["label"] == a) & (test["called_after"] == b)).sum()) for a in (1, 0) for b in (1, 0)]
    assert sum(cells) == 30


def table_of(*rows):
    return pd.DataFrame(rows, columns=["label", "before", "after"])


def test_pairs_that_are_right_now_and_the_worst(graded):
    run = read_run(graded)  # labels 0 to 5: right is within 0.5
    table = table_of((4, 1, 3.5), (4, 3.6, 4), (4, 0, 3.4), (0, 4, 0.2), (1, 5, 5), (2, 2, 2))
    assert newly_right(table, run).tolist() == [3, 0]
    assert worst(table).tolist()[:2] == [4, 2]
    assert len(worst(pd.concat([table] * 5))) == 10


def test_the_pairs_on_the_page_have_their_texts_and_word_shares(graded):
    page, run = page_of(graded), read_run(graded)
    test = run.pairs["test"]
    assert html.escape(MANY[70 + int(test["line"].iloc[worst(test)[0]]) - 2][0].split()[-1]) in page
    shares = re.findall(r'<span class="word (?:plus|minus)" style="--strength:([\d.]+)"><bdi>', page)
    assert len(shares) > 100
    assert max(map(float, shares)) == 0.55
    assert "[SEP]" in page
    assert len(re.findall(r"<title>[^<]* sees [^<]*\n[^<]*\nlabel [\d.]+, predicted", page)) == 30  # a point for each pair


def test_without_its_model_or_matplotlib_the_page_says_so_and_has_the_rest(graded, tmp_path, monkeypatch):
    shutil.copytree(graded, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    build(tmp_path / "run")
    page = page_of(tmp_path / "run")
    assert "The words have no shares: the run&#39;s model/ is not here." in page
    assert page.count(MISSING) == 1
    assert "<svg" not in page
    assert [name for name in PARTS if f'id="{name}"' in page] == ["verdict", "pairs", "training", "data", "use", "all"]
    refused = run_inside(report.main, tmp_path / "run", "--plots", tmp_path / "plots")
    assert refused.returncode == 1
    assert MISSING in refused.stderr


def test_all_seeds_are_in_the_plots(seeds):
    run = read_run(seeds)
    shown = shown_of([run])
    assert [one.faint for one in shown] == [True, True, False]
    assert len({one.run.results["seed"] for one in shown}) == 3
    from matplotlib.figure import Figure

    lines = {}
    for name in ("cosines", "calibration", "training", "predicted"):
        figures = [Figure(), Figure()]
        for figure, part in zip(figures, (shown, shown[-1:]), strict=True):
            assert PLOTS[name](figure, part)
        many, one = ([len(axes.lines) for axes in figure.axes] for figure in figures)
        lines[name] = [a - b for a, b in zip(many, one, strict=True)]
    assert lines == {"cosines": [2], "calibration": [2], "training": [2, 2], "predicted": [2]}
    assert "the best on dev of 3 seeds" in page_of(seeds)


def test_several_runs_side_by_side(graded, seeds, two_labels, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(graded, other)
    table = pd.read_csv(other / "predictions.csv", dtype={"pair": str})
    table["final"] = table["label"] / 5
    table.to_csv(other / "predictions.csv", index=False)
    settings = json.loads((other / "settings.json").read_text())
    (other / "settings.json").write_text(json.dumps(settings | {"batch_size": 999}))
    shown = build(graded, other, flags=["-o", tmp_path / "both.html", "--plots", tmp_path / "plots"])
    page = (tmp_path / "both.html").read_text("utf-8")
    Outline(page)
    assert "2 runs side by side" in page
    found = re.search(r"other gained ([\d.]+) \+- [\d.]+ points of Spearman x 100 against graded on the 30 test pairs", page)
    results = json.loads((graded / "results.json").read_text())
    assert found
    assert float(found[1]) == pytest.approx(100 - 100 * results["final"]["test"]["spearman"], abs=0.06)
    assert re.search(r'<tr><th scope="row">batch_size</th><td>\d+</td><td>999</td></tr>', page)
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert names == {f"{name}.{form}" for name in PLOTS if name != "precision-recall" for form in ("png", "svg")}
    assert (tmp_path / "plots" / "gain.png").read_bytes().startswith(b"\x89PNG")
    assert "side-by-side" not in shown
    build(graded, two_labels, flags=["-o", tmp_path / "odd.html"])  # the labels differ
    assert "binary and graded were not tested on the same pairs" in (tmp_path / "odd.html").read_text("utf-8")


def test_a_large_test_file_is_drawn_by_a_sample(graded):
    run = read_run(graded)
    many = pd.concat([run.pairs["test"]] * 100, ignore_index=True)
    places = points_of(many)
    assert len(set(places.tolist())) == 2_000
    assert points_of(many.iloc[:2_000]).tolist() == list(range(2_000))


def test_korean_names_are_text_in_the_plots(graded, tmp_path):
    runs = []
    for name in ("한국어 실행", "$x$ <b>"):
        shutil.copytree(graded, tmp_path / name)
        runs.append(read_run(tmp_path / name))
    written = write_plots(tmp_path / "plots", shown_of(runs))
    picture = (tmp_path / "plots" / "gain.svg").read_text("utf-8")
    assert ">한국어 실행</text>" in picture
    assert "$x$ &lt;b&gt;" in picture
    assert len(written) == 14


def test_paths_are_names_alone(graded):
    run: Run = read_run(graded)
    told = without_folders(
        {
            str(ROOT / "data" / "x.csv"): "1",
            "a": ["/home/someone/a/b.csv", "C:\\Users\\me\\b.csv", "data/a.csv", "1/2", 3, None],
            "b": f"line 3 of {run.folder}/x.csv and of /srv/a/y.csv; see https://example.org/a/b",
        },
        run,
    )
    assert told == {
        "data/x.csv": "1",
        "a": ["b.csv", "b.csv", "data/a.csv", "1/2", 3, None],
        "b": f"line 3 of {run.name}/x.csv and of y.csv; see https://example.org/a/b",
    }


def test_what_is_no_run_or_damaged_is_refused(graded, tmp_path, monkeypatch):
    monkeypatch.setattr(html_report, "word_shares", lambda *words: ({}, ""))
    refused = {
        "has no settings.json": [tmp_path],
        "given twice": [graded, graded],
        "should be a file": [graded, "-o", tmp_path],
        "end its name in .html": [graded, "-o", tmp_path / "x.pdf"],
        "RUN": [],
    }
    for said, words in refused.items():
        shown = run_inside(report.main, *words)
        assert shown.returncode == 2, words
        assert said in shown.stderr
    results = json.loads((graded / "results.json").read_text())
    crafted = [
        {"slices": 5},
        {"splits": {"train": 3}},
        {"epoch_figures": 5},
        {"steps": "<b>"},
        {"gain": {"test": {"low": []}}},
    ]
    for wrong in crafted:
        folder = tmp_path / "wrong"
        shutil.copytree(graded, folder, dirs_exist_ok=True)
        (folder / "results.json").write_text(json.dumps(results | wrong))
        shown = run_inside(report.main, folder)
        assert shown.returncode in (0, 2), wrong
        assert "Traceback" not in shown.stderr


def test_the_calibration_is_the_models_own(graded):
    run = read_run(graded)
    dev = run.pairs["dev"]
    assert run.calibrations["final"] == fit_calibration(dev["final"].to_numpy(), dev["label"].to_numpy(), run.scale)


@pytest.mark.parametrize("kind", ["graded", "two_labels", "interrupted", "hostile"])
def test_in_chromium_nothing_runs_loads_or_is_cut_off(kind, request, chromium):  # noqa: F811
    run = request.getfixturevalue(kind)
    for width in (360, 700, 1200):
        chromium.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
        chromium.events.clear()
        chromium.open(run / "report.html")
        assert chromium.value("document.documentElement.scrollWidth") <= width
    odd = [event for event in chromium.events if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")]
    requests = [
        event["params"]["request"]["url"] for event in chromium.events if event.get("method") == "Network.requestWillBeSent"
    ]
    assert not odd
    assert all(url.startswith("file:") and url.endswith("report.html") for url in requests)
    assert "owned" not in chromium.value("document.title")
    sizes = chromium.value("[...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height)")
    assert min(sizes) > 8
    for mode in ("light", "dark"):
        chromium.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": mode}])
        weak = chromium.value(CONTRAST)
        assert not weak, weak
    chromium.call("Emulation.setEmulatedMedia", features=[])


# Texts whose contrast with the page is below WCAG's 4.5 : 1; of texts in pictures too.
CONTRAST = """(() => {
  const light = (css) => { const [r, g, b] = css.match(/[\\d.]+/g).map(Number).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const back = light(getComputedStyle(document.body).backgroundColor), found = [];
  for (const part of document.querySelectorAll('p, h1, h2, h3, td, th, strong, figcaption, caption, svg text')) {
    const style = getComputedStyle(part), fore = light(part.closest('svg') ? style.fill : style.color);
    const contrast = (Math.max(fore, back) + 0.05) / (Math.min(fore, back) + 0.05);
    if (contrast < 4.5) found.push(part.textContent.slice(0, 30) + ' ' + contrast.toFixed(2)); }
  return found; })()"""
