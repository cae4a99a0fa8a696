"""Names that people give to the columns of sentences and labels. A name tells less than a column's content: see `columns`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

# Compared in their plain form, see `plain_name`. These are certain.
SENTENCES = (
    ("sentence1", "sentence2"),
    ("sentencea", "sentenceb"),
    ("sent1", "sent2"),
    ("senta", "sentb"),
    ("text1", "text2"),
    ("texta", "textb"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("string1", "string2"),
    ("#1string", "#2string"),
    ("query", "passage"),
    ("query", "document"),
    ("qtext", "atext"),
    ("question", "answer"),
    ("requirement", "test"),
)
LABELS = (
    "score", "label", "labels", "similarity", "similarityscore", "relatednessscore", "relatedness", "relevance", "isduplicate",
    "quality", "goldscore", "goldlabel", "rating",
)  # fmt: skip

# These count where there is no certain one, and where the columns hold text, or labels.
PAIRS = (
    ("anchor", "positive"), ("source", "target"), ("text", "textpair"), ("sentence", "sentencepair"), ("query", "answer"),
    ("query", "doc"), ("query", "text"), ("question", "passage"), ("question", "document"), ("question", "context"),
    ("claim", "evidence"), ("reference", "candidate"), ("original", "paraphrase"), ("requirement", "testcase"),
    ("requirements", "tests"), ("req", "test"), ("anforderung", "test"), ("anforderung", "testfall"), ("frage", "antwort"),
    ("question", "réponse"), ("pregunta", "respuesta"), ("prämisse", "hypothese"), ("요구사항", "테스트"), ("질문", "답변"),
    ("要件", "テスト"), ("質問", "回答"), ("要求", "测试"), ("问题", "答案"), ("前提", "仮説"),
)  # fmt: skip
# What tells two names apart that are alike otherwise: Satz 1 and Satz 2, left_name and right_name, text and text.1.
SIDES = (
    ("1", "2"), ("0", "1"), ("a", "b"), ("l", "r"), ("x", "y"), ("left", "right"), ("first", "second"), ("one", "two"),
    ("source", "target"), ("src", "tgt"), ("object", "target"), ("from", "to"),
    ("erster", "zweiter"), ("première", "deuxième"), ("первое", "второе"),
    ("primera", "segunda"), ("prima", "seconda"), ("primeira", "segunda"), ("가", "나"), ("甲", "乙"), ("一", "二"),
)  # fmt: skip
REPEATED = ("", "1", "2")  # behind the second of two equal names, by hand or by pandas
LABEL_WORDS = set(
    """score scores label labels similarity relatedness relevance rating ratings gold class target y judgment judgement grade
    sim duplicate paraphrase match matched connected linked related similar bewertung ähnlichkeit aehnlichkeit punkte punktzahl
    similarité étiquette similitud puntuación etiqueta similarità punteggio etichetta similaridade pontuação rótulo ocena
    podobieństwo etykieta gelijkenis benzerlik etiket puan сходство схожесть оценка метка 유사도 점수 라벨 레이블 평점
    類似度 スコア ラベル 評価 得点 相似度 标签 標籤 分数 分數 得分 评分 評分""".split()
)
LABEL_QUALIFIERS = set(
    """is are how they these two the sentences texts mean avg average median human final overall semantic sts expert answer
    consensus manual of""".split()
)
OF_LABEL = "(?:labels?|scores?|ratings?|similarity|relatedness|gold)"
ANNOTATOR = re.compile(
    rf"{OF_LABEL}?(?:by|of)?(?:annotator|rater|coder|judge|expert|reviewer|evaluator|assessor|labell?er|worker|person|"
    rf"bewerter|gutachter|annotateur|evaluador|평가자|評価者|标注者)s?(?:id)?[#]?(?:\d{{1,3}}|[a-rt-z]){OF_LABEL}?"
    rf"|{OF_LABEL}[#]?(?:\d{{1,3}}|[a-rt-z])"
)  # in plain form; an s at the end is of a plural
SHOWN = 30  # names in a message
WORD = re.compile(r"[^\W\d_]+")
HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")  # in isDuplicate
REMARK = re.compile(r"\s*[(\[\uff08][^)\]\uff09]*[)\]\uff09]\s*$")  # Similarity (0-5)


def visible(name: str) -> str:
    """Returns a name without byte-order marks, zero-width and other invisible characters."""
    return name if name.isascii() else "".join(letter for letter in name if unicodedata.category(letter) != "Cf")


def plain(name: str) -> str:
    """Returns a name in lower case without spaces, hyphens, underscores and dots."""
    return re.sub(r"[\s_.-]+", "", unicodedata.normalize("NFKC", name).lower())


def plain_name(name: str) -> str:
    """Returns the form in which names are compared with known ones: `plain`, without a remark in brackets at the end."""
    return plain(REMARK.sub("", name) or name)


def places_named(asked: str, names: Sequence[str], plain: Callable[[str], str]) -> list[int]:
    """Returns the places of the columns of a name, of the same plain name if none has it, or of a 1-based number."""
    found = [place for place, name in enumerate(names) if name == asked]
    found = found or [place for place, name in enumerate(names) if plain(name) == plain(asked)]
    numbered = asked.isascii() and asked.isdecimal() and 1 <= int(asked) <= len(names)
    return found or ([int(asked) - 1] if numbered else [])


def listed(names: Sequence[str]) -> str:
    """Returns the numbered names of columns for a message."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"{place} {name!r:.40}" for place, name in enumerate(names[:SHOWN], 1)) + more


def sentence_places(names: Sequence[str], texts: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the places of each pair of columns that names say hold the sentences.

    names: in plain form; texts: places of the columns that hold text, among which pairs that are not certain are looked for.
    """
    certain = [(names.index(one), names.index(two)) for one, two in SENTENCES if one in names and two in names]
    return certain or [
        (first, second)
        for first in texts
        for second in texts
        if first != second and names[first] and _is_pair(names[first], names[second], first < second)
    ]


def _is_pair(one: str, two: str, ordered: bool) -> bool:
    if (one, two) in PAIRS:
        return True
    if ordered and any(two == one + mark for mark in REPEATED):
        return True
    for first, second in SIDES:
        ends = len(first) == 1 and first.isalpha()  # one letter tells sides apart at the ends of a name alone
        for found in re.finditer(re.escape(first), one):
            at_end = found.start() == 0 or found.end() == len(one)
            if (at_end or not ends) and one[: found.start()] + second + one[found.end() :] == two:
                return True
    return False


def label_places(names: Sequence[str], written: Sequence[str], texts: Sequence[int]) -> list[int]:
    """Returns the places of the columns whose names say that they hold the label.

    names: in plain form; written: as they are; texts: places of the columns that hold text, which may not be labels.
    """
    certain = [place for place, name in enumerate(names) if name in LABELS]
    return certain or [place for place, name in enumerate(written) if place not in texts and _is_label_name(name)]


def annotator_places(names: Sequence[str]) -> list[int]:
    """Returns the places of the columns whose names say that each holds the labels of one annotator: rater_a, label 2.

    names: in plain form.
    """
    places = [place for place, name in enumerate(names) if ANNOTATOR.fullmatch(name)]
    return places if len(places) > 1 else []


def _is_label_name(name: str) -> bool:
    words = {word.lower() for word in WORD.findall(HUMP.sub(" ", unicodedata.normalize("NFKC", REMARK.sub("", name))))}
    return bool(words & LABEL_WORDS) and words <= LABEL_WORDS | LABEL_QUALIFIERS
