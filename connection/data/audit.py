"""Audits pair files before training: each file on its own, and training files against held-out files.

Texts are compared by the hash of their plain form (connection/data/text_hashes.py). The audit reads the arrays of a PairStore
in slices of rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from ftfy import fix_encoding

from connection.data.agreement import LOW_ALPHA
from connection.data.findings import ROW_FINDINGS, Finding, findings_json
from connection.data.label_words import help_with_words
from connection.data.labels import DECLARED, NO_LABELS, TRIPLETS, LabelScale
from connection.data.pair_store import PairStore
from connection.data.text_hashes import equal_groups, hash_texts, pair_keys, row_slices
from connection.system.sealed_files import read_sealed, write_sealed

FEW_BAD = 0.05  # fraction of the rows; leaving out more of them changes what the rest says
LOW = 0.5  # fraction of the label scale; identical sentences with a lower label are doubtful
CUT_SHARE = 0.01
ONE_LABEL_SHARE = 0.6
UNKNOWN_SHARE = 0.05  # fraction of the tokens
PIECES_PER_WORD = 3.0  # with an English vocabulary, English has about 1.2 and Korean more than 5
DATE = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])?")  # 20230131, 202301
RESOLUTION = 0.01  # of the scale: the least difference of labels that must survive
NULL_WORDS = ("nan", "none", "null", "n/a", "#n/a", "<na>", "\\n", "#null!")  # in plain form: words for a missing value
DRIFT = 0.15  # Kolmogorov-Smirnov statistic
MOST_BYTES = 64 << 20  # of one file's findings, which hold only the first lines of each


def audit(
    stores: Mapping[str, PairStore],
    scale: LabelScale,
    held_out: LabelScale | None = None,
    others: Mapping[str, LabelScale] | None = None,
) -> list[Finding]:
    """Returns all findings, errors first. `stores` has "train" and, if they exist, "train-2" ..., "dev" and "test".

    held_out: the scale of dev and test, where it is not that of the (first) training file. others: the scales of the other
    training files.
    """
    findings: list[Finding] = []
    scales = {"train": scale, **(others or {})}
    for split, store in stores.items():
        findings += _within(store, scales.get(split, held_out or scale))
        if split in scales:
            for name in [*scales][: [*scales].index(split)]:
                findings += find_repeats(stores[name], scales[name], store, scales[split])
            continue
        findings += find_overlap([stores[name] for name in scales], store, "leaked-pair", "shared-sentence")
        if not (held_out or scale).is_retrieval:
            findings += _labels_of_held_out(store, stores["train"], drift=not scale.is_retrieval)
    if "dev" in stores and "test" in stores:
        findings += find_overlap([stores["dev"]], stores["test"], "dev-test-pair", "dev-test-sentence")
    return sorted(findings, key=lambda finding: finding.severity)  # "error" sorts before "warning"


def _within(store: PairStore, scale: LabelScale) -> list[Finding]:
    """Returns the findings in one file. For a cached store they are cached too, beside its arrays."""
    if store.folder is None:
        return list(_look_within(store, scale))
    kind = f"-{scale.kind}" * scale.is_retrieval
    file = store.folder / f"findings-{scale.low!r}-{scale.high!r}{'-declared' * (scale.how == DECLARED)}{kind}"
    known = read_sealed(file, MOST_BYTES)
    if known is None:
        known = json.dumps(findings_json(_look_within(store, scale))).encode()
        write_sealed(file, known)
    return [Finding(**row | {"file": str(store.path)}) for row in json.loads(known)]


def _look_within(store: PairStore, scale: LabelScale) -> Iterator[Finding]:
    file = str(store.path)
    for name in ROW_FINDINGS:
        if first := store.bad.of(name):
            what = "; ".join(row.what for row in first[:3])
            known = help_with_words(row.what for row in first)
            what += f". {known[0].upper()}{known[1:]}" if known else ""
            yield Finding.of(name, file, [row.line for row in first], what, store.bad.counts[name])
    for name, remarks in store.remarks.items():
        text = remarks[0].text
        what = {
            "swallowed-rows": "a cell spans lines that look like rows themselves",
            "mojibake": f"UTF-8 read as another encoding before, e.g. {text!r:.80}; it may be {fix_encoding(text)!r:.80}",
            "repeated-header": "the column names once more: these rows are left out",
            "line-end-code": "_x000D_, Excel's code for a line end, is read as a space",
        }[name]
        yield Finding.of(name, file, [remark.line for remark in remarks], what, store.remark_counts[name])
    if not len(store):
        yield Finding.of("no-rows", file, [], "no row is left that can be trained on")
        return
    few_left = len(store.bad) > FEW_BAD * (len(store) + len(store.bad))
    if len(store.labels) == 1 and few_left and scale.how != NO_LABELS:
        what = f"without {len(store.bad):,} bad rows, all {len(store):,} pairs are labelled {store.labels[0]:g}"
        yield Finding.of("one-label-left", file, [], what)
    if scale.how != DECLARED and (codes := missing_codes(store.written)):
        means = store.ratings is not None  # of several annotators: they don't show in which rows the codes are
        rows = np.flatnonzero(np.isin(store.label, np.array([] if means else codes, np.float32)))
        others = [label for label in store.written if label not in codes]
        ends = f"{others[0]:g} to {others[-1]:g}: --label-min {others[0]:g} --label-max {others[-1]:g}"
        turned = f", the other way round if less is nearer: --label-min {others[-1]:g} --label-max {others[0]:g}"
        code = ", ".join(f"{code:g}" for code in codes) + " of an annotator (leave such cells blank)" * means
        what = f"{code} may stand for a missing label; if the scale is {ends}"
        yield Finding.of("missing-code", file, store.line[rows], what + turned * (codes == [-1]))
    if what := not_labels(store.written, scale):
        yield Finding.of("no-scale", file, [], what)
    yield from look_at_annotators(store)
    yield from find_duplicates(store, scale)
    low = scale.target(store.label) < LOW
    equal = [
        np.flatnonzero(low[row_slice] & (store.same[store.index1[row_slice]] == store.same[store.index2[row_slice]]))
        + row_slice.start
        for row_slice in row_slices(len(store))
    ]
    same = np.concatenate(equal)
    if len(same):
        yield Finding.of("identical-sides", file, store.line[same], f"e.g. labelled {store.label[same[0]]:g}")
    null = np.isin(store.hash, hash_texts(NULL_WORDS))
    if null.any():
        rows = np.flatnonzero(null[store.index1] | null[store.index2])
        yield Finding.of("null-word", file, store.line[rows], f"{len(rows):,} pairs have such a word in place of a sentence")
    first_cut, second_cut = store.cut()
    sides = [float(cut.mean()) for cut in (first_cut, second_cut)]
    if max(sides) > CUT_SHARE:
        rows = np.flatnonzero(first_cut | second_cut)
        shares = f"{100 * sides[0]:.1f}% of the first and {100 * sides[1]:.1f}% of the second sentences"
        yield Finding.of("cut-sentences", file, store.line[rows], f"{shares} are longer than {store.tokens.max_length} tokens")
    values, counts = np.unique(store.label, return_counts=True)
    if counts.max() > ONE_LABEL_SHARE * len(store) and len(store) > 1 and not scale.is_retrieval:
        what = f"{100 * counts.max() / len(store):.0f}% of the labels are {values[counts.argmax()]:g}"
        yield Finding.of("one-label", file, [], what)
    pieces = np.maximum(store.tokens.length - 2 - store.prompt_tokens, 0)
    several = store.words > 1  # a single word may be a number or an identifier, of many pieces in any language
    unknown = store.unknown.sum() / max(1, pieces.sum())
    per_word = pieces[several].sum() / max(1, store.words[several].sum())
    if unknown > UNKNOWN_SHARE or per_word > PIECES_PER_WORD:
        what = f"{100 * unknown:.1f}% of the tokens are [UNK], {per_word:.1f} pieces a word (English: about 1.2)"
        yield Finding.of("unknown-text", file, [], what)


def look_at_annotators(store: PairStore) -> Iterator[Finding]:
    """Yields what the agreement of several annotators says against their labels."""
    agreement = store.agreement
    if agreement and (turned := agreement.turned):
        what = f"{', '.join(turned)}; Spearman with the mean of the others: {agreement.each()}"
        yield Finding.of("reversed-annotator", str(store.path), [], what)
    elif agreement and agreement.alpha < LOW_ALPHA:
        what = f"Krippendorff's alpha {agreement.alpha:.2f}; Spearman with the mean of the others: {agreement.each()}"
        if agreement.of_two_scales:
            what += ". They put the pairs in the same order with other numbers: are all labels on one scale?"
        yield Finding.of("low-agreement", str(store.path), [], what)


def missing_codes(labels: list[float]) -> list[float]:
    """Returns the labels that are written for a missing one: 9, 99, -999, 88, where they stand further from the others than
    those from each other; and -1 below whole numbers from 0 to 2 or more, as in SNLI. labels: the distinct ones, ascending.
    """
    codes = [label for label in labels if label.is_integer() and re.fullmatch("-?(9+|8+)", f"{label:.0f}")]
    others = [label for label in labels if label not in codes]
    if len(others) < 2:
        return []
    reach = others[-1] - others[0]
    codes = [code for code in codes if code < others[0] - reach or code > others[-1] + reach]
    whole = all(label.is_integer() for label in others)
    return ([-1.0] if whole and others[:2] == [-1, 0] and others[-1] >= 2 else []) + codes


def not_labels(labels: list[float], scale: LabelScale) -> str:
    """Returns why the distinct labels of a file can't be a scale of connection: dates, or too large to be told apart; or ""."""
    largest = max(map(abs, labels), default=0.0)
    if np.spacing(np.float32(largest)) > RESOLUTION * abs(scale.high - scale.low):
        return f"{labels[0]:.0f} to {labels[-1]:.0f} can't be told apart in float32: are they dates or identifiers?"
    if scale.how != DECLARED and all(label.is_integer() and DATE.fullmatch(f"{label:.0f}") for label in labels):
        return f"{labels[0]:.0f} to {labels[-1]:.0f} look like dates; if they are labels, declare the scale"
    return ""


def _labels_of_held_out(store: PairStore, train: PairStore, drift: bool) -> Iterator[Finding]:
    values = np.unique(store.label)
    if len(values) < 2:
        what = f"all labels are {values[0]:g}" if len(values) else "there is no usable row"
        yield Finding.of("few-labels", str(store.path), [], what)
    elif len(train) and drift:
        grid = np.union1d(values, np.unique(train.label))
        shares = [np.searchsorted(np.sort(split.label), grid, side="right") / len(split) for split in (train, store)]
        statistic = float(np.abs(shares[0] - shares[1]).max())
        # The critical value of the two-sample statistic at significance 0.001: small files must not raise false alarms.
        chance = 1.95 * np.sqrt(1 / len(train) + 1 / len(store))
        if statistic > max(DRIFT, chance):
            means = f"mean label {store.label.mean():.2f}, in the training file {train.label.mean():.2f}"
            yield Finding.of("label-drift", str(store.path), [], f"Kolmogorov-Smirnov statistic {statistic:.2f}; {means}")


CONTRADICTION = 0.5  # fraction of the label scale; labels of the same pair that are further apart contradict each other


def _keys(store: PairStore, sentences: np.ndarray) -> np.ndarray:
    """Returns a key for each pair, (N,) uint64: equal for pairs of equal `sentences` (S,) uint64, in either order."""
    keys = np.empty(len(store), np.uint64)
    for row_slice in row_slices(len(store)):
        keys[row_slice] = pair_keys(sentences[store.index1[row_slice]], sentences[store.index2[row_slice]])
    return keys


def find_duplicates(store: PairStore, scale: LabelScale) -> Iterator[Finding]:
    """Yields duplicates, swapped duplicates and contradictions: they are pairs with equal keys."""
    keys = _keys(store, store.same)
    found: dict[str, list[np.ndarray]] = {"duplicate": [], "swapped-duplicate": [], "contradiction": []}
    example = ""
    for rows, new in equal_groups(keys):
        if new.all():
            continue
        starts = np.flatnonzero(new)
        group = np.cumsum(new) - 1
        label = store.label[rows]
        spread = np.maximum.reduceat(label, starts) - np.minimum.reduceat(label, starts)
        first = store.same[store.index1[rows]]
        swapped = ~new & (first != first[starts][group])
        clash = spread > CONTRADICTION * abs(scale.high - scale.low)
        found["duplicate"].append(rows[~new & ~swapped])
        found["swapped-duplicate"].append(rows[swapped])
        found["contradiction"].append(rows[clash[group]])
        if clash.any() and not example:
            lines = store.line[rows[group == np.flatnonzero(clash)[0]]]
            labels = store.label[rows[group == np.flatnonzero(clash)[0]]]
            example = "e.g. " + ", ".join(f"line {line}: {value:g}" for line, value in zip(lines[:3], labels[:3], strict=True))
    for name, places in found.items():
        if scale.kind == TRIPLETS and name != "contradiction":  # a row for each positive, or for each negative, of one anchor
            continue
        rows = np.sort(np.concatenate(places)) if places else np.zeros(0, np.int64)
        if len(rows):
            what = f"{example} (more than {100 * CONTRADICTION:.0f}% of the scale apart)" if name == "contradiction" else ""
            yield Finding.of(name, str(store.path), store.line[rows], what or f"{len(rows):,} pairs appear earlier in the file")


def find_repeats(before: PairStore, scale: LabelScale, store: PairStore, own: LabelScale) -> Iterator[Finding]:
    """Yields the pairs of a training file that are also in one before it, and those of them whose targets contradict.

    scale, own: the label scales of the file before and of this one, which need not be the same: targets are compared.
    """
    known, keys = _keys(before, before.hash), _keys(store, store.hash)
    common = _common(known, keys)  # ascending
    if not len(common):
        return
    there, rows = np.flatnonzero(np.isin(known, common)), np.flatnonzero(np.isin(keys, common))
    place, target = np.searchsorted(common, known[there]), scale.target(before.label[there])
    low, high = np.full(len(common), np.inf, np.float32), np.full(len(common), -np.inf, np.float32)
    np.minimum.at(low, place, target)
    np.maximum.at(high, place, target)
    place, target = np.searchsorted(common, keys[rows]), own.target(store.label[rows])
    clash = np.maximum(target - low[place], high[place] - target) > CONTRADICTION
    for name, found in (("contradiction", rows[clash]), ("duplicate", rows[~clash])):
        if len(found):
            same = there[known[there] == keys[found[0]]]
            far = same[np.abs(scale.target(before.label[same]) - own.target(store.label[found[:1]])).argmax()]
            labels = [f" ({label:g})" * (name == "contradiction") for label in (store.label[found[0]], before.label[far])]
            where = f"line {store.line[found[0]]}{labels[0]} is line {before.line[far]}{labels[1]} of {before.path}"
            yield Finding.of(name, str(store.path), store.line[found], f"e.g. {where}")


def find_overlap(others: Sequence[PairStore], held_out: PairStore, of_pairs: str, of_sentences: str) -> Iterator[Finding]:
    """Yields findings about pairs and sentences of `held_out` that are also in any of `others`, named `of_pairs` and
    `of_sentences`. A pair that is in several of them counts once."""
    common, shared, where = np.zeros(len(held_out), bool), np.zeros(len(held_out.hash), bool), ""
    files: list[str] = []  # that share sentences
    for store in others if len(held_out) else ():
        if not len(store):
            continue
        before = shared.copy()
        # By their texts, and by the tokens that the model sees of them: the key of that store's hashes is used for both.
        for known, of_held_out in ((store.hash, held_out.hash), (store.token_hash, held_out.token_hashes(store.key))):
            all_keys, keys = _keys(store, known), _keys(held_out, of_held_out)
            leaked = np.isin(keys, _common(all_keys, keys))
            if leaked.any() and not where:
                row = int(leaked.argmax())
                lines = store.line[all_keys == keys[row]][:3].tolist()
                where = f"line {held_out.line[row]} is line {', '.join(map(str, lines))} of {store.path}"
            common |= leaked
            shared |= np.isin(of_held_out, _common(known, of_held_out))
        files += [str(store.path)] * bool((shared & ~before).any())
    if common.any():
        yield Finding.of(of_pairs, str(held_out.path), held_out.line[common], f"e.g. {where}")
    rows = np.flatnonzero((shared[held_out.index1] | shared[held_out.index2]) & ~common)
    if len(rows):
        share = f"{100 * len(rows) / len(held_out):.1f}% of the pairs have a sentence that is also in {' or '.join(files)}"
        yield Finding.of(of_sentences, str(held_out.path), held_out.line[rows], share)


def _common(many: np.ndarray, few: np.ndarray) -> np.ndarray:
    """Returns the values of `few` that are in `many`. A table of the low bits rules out most of `many` without sorting."""
    bits = max(16, int(len(few) * 16).bit_length())
    mask = np.uint64((1 << min(bits, 30)) - 1)
    table = np.zeros(int(mask) + 1, bool)
    table[few & mask] = True
    candidates = [values[table[values & mask]] for values in np.array_split(many, max(1, len(many) // 1_000_000))]
    return np.intersect1d(few, np.concatenate(candidates))
