"""Frozen speech encoders of Hugging Face, and a trained head on their features.

No code of their folders is run. Features are kept in the cache, by encoder and by sound.
"""

import contextlib
import hashlib
import math
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from emovox.checkpoints import Network
from emovox.devices import resolve_device
from emovox.emotions import Outputs
from emovox.errors import ConfigError, InputError, first_line
from emovox.files import cache_folder, read_object, sha256_file
from emovox.media.audio import SAMPLE_RATE
from emovox.packages import explained
from emovox.student.student_config import ATTENTION, LINEAR
from emovox.teacher.sidecar import CONFIG, HUB, PREPROCESSOR, find_folder
from emovox.teacher.teacher_checkpoint import LOAD_ERRORS, read_pth

# model_type in config.json -> family of its classes.
MODELS = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM", "whisper": "Whisper"}
MIN_SAMPLES, MAX_SAMPLES = SAMPLE_RATE // 4, 30 * SAMPLE_RATE  # at a time; Whisper hears 30 s
FRAME, STEP = 320, 12  # samples of a hidden state, 20 ms; hidden states of a step, 0.24 s


@dataclass(frozen=True)
class HeadConfig:
    """An encoder and the shape of its head; `Encoder` sets the fields from `sha256` on."""

    encoder: str  # `hf:` and a folder or an id of the Hub
    layer: int | None = None  # None for a weighted sum of all, with the input of the first
    head: str = LINEAR
    sha256: str = ""  # of the encoder's weights file
    num_layers: int = 1  # in the features
    size: int = 1  # of a layer


class Encoder:
    """A frozen encoder in float32: samples to hidden states, averaged over time.

    An attention head gets averages over each 0.24 s. An utterance is encoded alone, without zeros
    at its end, so that neither neighbours nor padding change its features; after 30 s, in pieces.
    """

    def __init__(self, config: HeadConfig, device: str) -> None:
        name = config.encoder.removeprefix(HUB)
        if name in ("", config.encoder):
            raise ConfigError(f"encoder {name!r}: expected {HUB} and a folder or an id of the Hub")
        folder, weights = find_folder(name, "encoder")
        self.name, sha256 = Path(name).name or folder.resolve().name, sha256_file(weights)
        if config.sha256 not in ("", sha256):
            raise InputError(f"{name}: weights differ; restore those of sha256 {config.sha256}")
        self._model, self._extractor = _load(config.encoder, folder, weights)
        self._model.to(resolve_device(device))
        torch.backends.cudnn.allow_tf32 = False  # fewer bits than fp32
        size, last = self._model.config.hidden_size, self._model.config.num_hidden_layers
        if not 0 <= (config.layer or 0) <= last:
            raise ConfigError(f"layer {config.layer}: {self.name} has the layers 0 to {last}")
        num_layers = last + 1 if config.layer is None else 1
        self.config = replace(config, sha256=sha256, num_layers=num_layers, size=size)
        files = [(folder / file).read_text("utf-8") for file in (CONFIG, PREPROCESSOR)]
        self._key = "\0".join([*files, sha256, str(config.layer), config.head]).encode()
        self._kept = cache_folder() / "features" / f"{sha256}.sqlite"

    def __call__(self, utterances: Iterable[np.ndarray | Tensor]) -> Tensor:
        """Return features `[N, layers, steps, size]`; zeros follow the steps of shorter ones."""
        padded = [np.pad(np.asarray(x, np.float32), (0, MIN_SAMPLES)) for x in utterances]
        heard = [x[: max(MIN_SAMPLES, int(np.flatnonzero(x)[-1:].sum()) + 1)] for x in padded]
        keys = [hashlib.sha256(self._key + samples.tobytes()).digest() for samples in heard]
        try:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self._kept, timeout=600)) as db, db:
                db.execute("CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, value BLOB)")
                select = "SELECT key, value FROM features WHERE key = ?"
                found = dict(row for key in keys for row in db.execute(select, [key]))
                pairs = zip(keys, heard, strict=True)
                new = {key: self._encode(samples) for key, samples in pairs if key not in found}
                db.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", new.items())
        except (sqlite3.Error, OSError) as error:
            raise InputError(f"{self._kept}: cannot be used ({error}); remove it") from error
        values, shape = found | new, (self.config.num_layers, -1, self.config.size)
        arrays = [np.frombuffer(values[key], np.float16).reshape(shape) for key in keys]
        steps = max(array.shape[1] for array in arrays)
        arrays = [np.pad(x, ((0, 0), (0, steps - x.shape[1]), (0, 0))) for x in arrays]
        return torch.from_numpy(np.stack(arrays)).to(self._model.device).float()

    @torch.inference_mode()
    def _encode(self, samples: np.ndarray) -> bytes:
        """Return the features of an utterance, float16 `[layers, steps, size]`."""
        found = []
        for piece in np.array_split(samples, math.ceil(len(samples) / MAX_SAMPLES)):
            inputs = self._extractor(piece, sampling_rate=SAMPLE_RATE, return_tensors="pt")
            inputs = inputs[self._model.main_input_name].to(self._model.device)
            layers = torch.cat(self._model(inputs, output_hidden_states=True).hidden_states)
            found.append(layers[:, : math.ceil(len(piece) / FRAME)])  # Whisper pads to 30 s
        hidden = torch.cat(found, dim=1)
        hidden = hidden if self.config.layer is None else hidden[[self.config.layer]]
        steps = torch.split(hidden, STEP if self.config.head == ATTENTION else len(samples), dim=1)
        means = torch.stack([step.mean(dim=1) for step in steps], dim=1)
        return means.clamp(-65504, 65504).half().cpu().numpy().tobytes()


def _load(name: str, folder: Path, weights: Path) -> tuple[Any, Any]:
    """Return the model of an encoder and its feature extractor."""
    with explained(f"--encoder {name}"):
        import transformers
        from huggingface_hub import errors
    # Newer releases of huggingface_hub check the types in config.json, with an error of their own.
    bad = (*LOAD_ERRORS, SafetensorError, getattr(errors, "StrictDataclassError", OSError))
    if (kind := read_object(folder / CONFIG).get("model_type")) not in MODELS:
        raise InputError(f"{folder}: model_type is {kind!r}, expected one of {', '.join(MODELS)}")
    make, is_whisper = getattr(transformers, f"{MODELS[kind]}Model"), kind == "whisper"
    extract = getattr(transformers, f"{'Whisper' if is_whisper else 'Wav2Vec2'}FeatureExtractor")
    try:
        extractor = extract.from_pretrained(folder, local_files_only=True)
        model = make(make.config_class.from_pretrained(folder, local_files_only=True))
        # The model's own from_pretrained may choose another file, and fetch it from the Hub.
        tensors = read_pth(weights) if weights.suffix == ".bin" else load_file(weights)
        tensors = {k.removeprefix(f"{make.base_model_prefix}."): v for k, v in tensors.items()}
        missing = set(model.load_state_dict(tensors, strict=False).missing_keys)
    except bad as error:
        raise InputError(f"{folder}: cannot be loaded ({first_line(error)})") from error
    if missing := missing - {"masked_spec_embed"}:  # used in training only
        raise InputError(f"{folder}: the weights lack {min(missing)}")
    if extractor.sampling_rate != SAMPLE_RATE:
        raise InputError(f"{folder}: hears {extractor.sampling_rate} Hz, expected {SAMPLE_RATE}")
    return (model.encoder if is_whisper else model).float().eval(), extractor


class EncoderHead(Network):
    """Head on features `[B, layers, steps, size]`: logits `[B, E]`.

    The sum of the layers, with softmax weights, is normalised; attention weighs its steps.
    """

    architecture = "emovox.encoder-head"

    def __init__(self, config: HeadConfig, outputs: Outputs = Network.outputs) -> None:
        super().__init__()
        self.outputs, self.config, self.embedding_size = outputs, config, config.size
        self.layers = nn.Parameter(torch.zeros(config.num_layers))
        self.norm = nn.LayerNorm(config.size)
        self.attention = nn.Parameter(torch.zeros(config.size))  # without effect on one step
        self.fc8 = nn.Linear(config.size, len(outputs))  # named as the last layer of VGGVox
        nn.init.zeros_(self.fc8.weight)
        nn.init.zeros_(self.fc8.bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.fc8(self.embed(features))

    def embed(self, features: Tensor) -> Tensor:
        """Return the input of the last layer, `[B, size]`."""
        mixed = self.norm(torch.einsum("l,blsd->bsd", self.layers.softmax(dim=0), features))
        padding = (features == 0).all(dim=3).all(dim=1)  # see `Encoder`
        scores = (mixed @ self.attention).masked_fill(padding, torch.finfo(mixed.dtype).min)
        return torch.einsum("bs,bsd->bd", scores.softmax(dim=1), mixed)
