"""Frozen speech encoders of Hugging Face, and a trained head on their features.

No code of their folders is run. Features are kept in the cache, by encoder and by sound.
"""

import contextlib
import hashlib
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from emovox.cache import cache_folder
from emovox.devices import resolve_device
from emovox.emotions import Outputs
from emovox.errors import ConfigError, InputError, first_line
from emovox.files import sha256_file
from emovox.media.audio import SAMPLE_RATE
from emovox.networks import Network
from emovox.packages import explained
from emovox.student.student_config import ATTENTION, LINEAR
from emovox.teacher.released_teacher import LOAD_ERRORS, read_pth
from emovox.teacher.sidecar import CONFIG, HUB, PREPROCESSOR, find_folder, read_object

SPEECH, WHISPER = "Wav2Vec2FeatureExtractor", "WhisperFeatureExtractor"
# model_type in config.json -> classes of the model and of its feature extractor.
MODELS = {
    **{"wav2vec2": ("Wav2Vec2Model", SPEECH), "hubert": ("HubertModel", SPEECH)},
    **{"wavlm": ("WavLMModel", SPEECH), "whisper": ("WhisperModel", WHISPER)},
}
MIN_SAMPLES, MAX_SAMPLES = SAMPLE_RATE // 4, 30 * SAMPLE_RATE  # at a time; 30 s limit Whisper
FRAME = 320  # samples per hidden state, 20 ms
STEP = 12  # hidden states that an attention head sees as one, 0.24 s
LARGEST = torch.finfo(torch.float16).max
LOCK_SECONDS = 600  # wait while another process writes features


@dataclass(frozen=True)
class HeadConfig:
    """Encoder, part of its features, and shape of the head."""

    encoder: str  # `hf:` and a folder or an id of the Hub
    layer: int | None = None  # None for a weighted sum of all, with the input of the first
    head: str = LINEAR
    sha256: str = ""  # of the encoder's weights file; this and what follows is set by `Encoder`
    num_layers: int = 1  # in the features
    size: int = 1  # of a layer


class Encoder:
    """A frozen encoder: samples to hidden states, averaged over time, in float32.

    The average is over an utterance or, for an attention head, over steps of 0.24 s. An utterance
    is encoded alone, and without the zeros at its end, so that neither its neighbours nor padding
    change its features; if it is longer than 30 s, in equal pieces. Features are kept as float16.

    ConfigError for another name, layer or device; InputError if a file is missing, damaged, of
    another model, or differs from that of `config`; NetworkError if the Hub does not answer.
    """

    def __init__(self, config: HeadConfig, device: str = "auto") -> None:
        name = config.encoder.removeprefix(HUB)
        if name in ("", config.encoder):
            raise ConfigError(f"encoder {name!r}: expected {HUB} and a folder or an id of the Hub")
        folder, weights = find_folder(name, "encoder")
        self.name, sha256 = Path(name).name or folder.resolve().name, sha256_file(weights)
        if config.sha256 not in ("", sha256):
            raise InputError(
                f"{name}: its weights differ from those of the training; expected sha256 "
                f"{config.sha256}, found {sha256}"
            )
        self._device = torch.device(resolve_device(device))
        self._model, self._extractor = _load(config.encoder, folder, weights)
        self._model.to(self._device)
        size, last = self._model.config.hidden_size, self._model.config.num_hidden_layers
        if not 0 <= (config.layer or 0) <= last:
            raise ConfigError(f"layer {config.layer}: {self.name} has the layers 0 to {last}")
        num_layers = last + 1 if config.layer is None else 1
        self.config = replace(config, sha256=sha256, num_layers=num_layers, size=size)
        described = [(folder / file).read_bytes() for file in (CONFIG, PREPROCESSOR)]
        part = f"{sha256} {config.layer} {config.head}".encode()
        self._key = hashlib.sha256(b"\0".join([*described, part]))
        self._kept = cache_folder() / "features" / f"{sha256}.sqlite"

    def __call__(self, utterances: Sequence[np.ndarray]) -> Tensor:
        """Return features `[N, layers, steps, size]`, with zeros after the steps of shorter ones.

        InputError if the file of the kept features cannot be used.
        """
        keyed = [self._identify(samples) for samples in utterances]
        try:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self._kept, LOCK_SECONDS)) as db, db:
                db.execute("CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, value BLOB)")
                select = "SELECT key, value FROM features WHERE key = ?"
                found = dict(row for key, _ in keyed for row in db.execute(select, [key]))
                new = {key: self._encode(x) for key, x in dict(keyed).items() if key not in found}
                db.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", new.items())
        except (sqlite3.Error, OSError) as error:
            advice = "remove it, or set EMOVOX_CACHE to a folder on another disk"
            raise InputError(f"{self._kept}: cannot be used ({error}); {advice}") from error
        found |= new
        shape = self.config.num_layers, -1, self.config.size
        arrays = [np.frombuffer(found[key], np.float16).reshape(shape) for key, _ in keyed]
        steps = max(array.shape[1] for array in arrays)
        padded = [np.pad(x, ((0, 0), (0, steps - x.shape[1]), (0, 0))) for x in arrays]
        return torch.from_numpy(np.stack(padded)).to(self._device).float()

    def _identify(self, samples: np.ndarray) -> tuple[bytes, np.ndarray]:
        """Return the key of an utterance, and its samples without the zeros at its end."""
        end = max(MIN_SAMPLES, np.flatnonzero(samples)[-1:].sum() + 1)
        heard = np.ascontiguousarray(samples[:end], np.float32)
        heard = np.pad(heard, (0, max(0, MIN_SAMPLES - len(heard))))
        key = self._key.copy()
        key.update(heard.tobytes())
        return key.digest(), heard

    @torch.inference_mode()
    def _encode(self, samples: np.ndarray) -> bytes:
        """Return the features of an utterance, float16 `[layers, steps, size]`."""
        pieces = np.array_split(samples, math.ceil(len(samples) / MAX_SAMPLES))
        hidden = torch.cat([self._hidden(piece) for piece in pieces], dim=1)
        width = STEP if self.config.head == ATTENTION else hidden.shape[1]
        pooled = torch.stack([step.mean(dim=1) for step in hidden.split(width, dim=1)], dim=1)
        return pooled.clamp(-LARGEST, LARGEST).half().cpu().numpy().tobytes()

    def _hidden(self, samples: np.ndarray) -> Tensor:
        """Return hidden states `[layers, T, size]`, without those of the silence after 30 s."""
        inputs = self._extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        inputs = inputs[self._model.main_input_name].to(self._device)
        layers = self._model(inputs, output_hidden_states=True).hidden_states
        hidden = torch.cat(layers)[:, : math.ceil(len(samples) / FRAME)]
        return hidden if self.config.layer is None else hidden[[self.config.layer]]


def _load(name: str, folder: Path, weights: Path) -> tuple[Any, Any]:
    """Return the model of an encoder and its feature extractor."""
    with explained(f"--encoder {name}"):
        import transformers
        from huggingface_hub import errors
    if (kind := read_object(folder / CONFIG).get("model_type")) not in MODELS:
        raise InputError(f"{folder}: model_type is {kind!r}, expected one of {', '.join(MODELS)}")
    make, extract = (getattr(transformers, known) for known in MODELS[kind])
    prefix, inner = f"{make.base_model_prefix}.", "encoder." if kind == "whisper" else ""
    try:
        extractor = extract.from_pretrained(folder, local_files_only=True)
        config = make.config_class.from_pretrained(folder, local_files_only=True)
        model = make(config).encoder if inner else make(config)
        # The model's own from_pretrained may choose another file, and fetch it from the Hub.
        tensors = read_pth(weights) if weights.suffix == ".bin" else load_file(weights)
        tensors = {k.removeprefix(prefix).removeprefix(inner): v for k, v in tensors.items()}
        missing = set(model.load_state_dict(tensors, strict=False).missing_keys)
    except (
        *LOAD_ERRORS,
        SafetensorError,
        getattr(errors, "StrictDataclassError", OSError),
    ) as error:
        raise InputError(f"{folder}: cannot be loaded ({first_line(error)})") from error
    if missing := missing - {"masked_spec_embed"}:  # used in training only
        raise InputError(f"{folder}: the weights lack {min(missing)}")
    if extractor.sampling_rate != SAMPLE_RATE:
        raise InputError(f"{folder}: hears {extractor.sampling_rate} Hz, expected {SAMPLE_RATE}")
    return model.float().eval().requires_grad_(False), extractor


class EncoderHead(Network):
    """Head on features `[B, layers, steps, size]`: logits `[B, E]`.

    The layers are summed with softmax weights and the sum is normalised. The attention head then
    weighs the steps; steps of zeros are padding.
    """

    architecture = "emovox.encoder-head"

    def __init__(
        self,
        config: HeadConfig,
        generator: torch.Generator | None = None,
        outputs: Outputs = Network.outputs,
    ) -> None:
        super().__init__()
        self.outputs, self.config, self.embedding_size = outputs, config, config.size
        self.layers = nn.Parameter(torch.zeros(config.num_layers))
        self.norm = nn.LayerNorm(config.size)
        self.classifier = nn.Linear(config.size, len(outputs))
        nn.init.normal_(self.classifier.weight, 0, config.size**-0.5, generator)
        nn.init.zeros_(self.classifier.bias)
        if config.head == ATTENTION:  # of weights 0, so that it begins as a mean
            self.attention = nn.Parameter(torch.zeros(config.size))

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.embed(features))
        return logits

    def embed(self, features: Tensor) -> Tensor:
        """Return the input of the last layer, `[B, size]`."""
        mixed = self.norm(torch.einsum("l,blsd->bsd", self.layers.softmax(dim=0), features))
        if self.config.head != ATTENTION:
            return mixed[:, 0]
        padding = (features == 0).all(dim=3).all(dim=1)
        scores = (mixed @ self.attention).masked_fill(padding, torch.finfo(mixed.dtype).min)
        return torch.einsum("bs,bsd->bd", scores.softmax(dim=1), mixed)
