"""Prompts: texts that stand before the first and before the second sentences, such as "query: " and "passage: ".

Their names in config_sentence_transformers.json are those that sentence-transformers' encode_query and encode_document take.
"""

from __future__ import annotations

from collections.abc import Mapping

from connection.system.errors import InputError

LONGEST_PROMPT = 10_000  # characters
FIRST, SECOND = "query", ("document", "passage", "corpus")  # names of the prompts of first and of second sentences


def side_prompts(prompts: Mapping[str, str], default: str) -> tuple[str, str]:
    """Returns the prompts of first and of second sentences, by the prompts of a folder and the text of its default prompt.

    They are those named "query" and "document". A default prompt stands before all, unless both of these are there.
    sentence-transformers' encode_document is documented to take "passage" or "corpus" where there is no "document"; but it has
    always an empty one, and never does. An empty one counts as none here.
    """
    first = prompts.get(FIRST, "")
    second = next((prompts[name] for name in SECOND if prompts.get(name)), "")
    return (default, default) if default and not (first and second) else (first, second)


def with_side_prompts(prompts: Mapping[str, str], first: str, second: str) -> dict[str, str]:
    """Returns prompts by name of which these are the ones of first and of second sentences; the others stay."""
    others = {name: text for name, text in prompts.items() if name not in (FIRST, *SECOND)}
    return others | {FIRST: first, SECOND[0]: second}


def check_prompt(prompt: str) -> None:
    """Raises `InputError` for what can't stand before a text."""
    if len(prompt) > LONGEST_PROMPT:
        raise InputError(f"a prompt of {len(prompt):,} characters; {LONGEST_PROMPT:,} are the most")
    if any("\ud800" <= letter <= "\udfff" for letter in prompt):
        raise InputError("a prompt with bytes that are not UTF-8")
    if not prompt.isascii():
        from connection.data.row_texts import too_many_marks  # late: it needs libraries, and flags are refused without them

        if too_many_marks(prompt):
            raise InputError("a prompt with hundreds of combining marks in a row")
