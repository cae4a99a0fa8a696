"""What a sentence-transformers folder says about texts and vectors: maximum length, lower case, prompts, cut vectors.

sentence_bert_config.json, beside the BERT, says what is done to a text; config_sentence_transformers.json, in the model
folder, has prompts, the name of the similarity and the length to which vectors are cut. Each entry is obeyed, kept for other
programs if it changes no vector of `encode()`, or refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from connection.data.prompts import FIRST, SECOND, check_prompt, side_prompts, with_side_prompts
from connection.model.checks.folder_entries import read_json
from connection.model.checks.model_folder import ModelFolder
from connection.system.errors import InputError

# The first that is there is read, as sentence-transformers does; the name does not depend on the encoder.
TEXT_FILES = tuple(
    f"sentence_{name}_config.json" for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
MODEL_FILE = "config_sentence_transformers.json"
NO_LIMIT = 1_000_000  # the library writes 10^30 as the maximum length of a tokenizer that has none
LEAST_LENGTH = 3  # [CLS], one token, [SEP]
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
LAST_STATES = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
# What may stand in an entry of keyword arguments: it concerns where and how fast the library computes.
HARMLESS = ("torch_dtype", "dtype", "attn_implementation", "add_pooling_layer", "device_map", "low_cpu_mem_usage",
            "use_safetensors", "use_fast", "local_files_only", "trust_remote_code", "revision", "use_cache")  # fmt: skip
ARGUMENTS = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")
LENGTHS = [(key, "model_max_length") for key in ("tokenizer_args", "processor_kwargs")]
KEPT = ("query_length", "document_length", "unpad_inputs")  # of calls that are not encode(), or of the speed alone


@dataclass(frozen=True)
class EncodingSettings:
    """The settings of a folder for texts and vectors. A plain BERT has the defaults.

    max_length: in tokens; None if the folder sets none. lower_case: texts are lower-cased before anything else. prompts: texts
    to put before a text, by name (connection/data/prompts.py). default_prompt_name: of the prompt that `encode()` uses.
    similarity: how the vectors are to be compared; it is kept for other programs, this project goes by the cosine.
    truncate_dim: vectors are cut to so many numbers. kept: entries of sentence_bert_config.json for other programs.
    requirements: versions that the folder asks for.
    """

    max_length: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str | None = None
    truncate_dim: int | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)
    requirements: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """The text that stands before each text; "" if there is none."""
        return "" if self.default_prompt_name is None else self.prompts.get(self.default_prompt_name, "")

    @property
    def sides(self) -> tuple[str, str]:
        """The prompts of first and of second sentences."""
        return side_prompts(self.prompts, self.prompt)

    def with_sides(self, first: str | None, second: str | None) -> EncodingSettings:
        """These settings with other prompts of first and of second sentences. None: as it is.

        If both are the same text, it is the default prompt too; else there is none.
        """
        if first is None and second is None:
            return self
        first, second = (own if given is None else given for given, own in zip((first, second), self.sides, strict=True))
        default = FIRST if first and first == second else None
        return replace(self, prompts=with_side_prompts(self.prompts, first, second), default_prompt_name=default)

    def remarks(self) -> list[str]:
        """Remarks for the user about settings that they might not expect."""
        remarks = []
        first, second = self.sides
        if first != second:
            places = [(first, "first sentence of a pair"), (second, "second one")]
            stands = [f"{prompt!r:.100} stands before each {where}" for prompt, where in places if prompt]
            remarks.append(f"the prompt {', and '.join(stands)}, in training too")
        elif first:
            remarks.append(f"the prompt {first!r:.100} stands before every text, in training too")
        if self.truncate_dim:
            remarks.append(f"vectors are cut to their first {self.truncate_dim} numbers, as the folder says (truncate_dim)")
        if self.similarity not in (None, "cosine"):
            remarks.append(
                f"the folder's similarity is {self.similarity}; the cosine is trained and measured here, and the name kept"
            )
        if self.requirements:
            remarks.append(
                f"{MODEL_FILE} asks for versions of {', '.join(map(repr, self.requirements)):.200}; they are not compared here"
            )
        return remarks

    def as_files(self, max_length: int) -> dict[str, dict[str, Any]]:
        """The content of the files that say this, by name; max_length: of the model as it is used."""
        files = {TEXT_FILES[0]: {"max_seq_length": max_length, "do_lower_case": self.lower_case, **self.kept}}
        prompts = dict(self.prompts)
        if self.sides != (prompts.get(FIRST, ""), prompts.get(SECOND[0], "")):  # what encode_query and encode_document take
            prompts |= dict(zip((FIRST, SECOND[0]), self.sides, strict=True))
        model: dict[str, Any] = {"prompts": prompts, "default_prompt_name": self.default_prompt_name}
        model |= {"similarity_fn_name": self.similarity} if self.similarity else {}
        model |= {"truncate_dim": self.truncate_dim} if self.truncate_dim else {}
        model |= {"requirements": self.requirements} if self.requirements else {}
        if prompts or len(model) > 2:
            files[MODEL_FILE] = {"model_type": "SentenceTransformer"} | model
        return files


def read_encoding_settings(folder: ModelFolder) -> EncodingSettings:
    """The settings of a folder. Raises `InputError` for a damaged file, and for an entry that can't be obeyed here."""
    name = next((name for name in TEXT_FILES if name in folder.encoder.files), None)
    file = folder.encoder.path / (name or TEXT_FILES[0])
    texts = read_json(file) if name else {}
    if folder.modules is None:  # then sentence-transformers takes the BERT alone, without what these files say
        return EncodingSettings(_max_length(texts, file) if texts else None)
    require = _Requirement(file)
    for key in ARGUMENTS:
        given = texts.get(key) or {}
        require(isinstance(given, dict), key, given, "an object")
        if other := [name for name in given if name not in HARMLESS and (key, name) not in LENGTHS]:
            raise InputError(
                f"{file}: {key} sets {', '.join(map(repr, other)):.200}, which can't be done here.{_take_out(key)}"
            )
    for key, expected in (
        ("transformer_task", "feature-extraction"),
        ("modality_config", LAST_STATES),
        ("module_output_name", "token_embeddings"),
        ("processing_kwargs", {}),
        ("query_expansion", None),
        ("tokenizer_name_or_path", None),
    ):
        if texts.get(key) not in (None, expected):
            raise InputError(f"{file}: {key} is {texts[key]!r:.200}, which can't be done here.{_take_out(key)}")
    lower = texts.get("do_lower_case")
    require(lower is None or isinstance(lower, bool), "do_lower_case", lower, "true or false")
    kept = {key: texts[key] for key in KEPT if isinstance(texts.get(key), int)}
    return EncodingSettings(_max_length_of_modules(folder, texts, file), bool(lower), kept=kept, **_model_settings(folder))


def _take_out(key: str) -> str:
    return f" Take {key} out of the file in a copy of the folder to use the model without it; its vectors are others then."


class _Requirement:
    """Refuses values of a file that are of another kind."""

    def __init__(self, file: Path):
        self.file = file

    def __call__(self, fine: bool, key: str, value: Any, kind: str) -> None:
        """Raises `InputError` unless the value is fine."""
        if not fine:
            raise InputError(f"{self.file}: {key} should be {kind}, not {value!r:.100}. Fetch or copy it again.")


def _max_length_of_modules(folder: ModelFolder, texts: Mapping[str, Any], file: Path) -> int | None:
    """The maximum length that sentence-transformers would use; None: as many tokens as the model has positions."""
    for key, name in LENGTHS:
        if (texts.get(key) or {}).get(name) is not None:
            return _length(texts[key][name], f"{file}: {name} of {key}")
    if texts.get("max_seq_length") is not None:
        return _max_length(texts, file)
    # Newer versions keep the maximum with the tokenizer.
    length = folder.encoder.tokenizer_settings.get("model_max_length")
    if isinstance(length, int) and not isinstance(length, bool) and length < NO_LIMIT:
        return _length(length, f"{folder.encoder.path / 'tokenizer_config.json'}: model_max_length")
    return NO_LIMIT


def _max_length(texts: Mapping[str, Any], file: Path) -> int | None:
    length = texts.get("max_seq_length")
    return None if length is None else _length(length, f"{file}: max_seq_length")


def _length(value: Any, what: str) -> int:
    """A maximum length; 0 cuts nothing. Raises `InputError` if it is none. what: file and key, for the message."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{what} should be a whole number, not {value!r:.100}")
    if value == 0:
        return NO_LIMIT
    if value < LEAST_LENGTH:
        raise InputError(
            f"{what} is {value}, and a sentence needs {LEAST_LENGTH} tokens at least: write a larger number in a copy of the "
            "folder, or null for as many as the model can take"
        )
    return min(value, NO_LIMIT)


def _model_settings(folder: ModelFolder) -> dict[str, Any]:
    """What config_sentence_transformers.json says, as fields of `EncodingSettings`."""
    if MODEL_FILE not in folder.root.files:
        return {}
    file = folder.path / MODEL_FILE
    content = read_json(file)
    require = _Requirement(file)
    kind = content.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise InputError(
            f"{file} is of a {kind!r:.100}, not of a model with a vector for each sentence. To begin from its BERT alone, copy "
            "the folder without modules.json."
        )
    prompts, default = content.get("prompts") or {}, content.get("default_prompt_name")
    require(
        isinstance(prompts, dict) and all(isinstance(prompt, str | None) for prompt in prompts.values()),
        "prompts", prompts, "an object of texts",
    )  # fmt: skip
    require(isinstance(default, str | None), "default_prompt_name", default, "a name, or null")
    prompts = {name: prompt or "" for name, prompt in prompts.items()}
    if default is not None and default not in (*prompts, "query", "document"):  # these two are always there, empty
        raise InputError(
            f"{file}: default_prompt_name is {default!r:.100}, which is none of the prompts {list(prompts)!r:.200}"
        )
    for name, prompt in prompts.items():
        try:
            check_prompt(prompt)
        except InputError as error:
            raise InputError(f"{file}: {name!r:.100} is {error}") from None
    similarity = content.get("similarity_fn_name")
    require(similarity in (None, *SIMILARITIES), "similarity_fn_name", similarity, f"one of {', '.join(SIMILARITIES)}")
    size = content.get("truncate_dim")
    whole = isinstance(size, int) and not isinstance(size, bool) and size > 0
    require(size is None or whole, "truncate_dim", size, "a whole number from 1, or null")
    requirements = content.get("requirements") or {}
    require(isinstance(requirements, dict), "requirements", requirements, "an object")
    return {
        "prompts": prompts,
        "default_prompt_name": default,
        "similarity": similarity,
        "truncate_dim": size,
        "requirements": requirements,
    }
