"""Frozen encoders of Hugging Face: their features, the head trained on them, and its student."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from student_fixtures import QUICK

import emovox
from emovox import checkpoints
from emovox.cli import main
from emovox.emotions import EMOTIONS
from emovox.errors import ConfigError, InputError, MissingPackageError, NetworkError
from emovox.student import networks
from emovox.student.clips import CENTRE, WHOLE
from emovox.student.encoder import Encoder, EncoderHead, HeadConfig
from emovox.student.student_config import StudentTrainConfig
from emovox.student.training import train_epochs

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = pytest.mark.usefixtures("one_thread")

SPEECH: dict[str, Any] = {
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"intermediate_size": 16, "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16},
    "num_conv_pos_embedding_groups": 2,
}
WHISPER = {
    **{"d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2},
    **{"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16},
    **{"vocab_size": 20, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "decoder_start_token_id": 1,
}
SHAPES: dict[str, dict[str, Any]] = {
    "Wav2Vec2": SPEECH | {"feat_extract_norm": "layer", "do_stable_layer_norm": True},
    "Hubert": SPEECH,
    "WavLM": SPEECH,
    "Whisper": WHISPER,
}
NOISE = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)


def save_encoder(folder: Path, kind: str) -> Path:
    """Save a tiny random encoder; WavLM as published, in `pytorch_model.bin` alone."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SHAPES[kind])
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    extractor = "WhisperFeatureExtractor" if kind == "Whisper" else "Wav2Vec2FeatureExtractor"
    getattr(transformers, extractor)().save_pretrained(folder)
    if kind == "WavLM":
        weights = load_file(folder / "model.safetensors")
        older = {"original0": "weight_g", "original1": "weight_v"}
        for new, old in older.items():
            key = "encoder.pos_conv_embed.conv."
            weights[key + old] = weights.pop(f"{key}parametrizations.weight.{new}")
        torch.save(weights, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    return {kind: save_encoder(root / f"random-{kind.lower()}", kind) for kind in SHAPES}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def features(folder: Path, samples: np.ndarray, **options: Any) -> np.ndarray:
    return Encoder(HeadConfig(f"hf:{folder}", **options), "cpu")([samples])[0].numpy()


def hidden_states(folder: Path, kind: str, samples: np.ndarray) -> np.ndarray:
    """Hidden states `[3, T, 16]` of samples without padding, from transformers alone."""
    model = getattr(transformers, f"{kind}Model").from_pretrained(
        folder, use_safetensors=kind != "WavLM"
    )
    if kind == "Whisper":
        extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
        inputs = extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features
        model = model.encoder
    else:  # do_normalize
        scaled = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        inputs = torch.from_numpy(scaled)[None]
    with torch.no_grad():
        found = model.eval()(inputs, output_hidden_states=True).hidden_states
    length = -(-len(samples) // 320)
    return np.concatenate([layer.numpy() for layer in found])[:, :length]


@pytest.mark.parametrize("kind", SHAPES)
def test_features_are_means_over_time_without_padding(folders: dict[str, Path], kind: str) -> None:
    expected = hidden_states(folders[kind], kind, NOISE[:20_000])
    padded = np.pad(NOISE[:20_000], (0, 12_000))
    found = features(folders[kind], padded)
    np.testing.assert_allclose(found[:, 0], expected.mean(axis=1), rtol=2e-3, atol=2e-3)
    one = features(folders[kind], padded, layer=1)
    np.testing.assert_array_equal(one, found[1:2])
    steps = features(folders[kind], padded, head="attention")
    means = [expected[:, k : k + 12].mean(axis=1) for k in range(0, expected.shape[1], 12)]
    np.testing.assert_allclose(steps, np.stack(means, axis=1), rtol=2e-3, atol=2e-3)
    assert features(folders[kind], NOISE[:100]).shape == (3, 1, 16), "very short"
    assert np.isfinite(features(folders[kind], np.zeros(16_000, np.float32))).all(), "silence"


def test_long_sound_is_encoded_in_pieces(folders: dict[str, Path]) -> None:
    long = np.random.default_rng(1).normal(0, 0.1, 31 * 16_000).astype(np.float32)
    halves = [hidden_states(folders["Whisper"], "Whisper", x) for x in np.split(long, 2)]
    expected = np.concatenate(halves, axis=1).mean(axis=1)
    found = features(folders["Whisper"], long)[:, 0]
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


@pytest.mark.parametrize("head", ["linear", "attention"])
def test_head_equals_the_formulas(head: str) -> None:
    """Weighted sum of layers, normalisation, weighted sum of steps; padded steps do not count."""
    num_steps = 4 if head == "attention" else 1
    config = HeadConfig("hf:x", None, head, "", 3, 5)
    torch.manual_seed(0)
    net = EncoderHead(config)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    features = np.random.default_rng(0).normal(size=(3, num_steps, 5)).astype(np.float32)
    weights = {name: value.detach().numpy() for name, value in net.named_parameters()}
    mixed = np.tensordot(softmax(weights["layers"]), features, 1)
    centred = mixed - mixed.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    scaled = scaled * weights["norm.weight"] + weights["norm.bias"]
    shares = softmax(scaled @ weights["attention"])
    expected = weights["fc8.weight"] @ (shares @ scaled) + weights["fc8.bias"]
    padding = ((0, 0), (0, 3 if head == "attention" else 0), (0, 0))
    found = net(torch.from_numpy(np.pad(features, padding))[None])
    np.testing.assert_allclose(found[0].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_features_are_computed_once(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    folder = folders["Hubert"]
    first = features(folder, NOISE)
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "_encode", None)
        np.testing.assert_array_equal(features(folder, NOISE), first)
        np.testing.assert_array_equal(features(folder, np.pad(NOISE, (0, 500))), first)
        for others in ({"samples": NOISE[1:]}, {"layer": 2}):
            with pytest.raises(TypeError):
                features(folder, **({"samples": NOISE} | others))
    (kept,) = (own_cache / "features").iterdir()
    kept.write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"cannot be used .* remove it"):
        features(folder, NOISE)


# Folders that are refused


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("evil").touch, ())


def test_code_is_never_run(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "folder"
    shutil.copytree(folders["WavLM"], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "model.py").write_text("from pathlib import Path\nPath('evil').touch()\n")
    config["auto_map"] = {"AutoModel": "model.Model", "AutoConfig": "model.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(features(folder, NOISE), features(folders["WavLM"], NOISE))
    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="expected a PyTorch state dict; found"):
        features(folder, NOISE)
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own"}))
    with pytest.raises(InputError, match="model_type is 'own', expected one of wav2vec2, hubert"):
        features(folder, NOISE)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", None, "cannot be read"),
        ("config.json", {"model_type": "hubert", "hidden_size": 17}, "cannot be loaded"),
        ("config.json", {"model_type": "hubert", "hidden_size": "x"}, "cannot be loaded"),
        ("preprocessor_config.json", None, "cannot be loaded"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "8000"),
        ("model.safetensors", None, "expected model.safetensors or pytorch_model.bin"),
        ("model.safetensors", {}, "cannot be loaded"),
    ],
)
def test_folders_that_do_not_fit(
    folders: dict[str, Path], tmp_path: Path, file: str, content: Any, words: str
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(folders["Hubert"], folder)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(json.dumps(content))
    with pytest.raises(InputError) as error:
        features(folder, NOISE)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_names_and_layers(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="expected hf: and a folder"):
        Encoder(HeadConfig("facebook/hubert-base-ls960"), "cpu")
    with pytest.raises(NetworkError, match="encoder '/none': neither a folder nor on the Hub"):
        Encoder(HeadConfig("hf:/none"), "cpu")
    with pytest.raises(ConfigError, match="has the layers 0 to 2"):
        features(folders["Hubert"], NOISE, layer=3)
    monkeypatch.setitem(sys.modules, "transformers", None)
    words = r"transformers is not installed; run: pip install 'emovox\[transformers\]'"
    with pytest.raises(MissingPackageError, match=words):
        features(folders["Hubert"], NOISE)


# Training


def learn(data: Path, out: Path, config: StudentTrainConfig) -> Path:
    list(train_epochs(data / "dataset", data / "audio", out, config))
    return out / "best.safetensors"


def recipe(folder: Path, **options: Any) -> StudentTrainConfig:
    return replace(QUICK, encoder=f"hf:{folder}", learning_rate=0.1, **options)


@pytest.mark.parametrize("options", [{"layer": 1}, {"head": "attention"}])
def test_layer_and_head_need_an_encoder(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="pass --encoder too"):
        replace(QUICK, **options)


@pytest.mark.parametrize(("kind", "head"), [("Hubert", "attention"), ("Wav2Vec2", "linear")])
def test_a_student_on_an_encoder(
    folders: dict[str, Path], student_data: Path, tmp_path: Path, kind: str, head: str
) -> None:
    folder = shutil.copytree(folders[kind], tmp_path / "encoder")
    path = learn(student_data, tmp_path / "run", recipe(folder, head=head))
    header = checkpoints.load(path, networks.ARCHITECTURES).config
    assert isinstance(header, HeadConfig)
    assert (header.encoder, header.head) == (f"hf:{folder}", head)
    assert str(folder) not in (tmp_path / "run/config.json").read_text()
    assert path.stat().st_size < 20_000, "without the weights of the encoder"
    student = emovox.load_student(path, "cpu", "bf16")
    assert student.emotions == EMOTIONS
    utterances = [NOISE, NOISE[:8000]]
    for part in (None, CENTRE, WHOLE):
        alone = np.concatenate([student(x, part) for x in utterances])
        np.testing.assert_allclose(student(utterances, part), alone, atol=1e-5)
        assert student.embed(utterances, part).shape == (2, 16)
    audio = student_data / "audio"
    result = emovox.evaluate(path, student_data / "dataset", audio, device="cpu")
    assert result.splits["heard_val"].num_tracks
    wav = next(audio.rglob("*.wav"))
    (row, *_) = emovox.predict(wav, student=path, device="cpu")
    assert row["student"] in EMOTIONS
    (folder / "preprocessor_config.json").touch()
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="weights differ; restore those of sha256"):
        emovox.load_student(path)
    shutil.rmtree(folder)
    with pytest.raises(NetworkError, match="neither a folder nor on the Hub"):
        emovox.load_student(path)


def test_the_head_learns_from_fixed_segments(
    folders: dict[str, Path], student_data: Path, tmp_path: Path, own_cache: Path
) -> None:
    """The loss decreases, and later epochs use the features of the first ones."""
    config = recipe(folders["Wav2Vec2"], epochs=8, seconds=1.0)
    records = list(
        train_epochs(student_data / "dataset", student_data / "audio", tmp_path / "run", config)
    )
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    import sqlite3

    (kept,) = (own_cache / "features").iterdir()
    (count,) = sqlite3.connect(kept).execute("SELECT COUNT(*) FROM features").fetchone()
    # 60 tracks of 0.8 to 2.2 s have at most 4 windows of 1 s; 30 tracks are validated.
    assert count <= 60 * 4 + 30


@pytest.mark.slow
@pytest.mark.parametrize("head", ["linear", "attention"])
def test_killed_training_resumes_to_the_same_weights(
    folders: dict[str, Path], student_data: Path, tmp_path: Path, head: str, own_cache: Path
) -> None:
    """Also with features of other runs in the cache, or none."""
    config = recipe(folders["Hubert"], head=head, epochs=4)
    expected = load_file(learn(student_data, tmp_path / "whole", config))
    shutil.rmtree(own_cache)
    out, file = tmp_path / "killed", tmp_path / "recipe.toml"
    values = {k: v for k, v in vars(config).items() if v is not None}
    lines = (f"{k} = {json.dumps(v)}\n" for k, v in values.items())
    file.write_text("".join(lines))
    places = [student_data / "dataset", file, "--audio", student_data / "audio", "--out", out]
    command = [sys.executable, "-m", "emovox", "train-student", *map(str, places)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (out / "last.pt").exists():
        time.sleep(0.01)
    time.sleep(0.1)
    process.kill()
    process.wait()
    assert torch.load(out / "last.pt", weights_only=True)["epoch"] < 4
    found = load_file(learn(student_data, out, config))
    assert found.keys() == expected.keys()
    assert max(float((found[key] - expected[key]).abs().max()) for key in found) == 0.0


def test_probe_beside_the_baseline(
    folders: dict[str, Path], student_data: Path, tmp_path: Path
) -> None:
    path = learn(student_data, tmp_path / "run", recipe(folders["Hubert"], epochs=1))
    wavs = sorted((student_data / "audio").rglob("*.wav"))[:20]
    table = tmp_path / "labels.csv"
    rows = (f"{wav},{('anger', 'fear')[k % 2]},{k % 4}\n" for k, wav in enumerate(wavs))
    table.write_text("path,label,speaker\n" + "".join(rows))
    options = ["--encoder", f"hf:{folders['Whisper']}", "--folds", "2", "--jobs", "1"]
    shown = CliRunner().invoke(main, ["probe", str(path), str(table), *options, "--device", "cpu"])
    assert shown.exit_code == 0, shown.output
    assert "run logits" in shown.output
    assert "random-whisper embedding" in shown.output
    options = [*options, "--format", "json"]
    found = CliRunner().invoke(main, ["probe", str(path), str(table), *options])
    assert str(folders["Whisper"]) not in found.stdout
    with pytest.raises(ConfigError, match="or encoder: requires a student"):
        emovox.probe("compact", table, encoder=f"hf:{folders['Whisper']}")
