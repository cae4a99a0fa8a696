"""Words and notations that people label pairs with, and their numbers: 0 is no connection, 1 is full connection."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping

from connection.system.errors import InputError

# Read in any mixture, in one column with 0 and 1 too.
WORDS = {
    "yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0, "duplicate": 1.0, "not duplicate": 0.0, "not": 0.0, "not_duplicate": 0.0,
    "y": 1.0, "n": 0.0, "match": 1.0, "no match": 0.0,
}  # fmt: skip
# Connected, not connected; "|" separates spellings. A pair is read if all words of the column belong to it.
PAIRS = (
    ("match|matched|matching", "non match|nonmatch|no match|not match|not matched|mismatch|unmatched"),
    ("relevant", "irrelevant|not relevant|non relevant|nonrelevant"), ("related", "unrelated|not related|non related"),
    ("similar", "dissimilar|not similar"), ("same", "different|not same"), ("equivalent", "not equivalent|non equivalent"),
    ("paraphrase", "not paraphrase|non paraphrase|no paraphrase"), ("entailment", "not entailment|non entailment"),
    ("connected", "not connected|unconnected|disconnected"), ("link|linked", "no link|not linked|unlinked"),
    ("covered", "not covered|uncovered"), ("duplicate", "non duplicate|nonduplicate|not duplicate"), ("agree", "disagree"),
    ("positive|pos", "negative|neg"), ("correct", "incorrect|not correct"), ("valid", "invalid|not valid"),
    ("accept|accepted", "reject|rejected"), ("t", "f"),
    ("j", "n"), ("ja", "nein"), ("wahr", "falsch"), ("oui", "non"), ("vrai", "faux"), ("sí|si|sì", "no"),
    ("verdadero", "falso"), ("vero", "falso"), ("sim", "não|nao"), ("verdadeiro", "falso"), ("ja", "nee"), ("waar", "onwaar"),
    ("ja", "nej"), ("ja", "nei"), ("tak", "nie"), ("prawda", "fałsz"), ("ano", "ne"), ("áno", "nie"), ("да", "нет"),
    ("истина", "ложь"), ("так", "ні"), ("да", "не"), ("da", "ne"), ("da", "nu"), ("igen", "nem"), ("igaz", "hamis"),
    ("kyllä", "ei"), ("ναι", "όχι"), ("evet", "hay\u0131r"), ("doğru", "yanl\u0131ş"), ("نعم", "لا"), ("כן", "לא"),  # noqa: RUF001
    ("हाँ|हां", "नहीं"), ("ใช่", "ไม่ใช่"), ("có", "không"), ("ya", "tidak|bukan"), ("예|네", "아니오|아니요"),
    ("참", "거짓"), ("관련 있음|관련있음", "관련 없음|관련없음"), ("일치", "불일치"), ("유사|유사함", "비유사|유사하지 않음"),
    ("있음", "없음"), ("はい", "いいえ"), ("あり|有り", "なし|無し"), ("関連あり", "関連なし"), ("類似", "非類似"),
    ("一致", "不一致"), ("真", "偽"), ("真", "假"), ("是", "否|不是"), ("对", "错"), ("相关|相關", "不相关|不相關|无关|無關"),
    ("相似", "不相似"), ("匹配", "不匹配"), ("o|○|◯|\u2b55", "x|×|❌"), ("✓|✔|☑|✅|\u2714\ufe0f", "✗|✘|✖|❌|☒|\u2716\ufe0f"),  # noqa: RUF001
    ("👍", "👎"), ("☑", "☐"), ("good", "bad"),
)  # fmt: skip
# From no connection to full connection, evenly spaced.
ORDERS = (
    ("low", "medium", "high"), ("low", "moderate", "high"), ("very low", "low", "medium|moderate", "high", "very high"),
    ("niedrig", "mittel", "hoch"), ("gering", "mittel", "hoch"), ("faible", "moyen", "élevé"), ("bajo", "medio", "alto"),
    ("basso", "medio", "alto"), ("낮음", "중간", "높음"), ("하", "중", "상"), ("低", "中", "高"), ("none", "partial", "full"),
    ("none", "weak", "strong"), ("none", "weak", "moderate|medium", "strong"), ("weak", "moderate|medium", "strong"),
    ("none", "low", "medium|moderate", "high"), ("keine|kein", "schwach", "stark"), ("schwach", "mittel", "stark"),
    ("keine|kein", "schwach", "mittel", "stark"), ("aucun|aucune", "faible", "moyen|moyenne", "fort|forte"),
    ("irrelevant", "partial", "exact"), ("no", "partial|partially|partly", "yes"),
    ("nein", "teilweise", "ja"), ("non", "partiel|partiellement", "oui"),
    ("unrelated|not related", "partially related|somewhat related|partly related", "related|fully related"),
    ("irrelevant|not relevant", "partially relevant|somewhat relevant", "relevant|highly relevant"),
    ("not covered", "partially covered|partly covered", "covered|fully covered"), ("×|x", "△", "○|◯|o"),  # noqa: RUF001
    ("strongly disagree", "disagree", "neutral|neither agree nor disagree|undecided", "agree", "strongly agree"),
    *((f"not at all {word}", f"slightly {word}", f"moderately {word}|somewhat {word}", f"very {word}", f"extremely {word}")
      for word in ("similar", "related", "relevant")),
)  # fmt: skip
PAIRS_SHOWN = 22  # in a message: English, German, French
LONGEST_WORD = 100  # characters of a label
LETTERS = "fedcba"  # school marks; read if both a and f are there, for F is the mark that says which end is good
NO_LABEL = {"?", "??", "-", "--", "n/a", "na", "#n/a", "nan", "null", "#null!", ".", "unknown", "unlabeled", "unlabelled",
            "tbd", "todo"}  # fmt: skip
SHAPES = ("★☆", "⭐", "*")  # of stars; an empty one of the first kind counts among those that there could be
PERCENT = re.compile(r"([+-]?\d+(?:[.,]\d+)?)\s*[%\u066a]")
OUT_OF = re.compile(r"(\d+(?:[.,]\d+)?)\s*(?:/|of|out of|von|sur|de|su)\s*([1-9]\d*)")
NUMBER = r"[+-]?\d+(?:\.\d+)?"
SPELLED = (  # a number and its meaning: 5 - same; 5. same; 5 (same); (5) same; same (5); same: 5
    re.compile(rf"(?P<number>{NUMBER})\s*(?:[-\u2013\u2014:=.)]\s*|\()(?P<word>\D+?)\)?"),
    re.compile(rf"\((?P<number>{NUMBER})\)\s*(?P<word>\D+)"),
    re.compile(r"(?P<word>\D+?)\s*(?:[-\u2013\u2014:=]\s*|\()(?P<number>\d+(?:\.\d+)?)\)?"),
)
AFFIXED = re.compile(r"(\D*?(?:\d+\()?)([+-]?\d+(?:\.\d*)?)(\D*)")  # one text around all: Level 3, 3 points, np.float64(3.0)


def plain_word(cell: str) -> str:
    """Returns the form in which words are compared: NFC, case-folded, with single spaces for hyphens and underscores."""
    if len(cell) > LONGEST_WORD:  # putting thousands of accents in order takes minutes
        return cell
    word = " ".join(unicodedata.normalize("NFC", cell).casefold().replace("_", " ").replace("-", " ").split())
    return word or cell.strip()


def _groups() -> list[tuple[dict[str, float], bool]]:
    pairs = [{word: number for number, words in ((1.0, one), (0.0, two)) for word in words.split("|")} for one, two in PAIRS]
    orders = [
        {word: place / (len(order) - 1) for place, words in enumerate(order) for word in words.split("|")} for order in ORDERS
    ]
    plain = {plain_word(word): number for word, number in WORDS.items()}
    return [(plain, True), *((pair, True) for pair in pairs), *((order, False) for order in orders)]


GROUPS = _groups()
KNOWN = {word for group, _ in GROUPS for word in group if len(word) > 1 or not word.isascii()}


def numbers_of(words: Iterable[str], among_numbers: bool) -> dict[str, float]:
    """Returns the number of each word, if all of them belong to one known pair or order; else {}.

    among_numbers: the column also has numbers, which graded words can't be compared with.
    """
    plain = {word: plain_word(word) for word in words}
    seen = set(plain.values())
    for group, binary in GROUPS:
        ends = len(set(group.values())) <= 3 or {0, 1} <= {group.get(word) for word in seen}  # "very high" needs "very low"
        if seen <= group.keys() and ends and (binary or not among_numbers) and seen != {"x"}:  # x alone often means yes
            return {word: group[form] for word, form in plain.items()}
    if {"a", "f"} < seen <= set(LETTERS) and not among_numbers:
        return {word: LETTERS.index(form) / 5 for word, form in plain.items()}
    return {}


def notation_of(cells: Iterable[str], low: float, high: float) -> dict[str, float]:
    """Returns the number of each cell, if all are percentages, all `3/5`, all stars, all a number and its meaning, or all a
    number within one same text; else {}.

    On a scale low..high that does not end at 1, the numbers are those of that scale: 20% is 20 on a scale to 100, and 3/5 is 3
    on a scale to 5. Without a scale (infinite ends), and on one that ends at 1, they are fractions: 0.2 and 0.6.
    """
    cells = list(cells)
    top = max(low, high)
    parts = [PERCENT.fullmatch(cell) for cell in cells]
    of_whole = [(_number(part[1]), 100.0) for part in parts if part]
    if len(of_whole) < len(cells):
        matches = [OUT_OF.fullmatch(cell) for cell in cells]
        of_whole = [(_number(match[1]), float(match[2])) for match in matches if match]
    if len(of_whole) == len(cells) and len({whole for _, whole in of_whole}) == 1:
        whole = of_whole[0][1]
        if all(abs(part) <= whole for part, _ in of_whole) and (top in (1, math.inf) or top == whole):
            return {cell: part if top == whole else part / whole for cell, (part, _) in zip(cells, of_whole, strict=True)}
        return {}
    for shape in SHAPES:
        bare = {cell: "".join(cell.split()).replace("\ufe0f", "") for cell in cells}
        if all(stars and not set(stars) - set(shape) for stars in bare.values()):
            totals = {len(stars) for stars in bare.values()}
            empty = any(shape[-1] in stars for stars in bare.values()) and len(shape) > 1
            return {} if empty and len(totals) > 1 else {cell: float(stars.count(shape[0])) for cell, stars in bare.items()}
    for pattern in SPELLED:
        spelled = [match for cell in cells if (match := pattern.fullmatch(cell))]
        meanings = {(match["number"], plain_word(match["word"])) for match in spelled}
        if len(spelled) == len(cells) and all(len({pair[part] for pair in meanings}) == len(meanings) for part in (0, 1)):
            return {match[0]: float(match["number"]) for match in spelled}
    affixed = [match for cell in cells if (match := AFFIXED.fullmatch(cell))]
    if len(affixed) == len(cells) > 1 and len({(match[1], match[3]) for match in affixed}) == 1:
        return {match[0]: float(match[2]) for match in affixed}
    return {}


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def looks_like_label(cell: str) -> bool:
    """Returns whether a cell is a known word or in a known notation."""
    text = cell.strip()
    if len(text) > LONGEST_WORD:
        return False
    return (
        plain_word(text) in KNOWN
        or bool(PERCENT.fullmatch(text) or OUT_OF.fullmatch(text))
        or not set(text) - set("★☆⭐\ufe0f")
    )


def parse_label_map(text: str) -> dict[str, float]:
    """Parses `low=0,medium=0.5,high=1`. Raises `InputError` that names the part that is wrong."""
    found: dict[str, float] = {}
    for item in text.split(",") if text.strip() else []:
        word, equals, number = item.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not equals or not word.strip() or not math.isfinite(value) or "_" in number:
            raise InputError(f'{item.strip()!r} is not WORD=NUMBER; write --label-map "low=0,medium=0.5,high=1"')
        if plain_word(word) in found:
            raise InputError(f"{word.strip()!r} stands twice")
        found[plain_word(word)] = value
    return found


NOT_A_NUMBER = re.compile(r"'([^']{1,40})' is not a number(?:$|; column )")
NLI = {"contradiction": 0.0, "neutral": 0.5, "entailment": 1.0}


def help_with_words(problems: Iterable[str]) -> str:
    """Returns which words are known and how to declare others, if a problem is about a word; else ""."""
    words = list(dict.fromkeys(match[1] for problem in problems for match in NOT_A_NUMBER.finditer(problem)))
    if not words:
        return ""
    if {plain_word(word) for word in words} <= NLI.keys():
        example = ",".join(f"{word}={number:g}" for word, number in NLI.items())
    else:
        usual = {word: number for group, _ in reversed(GROUPS) for word, number in group.items()}
        shown = [word for word in words if "," not in word and "=" not in word][:8] or ["WORD"]
        shown.sort(key=lambda word: usual.get(plain_word(word), 0.5))  # weak before strong
        example = ",".join(f"{word}={place / max(1, len(shown) - 1):.3g}" for place, word in enumerate(shown))
    return (
        "labels are numbers, or words if the whole column is of one known kind: "
        + f"{known_words()}. Others need --label-map with the number of each word, such as --label-map {_quoted(example)}"
    )


def _quoted(text: str) -> str:
    return f'"{text}"' if not set(text) & set('"$`\\!') else f"'{text}'"


def known_words() -> str:
    """Returns the known words for messages."""
    pairs = ["yes/no", "true/false", *("/".join(words.split("|")[0] for words in pair) for pair in PAIRS[:PAIRS_SHOWN])]
    orders = ["/".join(words.split("|")[0] for words in order) for order in ORDERS[:1]]
    return ", ".join([*pairs, f"{len(PAIRS) - PAIRS_SHOWN} pairs of other languages", *orders, "A to F, 20%, 3/5, ★★★"])


def described(numbers: Mapping[str, float]) -> str:
    """Returns words or notations with their numbers for messages, the lowest first."""
    ordered = sorted(numbers.items(), key=lambda item: item[1])
    shown = ordered if len(ordered) <= 8 else [*ordered[:4], *ordered[-3:]]
    return ", ".join(f"{cell} = {number:g}" for cell, number in shown)
