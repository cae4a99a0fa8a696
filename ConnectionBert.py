"""The model: one BERT encodes both sentences of a pair; pooling gives a vector for each; the cosine compares the vectors.

Sentence-BERT's siamese regression model (Reimers & Gurevych 2019, arXiv 1908.10084, figure 2), in a local folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize
from tqdm import tqdm

from connection.data.tokenization import tokenize
from connection.model.architectures import ARCHITECTURES, architecture_of, layers_of, modules_below
from connection.model.calibration import Calibration
from connection.model.checks.config import check_size, read_config
from connection.model.checks.folder_entries import read_consistently
from connection.model.checks.model_folder import ModelFolder, check_folder, find_model, model_of, output_problem, weights_name
from connection.model.dense import Dense
from connection.model.dropout import set_rate
from connection.model.encoding_settings import EncodingSettings, read_encoding_settings
from connection.model.flat_weights import FlatWeights
from connection.model.packed_bert import PackedBert
from connection.model.packing import PackedBatch, pack
from connection.model.pooling import POOLING, pool, without_prompt
from connection.model.sentence_transformers_files import FolderSettings, read_modules, write_modules
from connection.model.tokenizer import read_tokenizer
from connection.model.weights import encoder_tensors, read_tensors, with_pooler
from connection.system.atomic_files import atomic_folder
from connection.system.devices import pick_precision
from connection.system.errors import InputError, RunError
from connection.system.paths import resolve

TOKENS_AT_ONCE = 16_384  # in encode(): limits memory when sentences are long


class ConnectionBert(nn.Module):
    """A BERT encoder with its tokenizer, pooling and maximum length; H is the hidden size.

    `notes` are remarks about the loaded folder for the user.
    """

    def __init__(
        self,
        encoder: Any,
        tokenizer: Any,
        pooling: str = "mean",
        max_length: int = 128,
        normalized: bool = False,
        labels: tuple[float, float] | None = None,
        encoding: EncodingSettings | None = None,
        include_prompt: bool = True,
        dense: Sequence[Dense] = (),
    ):
        super().__init__()
        parts = pooling.split("+")
        if not set(parts) <= set(POOLING) or (len(parts) > 1 and "pooler" in parts):
            raise InputError(f"pooling {pooling!r} is none of {', '.join(POOLING)}")
        self.family = ARCHITECTURES[encoder.config.model_type]
        positions = self.family.positions(encoder.config)
        if not 3 <= max_length <= positions:
            raise InputError(
                f"a maximum length (--max-length) of {max_length} tokens is outside 3 to {positions}, this model's positions"
            )
        pooler = getattr(encoder, "pooler", None)
        if pooling == "pooler" and not (self.family.has_pooler and pooler is not None):
            others = ", ".join(name for name in POOLING if name != "pooler")
            raise InputError(f"pooler pooling (--pooling) needs pooler weights, which this model has not; it has {others}")
        if pooler is not None:
            pooler.requires_grad_(pooling == "pooler")  # trained only if it is used
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.max_length = max_length
        self.normalized = normalized  # encode() returns vectors of length 1
        self.labels = labels  # label scale of the training data: (no connection, full connection)
        self.encoding = encoding or EncodingSettings()  # prompts and the like
        self.include_prompt = include_prompt  # in the pooling
        self.dense: Any = nn.ModuleList(dense)  # what is done to the pooled vectors
        if dense and dense[0].settings[0] != encoder.config.hidden_size * len(parts):
            raise InputError(
                f"the Dense module of the folder takes {dense[0].settings[0]} numbers, and {pooling} pooling (--pooling) gives "
                f"{encoder.config.hidden_size * len(parts)}: leave --pooling as the folder has it"
            )
        self.prompts = (self.encoding.prompt, *self.encoding.sides)  # of no side, of first and of second sentences
        tokenizer.prompts = self.encoding.sides  # for pair files
        prompt_tokens = [self._prompt_tokens(prompt) for prompt in self.prompts]
        for prompt, tokens in zip(self.prompts, prompt_tokens, strict=True):
            if tokens + 2 > max_length:
                raise InputError(
                    f"the prompt {prompt!r:.100} fills the maximum length of {max_length} tokens, so that no text has room "
                    f"beside it: give a maximum (--max-length) above {tokens + 2}, or shorter prompts (--prompt1, --prompt2)"
                )
        # For each of `prompts`, the tokens at the beginning of a sentence that are left out of the pooling.
        self._skipped = [0, 0, 0] if include_prompt else prompt_tokens
        self.calibration = Calibration()  # empty if it was not fitted on dev pairs
        self.precision = "fp32"  # of the training passes
        self.packed_bert: PackedBert | None = None
        self.frozen_layers = 0  # the number of layers, the lowest ones, that training leaves as they are
        # What they make of each batch that is encoded, by its tokens, to read it the next time; None: nothing is remembered.
        self.remembered: dict[tuple[bytes, bytes], Tensor] | None = None
        self.folder: Path | None = None
        self.notes: list[str] = []

    @classmethod
    def load(
        cls,
        folder: str | Path,
        pooling: str | None = None,
        max_length: int | None = None,
        prompts: tuple[str | None, str | None] = (None, None),
    ) -> ConnectionBert:
        """Load a model folder: the three files of a plain BERT, or a folder saved by this project or sentence-transformers.

        `pooling` and `max_length` default to the folder's own; a plain BERT has none, and gets mean pooling and 128 tokens.
        prompts: of first and of second sentences, None for the folder's own.
        Raises `InputError` that says what is missing or wrong in the folder, and how to fix it.
        """
        path = model_of(resolve(folder))
        return read_consistently(path, lambda: cls._read(check_folder(path), pooling, max_length, prompts))

    @classmethod
    def _read(
        cls, folder: ModelFolder, pooling: str | None, max_length: int | None, prompts: tuple[str | None, str | None]
    ) -> ConnectionBert:
        """Load from a folder that must not be replaced meanwhile. See `load`."""
        config, file = read_config(folder.encoder), folder.encoder.path / "config.json"
        family = architecture_of(config, file)
        check_size(config, file, folder.weights_files)  # before anything of the config's size is allocated
        own = read_modules(folder, config["hidden_size"])
        tensors = read_tensors(*folder.weights_files)
        if own.pooler_weights:  # sentence-transformers applies these, not the encoder's own pooler
            tensors = with_pooler(tensors, own.pooler_weights, family)
        has_pooler = any("pooler.dense." in name for name in tensors)
        encoder = family.build(config, has_pooler, file)
        shapes = {name: tensor.shape for name, tensor in encoder.state_dict().items()}
        state, unused = encoder_tensors(tensors, shapes, family, weights_name(folder.weights_files))
        encoder.load_state_dict(state)
        tokenizer, remarks = read_tokenizer(folder.encoder, config, own.encoding.lower_case)
        positions = family.positions(encoder.config)
        own_length = None if own.encoding.max_length is None else min(own.encoding.max_length, positions)
        model = cls(
            encoder,
            tokenizer,
            pooling or own.pooling or "mean",
            max_length or own_length or min(128, positions),
            own.normalized,
            own.labels,
            own.encoding.with_sides(*prompts),
            own.include_prompt,
            own.dense,
        )
        model.folder = folder.path
        # The calibration is invalid for the cosines of another pooling, and of other prompts.
        if model.pooling == own.pooling and model.encoding.sides == own.encoding.sides:
            model.calibration = own.calibration
        model.notes += remarks + model.encoding.remarks()
        if unused:
            model.notes.append(f"{len(unused)} tensors beside the encoder are not used ({', '.join(sorted(unused)[:3])} ...)")
        if own.pooling and model.pooling != own.pooling:
            model.notes.append(f"the folder was made for {own.pooling} pooling; {pooling} pooling is used, as asked")
        if max_length and own_length is not None and max_length < own_length:
            model.notes.append(f"the folder's own maximum length is {own_length} tokens; {max_length} are used")
        return model.eval()

    @property
    def summary(self) -> str:
        """One-line description for the user."""
        layers = self.encoder.config.num_hidden_layers
        shape = f"{layers} layers x {self.encoder.config.hidden_size}, {self.parameter_count / 1e6:.1f} million parameters"
        return f"{self.folder}: {self.family.name.split()[-1]}, {shape}, {self.pooling} pooling"

    @property
    def hidden_size(self) -> int:
        """H, the length of a sentence vector."""
        return min(self._uncut_size, self.encoding.truncate_dim or self._uncut_size)

    @property
    def one_prompt(self) -> bool:
        """Whether the same text, or none, stands before first and before second sentences."""
        return self.prompts[1] == self.prompts[2]

    @property
    def _uncut_size(self) -> int:
        if self.dense:
            size: int = self.dense[-1].settings[1]
        else:
            size = self.encoder.config.hidden_size * len(self.pooling.split("+"))
        return size

    @property
    def vector_settings(self) -> tuple[Any, ...]:
        """What determines the vectors of given tokens beside weights, config, pooling and maximum length; () as a rule."""
        truncate_dim = self.encoding.truncate_dim
        skipped = self._skipped[0] if len({*self._skipped}) == 1 else tuple(self._skipped)
        return (truncate_dim, skipped) if truncate_dim or skipped else ()

    def _prompt_tokens(self, prompt: str) -> int:
        """How many tokens at the beginning of each sentence are the prompt's, [CLS] included; 0 without a prompt."""
        backend = self.tokenizer.backend_tokenizer
        return 1 + len(backend.encode(prompt, add_special_tokens=False).ids) if prompt else 0

    @property
    def parameter_count(self) -> int:
        return sum(weight.numel() for weight in self.encoder.parameters())

    @property
    def device(self) -> torch.device:
        device: torch.device = self.encoder.get_input_embeddings().weight.device
        return device

    def freeze(self, embeddings: bool, layers: int) -> None:
        """Let training leave the embeddings as they are, or with `layers` > 0 the embeddings and that many lowest layers.

        Call it before `prepare_training`. Raises `InputError` if no layer would be left to train.
        """
        self.encoder.embeddings.requires_grad_(not embeddings)
        if not layers:
            return
        there = len(layers_of(self.encoder))
        if not there:
            raise InputError(
                f"--freeze-layers: the layers of {self.family.name} share their weights, so that all are trained or none. "
                "Leave it out; --freeze-embeddings can be given"
            )
        if layers >= there:
            raise InputError(
                f"--freeze-layers {layers}: this model has {there} layers, and at least one of them is trained: "
                f"give 0 to {there - 1}"
            )
        self.frozen_layers = layers
        for module in modules_below(self.encoder, layers):
            module.requires_grad_(False)

    def prepare_training(
        self, precision: str, packing: bool, seed: int, checkpointing: bool = False, dropout: float | None = None
    ) -> FlatWeights | None:
        """Choose how the training passes are computed. Call it after the model is moved to its device.

        precision: "bf16" or "fp32". seed, dropout: dropout's seed and rate, None: the config's rates. checkpointing: recompute
        activations in the backward pass, to save memory.
        With packing, connection/model/packed_bert.py computes the passes; the returned `FlatWeights` hold their gradients.
        Without packing, and for other variants of BERT, transformers' module computes them under autocast; returns None.
        """
        self.precision = precision
        self.packed_bert = None
        if packing and PackedBert.fits(self.encoder):
            self.packed_bert = PackedBert(self.encoder, torch.bfloat16 if precision == "bf16" else torch.float32, seed, dropout)
            self.packed_bert.checkpointing = checkpointing
            self.packed_bert.first_only = self.pooling in ("cls", "pooler") and not any(self._skipped)
        elif checkpointing:
            if not self.encoder.supports_gradient_checkpointing:
                raise InputError(f"--gradient-checkpointing: the library has none for {self.family.name}. Leave it out")
            self.encoder.activation_checkpointing_enable({"use_reentrant": False})
        if dropout is not None:
            set_rate(self.encoder, dropout)
        for module in modules_below(self.encoder, self.frozen_layers) if self.frozen_layers else ():
            set_rate(module, 0.0)
        torch.manual_seed(seed)
        return self.packed_bert.weights if self.packed_bert else None

    def forward(self, tokens: PackedBatch) -> tuple[Tensor, Tensor]:
        """Return the vectors u (B, H) and v (B, H) of both sides of B pairs, from one encoder call.

        `tokens` holds the B first sentences, then the B second ones; or the distinct ones of these, and which each side is.
        """
        vectors = self.cut(self.sentence_vectors(tokens, self.precision, 1, 2))  # (N, H)
        u, v = tokens.by_side(vectors).chunk(2)  # (2B, H) -> (B, H) twice
        return u, v

    def cut(self, vectors: Tensor) -> Tensor:
        """The first `truncate_dim` numbers of each vector, where the folder says so: (N, H) -> (N, H or fewer)."""
        return vectors[:, : self.encoding.truncate_dim]

    def finish(self, vectors: Tensor) -> Tensor:
        """What `encode()` makes of the vectors of `encode_tokens()`: of length 1 if the model is `normalized`, then cut."""
        return self.cut(normalize(vectors, dim=-1) if self.normalized else vectors)

    def catch_up(self) -> None:
        """Apply the pending updates of word embeddings. Needed before the weights are read."""
        if self.packed_bert:
            self.packed_bert.weights.catch_up_all()

    def sentence_vectors(self, tokens: PackedBatch, precision: str = "fp32", *sides: int) -> Tensor:
        """Return one float32 vector per sentence, not cut: N sentences -> (N, H). sides: see `pooled_tokens`."""
        states, mask = self.token_states(tokens, precision)
        return self.pooled(states, self.pooled_tokens(mask, *sides, first=tokens.of_first_sides))

    def token_states(self, tokens: PackedBatch, precision: str = "fp32") -> tuple[Tensor, Tensor]:
        """Return the float32 state of each token, (N, T, H), and their attention mask (N, T)."""
        if self.training and self.packed_bert:
            states = self.packed_bert(tokens)  # (R, L, H)
        else:
            self.catch_up()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
                if self.remembered is not None:
                    states = self._states_above_frozen(tokens, self.remembered)
                else:
                    states = self.encoder(
                        tokens.input_ids,
                        attention_mask=self.family.mask(tokens, self.encoder.config),
                        position_ids=tokens.position_ids + self.family.first_position(self.encoder.config),
                        return_dict=True,
                    ).last_hidden_state
        return tokens.by_sentence(states).float(), tokens.attention_mask

    def _states_above_frozen(self, tokens: PackedBatch, remembered: dict[tuple[bytes, bytes], Tensor]) -> Tensor:
        """What a BERT's module returns, (R, L, H). What enters its trained layers is computed once for each batch."""
        layers, mask = layers_of(self.encoder), tokens.attention_mask_4d
        key = tokens.input_ids.cpu().numpy().tobytes(), tokens.sentence.cpu().numpy().tobytes()
        if key not in remembered:
            states = self.encoder.embeddings(tokens.input_ids, position_ids=tokens.position_ids)
            for layer in layers[: self.frozen_layers]:
                states = layer(states, attention_mask=mask)
            remembered[key] = states.cpu()
        states = remembered[key].to(self.device)
        for layer in layers[self.frozen_layers :]:
            states = layer(states, attention_mask=mask)
        return states

    def pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        """One vector, not cut, of each sentence's token states: (N, T, H), and a mask (N, T) of `pooled_tokens` -> (N, H)."""
        vectors: Tensor = pool(self.pooling, states, mask)
        if self.pooling == "pooler":
            vectors = self.encoder.pooler(vectors.unsqueeze(1))
        for dense in self.dense:
            vectors = dense(vectors)
        return vectors

    def pooled_tokens(self, attention_mask: Tensor, *sides: int, first: int = 1) -> Tensor:
        """Which tokens are pooled, (N, T) int64: all of `attention_mask`, but a prompt where the folder leaves it out.

        sides: 1 or 2, whose prompt stands before the sentences; 1 and 2, of the `first` sentences and of the others; none, the
        default prompt.
        """
        if not any(self._skipped):
            return attention_mask
        parts = attention_mask.tensor_split((first,)) if len(sides) > 1 else (attention_mask,)
        return torch.cat([without_prompt(part, self._skipped[side]) for part, side in zip(parts, sides or (0,), strict=True)])

    def encode(
        self,
        sentences: Iterable[str],
        batch_size: int | None = None,
        progress: bool = True,
        precision: str = "auto",
        side: int = 0,
    ) -> np.ndarray:
        """Vectors of N sentences, in their order, (N, H) float32. The list may have any length.

        side: 1, the prompt of first sentences is put before each, as sentence-transformers' `encode_query` does; 2, that of
        second ones, as `encode_document` does; 0, the folder's default prompt, if it has one, as `encode` does.
        `precision` "auto" computes in bf16 where that is faster; the cosine to the "fp32" vector is above 0.9999.
        """
        sentences = _list_of_sentences(sentences, "encode")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it takes 1 or more")
        if side not in (0, 1, 2):
            raise ValueError(f"side is {side!r}; it takes 1, 2, or 0 for none")
        store = tokenize(sentences, self.tokenizer, self.max_length, self.prompts[side])
        precision, _ = pick_precision(precision, self.device)
        vectors = self.encode_tokens([store[row] for row in range(len(store))], batch_size, progress, precision, side)
        return self.finish(vectors).numpy()

    @torch.no_grad()
    def encode_tokens(
        self,
        sentences: Sequence[np.ndarray],
        batch_size: int | None = None,
        progress: bool | str = False,
        precision: str = "fp32",
        side: int = 0,
    ) -> Tensor:
        """Vectors of S tokenized sentences, in their order, (S, H) float32 on the CPU, without dropout; see `finish`.

        progress: whether a bar is shown, or what it says. side: as of `encode`; the prompt's tokens are there already.
        """
        batch_size = batch_size or (64 if self.device.type == "cpu" else 512)  # fits into a CPU's caches; fills a GPU
        was_training = self.training
        self.eval()
        vectors = torch.empty(len(sentences), self._uncut_size)
        lengths = np.array([len(tokens) for tokens in sentences])
        by_length = np.argsort(-lengths, kind="stable")  # similar lengths together: little padding with one sentence per row
        desc = progress if isinstance(progress, str) else "encode"
        bar = tqdm(total=len(sentences), desc=desc, unit="text", disable=None if progress else True, leave=False)
        start = 0
        while start < len(sentences):
            count = max(1, min(batch_size, TOKENS_AT_ONCE // int(lengths[by_length[start]])))
            rows = by_length[start : start + count]
            tokens = pack([sentences[row] for row in rows], self.tokenizer.pad_token_id, packed=False).to(self.device)
            vectors[rows] = self.sentence_vectors(tokens, precision, side).cpu()
            bar.update(len(rows))
            start += count
        bar.close()
        self.train(was_training)
        return vectors

    def similarity(self, a: Iterable[str], b: Iterable[str]) -> np.ndarray:
        """Cosine of a[i], a first sentence, and b[i], a second one, in [-1, 1] for two lists of N sentences, (N,) float32."""
        a, b = _list_of_sentences(a, "similarity"), _list_of_sentences(b, "similarity")
        if len(a) != len(b):
            raise ValueError(f"similarity() compares sentence by sentence: {len(a)} and {len(b)} were given")
        encode = partial(self.encode, progress=False, precision="fp32")
        if self.one_prompt:
            vectors = encode([*a, *b], side=1)
            u, v = vectors[: len(a)], vectors[len(a) :]
        else:
            u, v = encode(a, side=1), encode(b, side=2)
        return cosine_similarity(torch.from_numpy(u), torch.from_numpy(v), dim=-1).clamp(-1, 1).numpy()

    def save(self, folder: str | Path) -> None:
        """Write a self-contained folder that opens here, in transformers.AutoModel and in SentenceTransformer(folder).

        An earlier model of that name is replaced as a whole, once the new one is complete on disk. Raises `InputError` if
        something else is there, `RunError` if a weight is not finite, `OSError` if the folder cannot be written.
        """
        folder = Path(folder)
        if problem := output_problem(folder):
            raise InputError(f"{folder} {problem}; it is not replaced, nothing was saved.")
        self.catch_up()
        if not all(torch.isfinite(tensor).all() for tensor in self.state_dict().values()):
            raise RunError("the weights hold NaN or infinite values; they are not saved.")
        with atomic_folder(folder) as new:
            state = {name: tensor.contiguous() for name, tensor in self.encoder.state_dict().items()}
            try:
                save_file(state, new / "model.safetensors", metadata={"format": "pt"})
            except SafetensorError as error:  # for example, a full disk
                raise OSError(f"{folder} could not be written: {error}") from None
            config = self.encoder.config.to_dict() | {"architectures": [self.family.model], "dtype": "float32"}
            config.pop("torch_dtype", None)
            (new / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            shutil.copymode(new / "config.json", new / "model.safetensors")  # else readable by its owner only
            self.tokenizer.model_max_length = self.max_length
            self.tokenizer.save_pretrained(new)
            if self.family.own_pieces:
                vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
                (new / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in vocabulary), encoding="utf-8")
            pooler = self.encoder.pooler.dense.state_dict() if self.pooling == "pooler" else None
            own = FolderSettings(
                self.pooling, self.include_prompt, self.normalized, self.encoding, self.labels, self.calibration, pooler,
                [*self.dense],
            )  # fmt: skip
            write_modules(new, self.encoder.config.hidden_size, self.max_length, own)


def module_tree(folder: str | Path) -> str:
    """Return the module tree of the encoder that a folder's config.json describes. The weights are not needed.

    Raises `InputError` for an unusable folder, and for a config of no encoder that can be used here.
    """
    model = find_model(model_of(resolve(folder)))
    file = model.encoder.path / "config.json"
    config = read_config(model.encoder)
    with torch.device("meta"):
        return str(architecture_of(config, file).build(config, True, file))


def load_tokenizer(folder: str | Path) -> Any:
    """Load the tokenizer of a model folder, without the model. Raises `InputError` as `ConnectionBert.load` does."""
    path = model_of(resolve(folder))

    def read() -> Any:
        folder = check_folder(path)
        encoding = read_encoding_settings(folder)
        tokenizer, _ = read_tokenizer(folder.encoder, read_config(folder.encoder), encoding.lower_case)
        tokenizer.prompts = encoding.sides
        return tokenizer

    return read_consistently(path, read)


def _list_of_sentences(sentences: Any, caller: str) -> list[str]:
    """The sentences as a list. Raises `TypeError` for one string, whose letters would be taken for sentences, and the like."""
    if isinstance(sentences, Iterable) and not isinstance(sentences, str | bytes | Mapping):
        listed = list(sentences)
        if all(isinstance(sentence, str) for sentence in listed):
            return listed
        kind = f"a list with {next(type(item).__name__ for item in listed if not isinstance(item, str))} in it"
    else:
        kind = type(sentences).__name__
    raise TypeError(f"{caller}() takes lists of sentences (str), not {kind}; write one sentence as [sentence]")
