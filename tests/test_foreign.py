"""Teachers of other formats: ONNX files with sidecars, and classifiers of Hugging Face."""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import emovox
from emovox import checkpoints
from emovox.emotions import EMOTIONS
from emovox.errors import ConfigError, InputError, NetworkError
from emovox.teacher import find_teacher, sidecar, teacher_checkpoint
from emovox.teacher.teacher_checkpoint import CompactNet, standardise
from emovox.testing import write_clip

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

DESCRIPTION: Mapping[str, Any] = {
    "input_size": 48,
    "colour": "grey",
    "layout": "NCHW",
    "scale": 1.0,
    "mean": [0.0],
    "deviation": [1.0],
    "outputs": list(EMOTIONS),
    "kind": "logits",
    "licence": "MIT",
    "source": "tests",
}
SEVEN = [name for name in EMOTIONS if name != "contempt"]


class Means(nn.Module):
    """Channel means times fixed weights: a network that can be computed by hand."""

    def __init__(self, channels: int, outputs: int, *, last: bool = False, softmax: bool = False):
        super().__init__()
        draw = torch.Generator().manual_seed(1)
        self.weights = nn.Parameter(torch.randn(channels, outputs, generator=draw))
        self.dims, self.softmax = ((1, 2) if last else (2, 3)), softmax

    def forward(self, x: Tensor) -> Tensor:
        y = x.mean(dim=self.dims) @ self.weights
        return torch.softmax(y, dim=1) if self.softmax else y


def export(net: nn.Module, path: Path, shape: tuple[int, ...], *, fixed: bool = False) -> Path:
    axes = {} if fixed else {"input": {0: "batch"}}
    torch.onnx.export(
        net.eval(),
        (torch.zeros(shape),),
        str(path),
        input_names=["input"],
        dynamic_axes=axes,
        dynamo=False,
    )
    return path


def describe(path: Path, **changes: Any) -> Path:
    values = {key: v for key, v in (dict(DESCRIPTION) | changes).items() if v is not None}
    shown = {"NaN": "nan", "[Infinity]": "[inf]"}  # JSON and TOML differ
    texts = {key: json.dumps(value) for key, value in values.items()}
    lines = [f"{key} = {shown.get(text, text)}" for key, text in texts.items()]
    path.with_suffix(".toml").write_text("\n".join(lines))
    return path


def crops(num: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def compact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded network as an ONNX file that standardises its input itself."""

    class Standardised(nn.Module):
        def __init__(self, net: CompactNet) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(standardise(x))  # type: ignore[no-any-return]

    net = checkpoints.load(find_teacher("compact").path, teacher_checkpoint.ARCHITECTURES)
    assert isinstance(net, CompactNet)
    path = tmp_path_factory.mktemp("onnx") / "exported.onnx"
    return describe(export(Standardised(net), path, (2, 1, 48, 48)))


# ONNX


def test_the_exported_embedded_network_gives_its_own_logits(compact: Path) -> None:
    own = emovox.load_teacher("compact", "cpu", "fp32")
    exported = emovox.load_teacher(compact)
    assert exported.emotions == EMOTIONS and exported.input_size == 48
    faces = crops(71, 48)
    np.testing.assert_allclose(exported(faces), own(faces), atol=1e-4)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_pixels_are_prepared_as_described(
    tmp_path: Path, layout: str, colour: str, fixed: bool
) -> None:
    """Colours, layouts and a fixed batch size of 3, which divides no batch of ours."""
    mean, deviation, scale = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7], 1 / 255
    names = ["sadness", "neutral", "anger"]
    net = Means(3, 3, last=layout == "NHWC")
    shape = (3, 16, 16, 3) if layout == "NHWC" else (3, 3, 16, 16)
    path = export(net, tmp_path / "a.onnx", shape, fixed=fixed)
    options = {"mean": mean, "deviation": deviation, "scale": scale, "outputs": names}
    describe(path, input_size=16, colour=colour, layout=layout, **options)
    teacher = emovox.load_teacher(path, "cpu")
    assert teacher.emotions == ("neutral", "sadness", "anger")  # in the published order
    faces = crops(70, 16)
    pixels = faces.astype(np.float64).mean(axis=(1, 2))
    if colour == "bgr":
        pixels = pixels[:, ::-1]
    expected = (pixels / 255 - mean) / deviation @ net.weights.detach().numpy()
    np.testing.assert_allclose(teacher(faces), expected[:, [1, 0, 2]], atol=1e-4)


def test_probabilities_become_logits_and_values_stay(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.emotions, self.values = Means(3, 7, softmax=True), Means(3, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.emotions(x), self.values(x)

    net = Two()
    path = export(net, tmp_path / "two.onnx", (1, 3, 16, 16))
    outputs = [*reversed(SEVEN), "arousal", "", "valence"]
    options = {"outputs": outputs, "values": ["valence", "arousal"], "kind": "probabilities"}
    describe(path, input_size=16, colour="rgb", scale=1 / 255, **options)
    teacher = emovox.load_teacher(path)
    assert teacher.emotions == tuple(SEVEN) and teacher.values == ("valence", "arousal")
    found = teacher(crops(5, 16))
    means = torch.tensor(crops(5, 16) / 255, dtype=torch.float32).permute(0, 3, 1, 2)
    emotions, values = (part.detach().numpy() for part in net(means))
    np.testing.assert_allclose(found[:, :7], np.log(emotions[:, ::-1]), atol=1e-4)
    np.testing.assert_allclose(found[:, 7:], values[:, [2, 0]], atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"colour": None, "mean": None}, "missing keys: colour, mean"),
        ({"colour": "blue"}, "colour 'blue' is not one of rgb, bgr, grey"),
        ({"mean": [1.0, 2.0]}, "mean: expected 1 number, or 1 per channel of grey"),
        ({"deviation": [0.0]}, "not a finite number, or deviation 0"),
        ({"mean": [math.inf]}, "not a finite number"),
        ({"scale": math.nan}, "not a finite number"),
        ({"values": ["valence"]}, "values: 'valence' is not one of the outputs"),
        ({"outputs": ["Anger", "fear"]}, "invalid name 'Anger'"),
        ({"size": 3}, "unknown key 'size'"),
        ({"outputs": SEVEN}, "expected 7 outputs, as in its description; found 8"),
        ({"input_size": 64}, "cannot be run as described ([ONNXRuntimeError]"),
        ({"input_size": 64}, "index: 2 Got: 64 Expected: 48"),
        ({"colour": "rgb"}, "index: 1 Got: 3 Expected: 1"),
        ({"layout": "NHWC"}, "index: 1 Got: 48 Expected: 1"),
        ({"sha256": "0" * 64}, "expected sha256 0000"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    compact: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = describe(Path(shutil.copy(compact, tmp_path)), **changes)
    with pytest.raises((ConfigError, InputError)) as error:
        emovox.load_teacher(path)
    assert words in str(error.value) and str(tmp_path) in str(error.value)


def test_graphs_that_fail_only_when_they_run(tmp_path: Path) -> None:
    """A flexible graph accepts every size until its first matrix product."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
    axes = {"input": {0: "batch", 2: "height", 3: "width"}}
    arguments = (net.eval(), (torch.zeros(1, 3, 16, 16),), str(tmp_path / "a.onnx"))
    torch.onnx.export(*arguments, input_names=["input"], dynamic_axes=axes, dynamo=False)
    options = {"colour": "rgb", "outputs": ["fear", "anger", "joyless"]}
    assert emovox.load_teacher(describe(tmp_path / "a.onnx", input_size=16, **options))
    with pytest.raises(InputError, match=r"a\.onnx: cannot be run"):
        emovox.load_teacher(describe(tmp_path / "a.onnx", input_size=24, **options))


def test_missing_and_damaged_files(compact: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        emovox.load_teacher(tmp_path / "none.onnx")
    with pytest.raises(ConfigError, match=r"exported\.toml: not found; write it"):
        emovox.load_teacher(Path(shutil.copy(compact, tmp_path)))
    (tmp_path / "bad.onnx").write_bytes(compact.read_bytes()[:5000])
    with pytest.raises(InputError, match="not an ONNX network"):
        emovox.load_teacher(describe(tmp_path / "bad.onnx"))
    with pytest.raises(ConfigError, match="runs in fp32"):
        emovox.load_teacher(compact, precision="bf16")


@pytest.mark.parametrize("path", sorted(sidecar.SIDECARS.glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_descriptions_are_found_by_file_name(path: Path, tmp_path: Path) -> None:
    """A network of that shape stands in for the weights, and gives the order of SPEC's tables."""
    text = path.read_text()
    assert text.startswith("# Not run here") and "https://" in text
    network = tmp_path / f"{path.stem}.onnx"
    network.write_bytes(b"")
    weights = find_teacher(network)
    assert isinstance(weights, sidecar.ForeignWeights)
    found = weights.sidecar
    assert isinstance(found, sidecar.Sidecar)
    channels = sidecar.CHANNELS[found.colour]
    shape = (1, channels, found.input_size, found.input_size)
    net = Means(channels, len(found.outputs))
    export(net, network, shape, fixed=True)
    teacher = emovox.load_teacher(network)
    expected = SEVEN if path.stem.endswith("_7") else list(EMOTIONS)
    assert list(teacher.emotions) == expected
    take = {
        "enet_b2_7": [4, 3, 6, 5, 0, 1, 2],
        "emotion-ferplus-8": [0, 1, 2, 3, 4, 5, 6, 7],
    }.get(path.stem, [5, 4, 7, 6, 0, 2, 3, 1])
    assert found.arrange()[1][: len(expected)] == take
    assert teacher(crops(2, found.input_size)).shape == (2, len(found.outputs))


def test_a_downloaded_network_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "teachers"
    cache.mkdir()
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="emovox download teacher --list"):
        emovox.load_teacher("emotion-ferplus-8.onnx")
    export(Means(1, 8), cache / "emotion-ferplus-8.onnx", (1, 1, 64, 64), fixed=True)
    assert emovox.load_teacher("emotion-ferplus-8.onnx").emotions == EMOTIONS


def test_outputs_that_are_not_finite_end_a_build(tmp_path: Path, in_process: None) -> None:
    net = Means(1, 8)
    net.weights.data[0, 0] = math.nan
    path = describe(export(net, tmp_path / "a.onnx", (1, 1, 48, 48)))
    write_clip(tmp_path / "corpus/mp4/id00001/a/00001.mp4", 30)
    options: dict[str, Any] = {"layout": "voxceleb2", "root": tmp_path / "corpus"}
    with pytest.raises(InputError, match="teacher: gives outputs that are not finite"):
        emovox.build_dataset(out=tmp_path / "out", teacher=str(path), **options)
    assert not (tmp_path / "out/manifest.json").exists()


# Hugging Face


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random ViT with the usual names of emotions."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    names = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(names)),
        label2id={name: k for k, name in enumerate(names)},
    )
    folder = tmp_path_factory.mktemp("hub") / "faces-vit"
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    processor = {
        "size": {"height": 32, "width": 32},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def test_classifier_of_hugging_face(classifier: Path) -> None:
    import transformers

    teacher = emovox.load_teacher(f"hf:{classifier}", "cpu")
    assert teacher.emotions == tuple(SEVEN) and teacher.name == "faces-vit"
    faces = crops(3, 32)
    model = transformers.ViTForImageClassification.from_pretrained(classifier)
    pixels = (torch.tensor(faces / 255, dtype=torch.float32).permute(0, 3, 1, 2) - 0.5) / 0.25
    with torch.no_grad():
        expected = model(pixel_values=pixels).logits.numpy()
    order = [4, 3, 6, 5, 0, 1, 2]
    np.testing.assert_allclose(teacher(faces), expected[:, order], atol=1e-4)


def test_an_embedding_is_the_input_of_the_last_layer(classifier: Path, compact: Path) -> None:
    teacher = emovox.load_teacher(f"hf:{classifier}", "cpu")
    weights = load_file(classifier / "model.safetensors")
    last = weights["classifier.weight"].numpy(), weights["classifier.bias"].numpy()
    faces = crops(5, teacher.input_size)
    expected = teacher.embed(faces) @ last[0].T + last[1]
    assert np.allclose(np.sort(expected), np.sort(teacher(faces)), atol=1e-4)  # in another order
    assert emovox.load_teacher(compact).embed(crops(5, 48)).shape == (5, 0)


def test_pixels_are_those_of_the_processor(classifier: Path, tmp_path: Path) -> None:
    """MobileViT's has other defaults: blue first, and neither mean nor deviation."""
    import transformers

    folder = tmp_path / "mobile"
    shutil.copytree(classifier, folder)
    processor = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor |= {"image_processor_type": "MobileViTImageProcessor"}  # type: ignore[dict-item]
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    faces = crops(3, 32)
    model = transformers.ViTForImageClassification.from_pretrained(classifier)
    pixels = torch.tensor(faces[..., ::-1] / 255, dtype=torch.float32).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = model(pixel_values=pixels).logits.numpy()
    found = emovox.load_teacher(f"hf:{folder}", "cpu")(faces)
    np.testing.assert_allclose(found, expected[:, [4, 3, 6, 5, 0, 1, 2]], atol=1e-4)


def test_classifiers_of_the_hub(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot has the name of its commit; the teacher has that of the repository."""
    import huggingface_hub

    commit = classifier.rename(classifier.parent / "0a1b2c3d")

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        if name != "org/faces":
            raise huggingface_hub.errors.LocalEntryNotFoundError("offline")
        return str(commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    weights = find_teacher("hf:org/faces")
    commit.rename(classifier)
    assert isinstance(weights, sidecar.ForeignWeights)
    assert weights.name == "faces"
    assert weights.sidecar.source == "https://huggingface.co/org/faces"
    with pytest.raises(NetworkError, match="nor on the Hub, or offline"):
        find_teacher("hf:org/other")


def test_older_weights_files_and_crops(classifier: Path, tmp_path: Path) -> None:
    """`pytorch_model.bin` gives the same logits; with do_center_crop only the middle is seen."""
    folder = tmp_path / "old"
    shutil.copytree(classifier, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    processor |= {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32}
    processor["image_processor_type"] = "BitImageProcessor"  # that of ViT does not crop
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    old, new = emovox.load_teacher(f"hf:{folder}"), emovox.load_teacher(f"hf:{classifier}")
    assert old.input_size == 40
    faces = crops(2, 40)
    np.testing.assert_allclose(old(faces), new(faces[:, 4:-4, 4:-4]), atol=1e-5)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("evil").touch, ())


def test_code_in_a_folder_is_never_run(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "folder"
    shutil.copytree(classifier, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded"):
        emovox.load_teacher(f"hf:{folder}")
    shutil.copy(classifier / "model.safetensors", folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForImageClassification": "model.Model"}, "model_type": "own"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.py").write_text("from pathlib import Path\nPath('evil').touch()\n")
    with pytest.raises(InputError, match="cannot be loaded"):
        emovox.load_teacher(f"hf:{folder}")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "found LABEL_0"),
        ("config.json", {}, "do not describe an image classifier"),
        ("config.json", [], "not a JSON object"),
        ("preprocessor_config.json", {}, "do not describe an image classifier"),
        ("preprocessor_config.json", None, "cannot be read"),
        ("preprocessor_config.json", {"size": {"height": 32, "width": 16}}, "expected a square"),
        ("preprocessor_config.json", {"size": 10**6}, "expected a square of 8 to 1024 pixels"),
        ("model.safetensors", None, "expected model.safetensors or pytorch_model.bin"),
        ("model.safetensors", {}, "cannot be loaded"),
    ],
)
def test_folders_that_do_not_fit(
    classifier: Path, tmp_path: Path, file: str, content: Any, words: str
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(classifier, folder)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(json.dumps(content))
    with pytest.raises((ConfigError, InputError)) as error:
        emovox.load_teacher(f"hf:{folder}")
    assert words in str(error.value)


# Labelling


def test_datasets_of_other_teachers(
    compact: Path, classifier: Path, tmp_path: Path, in_process: None
) -> None:
    """Each has its own columns; description and option are part of the resume fingerprint."""
    root = tmp_path / "corpus"
    write_clip(root / "mp4/id00001/a/00001.mp4", 30)
    options: dict[str, Any] = {"layout": "voxceleb2", "root": root, "splits": "auto"}

    def build(teacher: Path | str, name: str, **more: Any) -> emovox.Dataset:
        out = tmp_path / name
        emovox.build_dataset(out=out, teacher=str(teacher), **options, **more)
        assert emovox.validate(out).valid
        return emovox.load(out)

    own = build("compact", "own", precision="fp32")
    exported = build(compact, "exported")
    np.testing.assert_allclose(exported.to_numpy("train")[0], own.to_numpy("train")[0], atol=1e-3)
    provenance = json.loads((tmp_path / "exported/provenance.json").read_text())
    assert provenance["teacher"]["description"]["kind"] == "logits"
    assert provenance["config"]["precision"] == "fp32"
    assert build(f"hf:{classifier}", "hub").emotions == tuple(SEVEN)
    other = describe(Path(shutil.copy(compact, tmp_path)), scale=0.5)
    with pytest.raises(InputError, match="labelled again with another description of the teacher"):
        build(other, "exported")
