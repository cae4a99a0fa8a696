"""The encoders that can be loaded, and what differs between them. A family is one entry of `ARCHITECTURES`.

All are computed by transformers' own modules over packed rows, given each slot's position and which slots it sees; BERT is
also trained by connection/model/packed_bert.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.system.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from connection.model.packing import PackedBatch

Mask = Callable[["PackedBatch", Any], Any]  # a batch, the library's config -> what the module takes as its attention mask


def boolean_mask(tokens: PackedBatch, config: Any) -> Tensor:
    """Return which slots a slot sees, (R, 1, L, L) bool: those of its own sentence."""
    return tokens.attention_mask_4d


def additive_mask(tokens: PackedBatch, config: Any) -> Tensor:
    """Return what is added to the scores, (R, 1, L, L) float32: 0, or the least number for slots that are not seen."""
    import torch

    seen = tokens.attention_mask_4d
    return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, torch.finfo(torch.float32).min)


def local_and_global_masks(tokens: PackedBatch, config: Any) -> dict[str, Tensor]:
    """Return the masks of both kinds of layers: all slots of the sentence, or those within half of `local_attention`."""
    seen, places = tokens.attention_mask_4d, tokens.position_ids
    near = (places[:, :, None] - places[:, None, :]).abs() <= config.local_attention // 2  # (R, L, L)
    return {"full_attention": seen, "sliding_attention": seen & near.unsqueeze(1)}


ROLES = ("cls_token", "sep_token", "pad_token", "unk_token", "mask_token")
IN_BRACKETS = dict(zip(ROLES, ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"), strict=True))
IN_ANGLES = dict(zip(ROLES, ("<s>", "</s>", "<pad>", "<unk>", "<mask>"), strict=True))


@dataclass(frozen=True)
class Architecture:
    """One family of encoders."""

    name: str  # for the user
    model: str  # the class of transformers
    prefix: str  # of the encoder's tensors in a checkpoint with heads
    words: str = "embeddings.word_embeddings.weight"
    sizes: Mapping[str, str] = field(default_factory=dict)  # BERT's names of sizes -> its own
    more_sizes: tuple[str, ...] = ()  # sizes that BERT has not
    older_entries: tuple[str, ...] = ()  # of configs that the library still understands
    has_pooler: bool = True  # dense layer and tanh over the first token, as BERT's
    attention: str = "sdpa"  # of the library's implementations
    first_position: Callable[[Any], int] = lambda config: 0  # number of a sentence's first position
    mask: Mask = boolean_mask
    own_pieces: bool = False  # vocab.txt is enough: BERT's own kind of pieces
    type_ids: bool = True  # the module takes token_type_ids
    special: Mapping[str, str] = field(default_factory=dict)  # tokens, where the tokenizer's files name none

    def config(self, config: Mapping[str, Any]) -> Any:
        """Return the library's config object, made of those entries of a checked config that describe an encoder.

        Others are left out: the library would obey some of them (fetch kernels, quantize, return another kind of output).
        Raises whatever the library raises for a value that it can't use.
        """
        import transformers

        kind = getattr(transformers, self.model.removesuffix("Model") + "Config")
        known = {**kind.__annotations__, **dict.fromkeys(self.older_entries)}
        made = kind.from_dict({name: value for name, value in config.items() if name in known})
        made._attn_implementation = self.attention
        return made

    def build(self, config: Mapping[str, Any], pooler: bool, file: Path) -> Any:
        """Return the encoder that a checked config describes, with random weights. file: named in messages.

        Raises `InputError` if the library refuses the config.
        """
        import transformers

        kind = getattr(transformers, self.model)
        try:
            made = self.config(config)
            has_switch = "add_pooling_layer" in inspect.signature(kind).parameters
            return kind(made, add_pooling_layer=pooler) if has_switch else kind(made)
        except Exception as error:  # the library has no exception class for this; each error is about a value in the file
            raise InputError(f"{file} is not the config of {self.name}: {error!s:.500}") from None

    def size(self, config: Any, name: str) -> int:
        """Return a size that BERT calls `name`. config: the library's."""
        return int(getattr(config, self.sizes.get(name, name)))

    @property
    def no_tokenizer(self) -> str:
        """Return what to say where there is no tokenizer.json, and vocab.txt is not enough."""
        return (
            f"tokenizer.json is missing, which {self.name} needs here: where transformers is installed, "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it"
        )

    def positions(self, config: Any) -> int:
        """Return how many tokens a sentence can have. config: the library's."""
        return int(config.max_position_embeddings) - self.first_position(config)


def _after_padding(config: Any) -> int:
    return int(config.pad_token_id) + 1


BERT = Architecture("a BERT", "BertModel", "bert.", own_pieces=True)
ARCHITECTURES = {
    "bert": BERT,
    "distilbert": Architecture(
        "a DistilBERT", "DistilBertModel", "distilbert.", has_pooler=False, type_ids=False, own_pieces=True,
        sizes={"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
               "intermediate_size": "hidden_dim"},
    ),
    "electra": Architecture(
        "an ELECTRA", "ElectraModel", "electra.", has_pooler=False, own_pieces=True, more_sizes=("embedding_size",)
    ),
    "roberta": Architecture("a RoBERTa", "RobertaModel", "roberta.", first_position=_after_padding, special=IN_ANGLES),
    "xlm-roberta": Architecture(
        "an XLM-R", "XLMRobertaModel", "roberta.", first_position=_after_padding, special=IN_ANGLES
    ),
    "camembert": Architecture(
        "a CamemBERT", "CamembertModel", "roberta.", first_position=_after_padding, special=IN_ANGLES
    ),
    "mpnet": Architecture(
        "an MPNet", "MPNetModel", "mpnet.", attention="eager", mask=additive_mask, type_ids=False,
        first_position=lambda config: 2,  # its module takes 1 for the padding, whatever the config says
        more_sizes=("relative_attention_num_buckets",), special=IN_ANGLES | {"unk_token": "[UNK]"},
    ),
    "albert": Architecture(
        "an ALBERT", "AlbertModel", "albert.", has_pooler=False,  # its own has another form
        more_sizes=("embedding_size", "num_hidden_groups", "inner_group_num"),
        special=IN_BRACKETS | {"pad_token": "<pad>", "unk_token": "<unk>"},
    ),
    "modernbert": Architecture(
        "a ModernBERT", "ModernBertModel", "model.", "embeddings.tok_embeddings.weight", has_pooler=False, type_ids=False,
        more_sizes=("local_attention", "global_attn_every_n_layers"), mask=local_and_global_masks,
        older_entries=("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"),
        special=IN_BRACKETS,
    ),
}  # fmt: skip


def architecture_of(config: Mapping[str, Any], file: Path) -> Architecture:
    """Return the family of the encoder that a config.json describes. Raises `InputError` with a way out for any other."""
    kind = config.get("model_type")
    if kind is None:  # as in the first configs, of 2019
        architectures = config.get("architectures")
        names = [name for name in architectures if isinstance(name, str)] if isinstance(architectures, list) else []
        kind = "bert" if not names or any(name.startswith("Bert") for name in names) else names[0]
    if isinstance(kind, str) and kind in ARCHITECTURES:
        return ARCHITECTURES[kind]
    raise InputError(
        f"{file} is of another architecture, {kind!r:.100}: the encoders that can be used here are {', '.join(ARCHITECTURES)} "
        "(model_type). python -m tools.download bert-base-uncased fetches one, "
        "python -m tools.download all-MiniLM-L6-v2 a small one that is trained for sentences."
    )


def layers_of(encoder: Any) -> list[Any]:
    """Return an encoder's layers, the lowest first; none if they share their weights, as ALBERT's do."""
    lists = (module for name, module in encoder.named_modules() if name.split(".")[-1] in ("layer", "layers"))
    return list(next(lists, []))


def modules_below(encoder: Any, layers: int) -> list[Any]:
    """Return the modules that make the states which enter the layer of number `layers`, from 0."""
    first = ("embeddings", "embeddings_project", "relative_attention_bias")  # ELECTRA's, and MPNet's that all layers read
    entering = [module for name, module in encoder.named_modules() if name.split(".")[-1] in first]
    return entering + layers_of(encoder)[:layers]
