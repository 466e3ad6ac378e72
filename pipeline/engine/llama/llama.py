"""llama.cpp behind the engine's protocols. This package and `native/` alone import llama_cpp."""

from __future__ import annotations

import ctypes
import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from pipeline.engine.llama.dry import DryPenalties, DryPenalty
from pipeline.engine.model import Batch, NoRoom
from pipeline.engine.model_thread import Handle
from pipeline.engine.settings import EngineSettings, ModelTraits
from pipeline.errors import ModelError, WorkerError

_WARNING = 3  # ggml_log_level: NONE 0, DEBUG 1, INFO 2, WARN 3, ERROR 4, CONT 5
_complaints: deque[str] = deque(maxlen=6)
# llama.cpp tells only its log where a model's weights went.
_BUFFER = re.compile(rb"(\S+) model buffer size")
_OFFLOADED = re.compile(rb"offloaded (\d+)/(\d+) layers to GPU")
_placements: list[bytes] = []


@lib.llama_log_callback  # type: ignore[untyped-decorator, unused-ignore]
def _listen(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    if level in (_WARNING, _WARNING + 1):
        _complaints.append(text.decode("utf-8", "replace").strip())
    elif _BUFFER.search(text) or _OFFLOADED.search(text):
        _placements.append(text)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where llama.cpp put a model's weights.

    buffers: the names of the buffers, in ascending order: "CPU", "CPU_REPACK", "AMX", "CUDA0" ...
    layers: how many of its layers are on GPUs, and how many there are; (0, 0) in a build without GPUs.
    """

    buffers: tuple[str, ...]
    layers: tuple[int, int]

    @classmethod
    def of(cls, lines: Iterable[bytes]) -> Placement:
        """What the lines of llama.cpp's log say while it loads a model."""
        text = b"\n".join(lines)
        # The same buffer of the CPU has another name where the file is mapped into memory.
        buffers = {name.decode().removesuffix("_Mapped") for name in _BUFFER.findall(text)}
        done, total = (_OFFLOADED.findall(text) or [(b"0", b"0")])[-1]
        return cls(tuple(sorted(buffers)), (int(done), int(total)))


class LlamaVocabulary:
    """`Vocabulary` of a loaded GGUF."""

    def __init__(self, model: LlamaFile) -> None:
        self._model = model  # the vocabulary lives inside the model
        self._vocab = lib.llama_model_get_vocab(model.handle)
        self.size: int = lib.llama_vocab_n_tokens(self._vocab)
        self._pieces: dict[int, bytes] = {}

    @cached_property
    def chat_template(self) -> str | None:
        return self._model.metadata("tokenizer.chat_template") or None

    @cached_property
    def tool_template(self) -> str | None:
        return self._model.metadata("tokenizer.chat_template.tool_use") or None

    @cached_property
    def bos_text(self) -> str:
        return self._text(lib.llama_vocab_bos(self._vocab))

    @cached_property
    def eos_text(self) -> str:
        return self._text(lib.llama_vocab_eos(self._vocab))

    @cached_property
    def control_texts(self) -> tuple[str, ...]:
        special = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_USER_DEFINED
        attributes = (lib.llama_vocab_get_attr(self._vocab, token) for token in range(self.size))
        texts = (self._text(token) for token, attribute in enumerate(attributes) if attribute & special)
        # Runs of blanks are "user defined" in some vocabularies: they are ordinary text.
        return tuple(text for text in texts if text.strip())

    @cached_property
    def longest_piece(self) -> int:
        """Bytes of the longest token: no text of n bytes has fewer than n / longest_piece tokens."""
        pieces = (len(self.piece(token)) for token in range(self.size))
        return max(chain(pieces, (len(text.encode()) for text in self.control_texts)))

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        data = text.encode("utf-8")
        room = len(data) + 8
        while True:
            buffer = (lib.llama_token * room)()
            count = lib.llama_tokenize(self._vocab, data, len(data), buffer, room, add_special, parse_special)
            if count >= 0:
                return list(buffer[:count])
            room = -count

    def piece(self, token: int) -> bytes:
        found = self._pieces.get(token)
        if found is None:
            found = self._pieces[token] = self._read_piece(token)
        return found

    @cached_property
    def end_tokens(self) -> tuple[int, ...]:
        return tuple(t for t in range(self.size) if lib.llama_vocab_is_eog(self._vocab, t))

    @cached_property
    def _ends(self) -> frozenset[int]:
        return frozenset(self.end_tokens)

    def is_eog(self, token: int) -> bool:
        return token in self._ends

    def is_control(self, token: int) -> bool:
        return bool(lib.llama_vocab_is_control(self._vocab, token))

    @cached_property
    def _dry(self) -> DryPenalties:
        return DryPenalties(self._vocab, self._model.traits.context)

    def dry_penalty(self, prompt: Sequence[int], **settings: Any) -> DryPenalty:
        return self._dry.penalty(prompt, **settings)

    def _read_piece(self, token: int) -> bytes:
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = lib.llama_token_to_piece(self._vocab, token, buffer, room, 0, False)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def _text(self, token: int) -> str:
        if token < 0:
            return ""
        text = lib.llama_vocab_get_text(self._vocab, token)
        return text.decode("utf-8", "replace") if text else ""


class LlamaFile:
    """A GGUF in memory: weights and vocabulary, no context yet."""

    def __init__(self, path: Path, gpu_layers: int = 0, *, extra_buffers: bool = True) -> None:
        """gpu_layers: layers on the GPU, -1 for all.
        extra_buffers: let llama.cpp store weights in the layouts of its fastest CPU kernels.
        Raises ModelError where llama.cpp can't load it."""
        start_llama()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 999 if gpu_layers < 0 else gpu_layers
        params.use_extra_bufts = extra_buffers
        self.path = path
        _placements.clear()
        self.handle = lib.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise ModelError(f"llama.cpp can't load {path}: {last_complaints()}")
        self.weights = Handle(self.handle, lib.llama_model_free)
        self.placement = Placement.of(_placements)

    def metadata(self, key: str) -> str:
        """The GGUF's value of `key` as text, "" where it has none."""
        room = 1 << 8
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = lib.llama_model_meta_val_str(self.handle, key.encode(), buffer, room)
            if length < room:
                return buffer.value.decode("utf-8", "replace") if length >= 0 else ""
            room = length + 1

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return int(lib.llama_model_size(self.handle))

    @property
    def dimensions(self) -> int:
        """The length of its vectors."""
        return int(lib.llama_model_n_embd_out(self.handle))

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return int(lib.llama_model_n_params(self.handle))

    @cached_property
    def traits(self) -> ModelTraits:
        heads = max(1, lib.llama_model_n_head(self.handle))
        architecture = self.metadata("general.architecture")
        width = int(
            self.metadata(f"{architecture}.attention.key_length")
            or lib.llama_model_n_embd(self.handle) // heads
        )
        return ModelTraits(
            context=lib.llama_model_n_ctx_train(self.handle),
            cell_values=2
            * lib.llama_model_n_layer(self.handle)
            * lib.llama_model_n_head_kv(self.handle)
            * width,
            is_recurrent=bool(
                lib.llama_model_is_recurrent(self.handle) or lib.llama_model_is_hybrid(self.handle)
            ),
            has_window=lib.llama_model_n_swa(self.handle) > 0,
            pooling=self.metadata(f"{architecture}.pooling_type"),
            query_values=lib.llama_model_n_layer(self.handle) * heads * width,
            parameters=lib.llama_model_n_params(self.handle),
        )


class LlamaBatch:
    """A `llama_batch` over arrays of our own, allocated once."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._tokens = np.zeros(size, np.int32)
        self._positions = np.zeros(size, np.int32)
        self._sequences = np.zeros(size, np.int32)
        self._counts = np.ones(size, np.int32)
        self._wants = np.zeros(size, np.int8)
        base, step = self._sequences.ctypes.data, self._sequences.itemsize
        self._addresses = np.arange(base, base + size * step, step, dtype=np.uintp)
        self.struct: Any = lib.llama_batch()
        kinds: dict[str, Any] = dict(lib.llama_batch._fields_)  # type: ignore[arg-type]
        for name, array in (
            ("token", self._tokens),
            ("pos", self._positions),
            ("n_seq_id", self._counts),
            ("seq_id", self._addresses),
            ("logits", self._wants),
        ):
            setattr(self.struct, name, ctypes.cast(array.ctypes.data, kinds[name]))

    def fill(self, batch: Batch) -> None:
        count = len(batch)
        if not 0 < count <= self.size:
            raise WorkerError(f"a batch of {count} tokens, but 1 to {self.size} are allowed")
        self._tokens[:count] = batch.tokens
        self._positions[:count] = batch.positions
        self._sequences[:count] = batch.sequence_ids
        self._wants[:count] = batch.wants_logits
        self.struct.n_tokens = count


def new_context(file: LlamaFile, settings: EngineSettings, *, embedding: bool = False) -> Handle:
    """A llama.cpp context as `settings` say. Raises ModelError where it doesn't fit."""
    params = lib.llama_context_default_params()
    params.n_ctx = settings.all_cells
    params.n_batch = settings.batch
    params.n_ubatch = settings.ubatch
    params.n_seq_max = settings.sequences
    params.n_outputs_max = settings.batch if embedding else settings.outputs
    params.kv_unified = not settings.split
    params.n_threads = params.n_threads_batch = settings.threads
    params.embeddings = embedding
    params.flash_attn_type = {True: 1, False: 0, "auto": -1}[settings.flash_attention]
    params.type_k = params.type_v = getattr(lib, f"GGML_TYPE_{settings.kv_type.upper()}")
    params.no_perf = True
    _complaints.clear()
    context = lib.llama_init_from_model(file.handle, params)
    if not context:
        raise ModelError(
            f"llama.cpp can't make a context of {params.n_ctx} cells for {file.path}: {last_complaints()}; "
            "try a smaller engine.context or engine.slots"
        )
    return Handle(context, lib.llama_free, file.weights)


class LlamaGenerativeModel:
    """`GenerativeModel` over `llama_decode`."""

    def __init__(self, file: LlamaFile, settings: EngineSettings) -> None:
        self._file = file
        self._context = new_context(file, settings)
        self._memory = lib.llama_get_memory(self._context.value)
        self._batch = LlamaBatch(settings.batch)
        self.vocabulary = LlamaVocabulary(file)
        self.cells = settings.cells
        self.split = settings.split
        self.context = settings.context
        self.max_sequences = settings.sequences
        self.batch_size = settings.batch
        self.max_outputs = settings.outputs
        self.shares_prefixes = not file.traits.is_recurrent

    def decode(self, batch: Batch) -> NDArray[np.float32]:
        self._batch.fill(batch)
        status = lib.llama_decode(self._context.value, self._batch.struct)
        if status == 1:
            raise NoRoom(f"no room for {len(batch)} tokens")
        if status != 0:
            raise WorkerError(f"llama_decode returned {status}: {last_complaints()}")
        outputs = sum(batch.wants_logits)
        if not outputs:
            return np.empty((0, self.vocabulary.size), np.float32)
        pointer = lib.llama_get_logits(self._context.value)
        return np.ctypeslib.as_array(pointer, (outputs, self.vocabulary.size))

    def share(self, source: int, target: int, length: int) -> None:
        if not self.split:
            lib.llama_memory_seq_cp(self._memory, source, target, 0, length)
            return
        # Split streams can only be copied whole (a partial copy aborts the process), then cut.
        lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        self.forget(target, length)

    def forget(self, sequence: int, start: int = 0) -> None:
        lib.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def use_threads(self, threads: int) -> None:
        """The CPU threads of the decode calls from now on."""
        lib.llama_set_n_threads(self._context.value, threads, threads)


def start_llama() -> None:
    """Makes llama.cpp ready; what it logs from now on is kept for `last_complaints` and not shown."""
    lib.llama_log_set(_listen, ctypes.c_void_p())
    lib.llama_backend_init()
    _complaints.clear()


def last_complaints() -> str:
    """What llama.cpp last logged as a warning or an error."""
    return "; ".join(_complaints) or "it gave no reason"
