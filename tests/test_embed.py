"""Embeddings of teachers, and mirror averaging."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

import emovox
from emovox.dataset import schema
from emovox.dataset.card import card_of
from emovox.dataset.store import embedding_array
from emovox.devices import Runtime
from emovox.errors import ConfigError, InputError
from emovox.labelling.plan import make_plan
from emovox.teacher import find_teacher
from emovox.testing import FakeTeacher, InlineEngine, write_clip

CLIPS = ("id00001/video/00001", "id00001/video/00002", "id00002/other/00001")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    for number, clip in enumerate(CLIPS):
        write_clip(root / f"mp4/{clip}.mp4", 20 + 10 * number)
    return root


@pytest.fixture(scope="module")
def plain(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(corpus, tmp_path_factory.mktemp("built") / "plain")


def build(corpus: Path, out: Path, **options: Any) -> Path:
    emovox.build_dataset(layout="voxceleb2", root=corpus, out=out, name="e", jobs=1, **options)
    return out


def embeddings(dataset: Path) -> dict[str, list[dict[str, Any]]]:
    tables = sorted((dataset / "embeddings").iterdir())
    return {path.name: pq.read_table(path).to_pylist() for path in tables}


def random_crops(size: int, num: int = 70) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (num, size, size, 3), np.uint8)


def test_an_embedding_is_the_input_of_the_last_layer() -> None:
    teacher = emovox.load_teacher("compact", "cpu", "fp32")
    weights = load_file(emovox.teacher.find_teacher("compact").path)
    crops = random_crops(48)
    embedding = teacher.embed(crops)
    assert embedding.shape == (70, teacher.embedding_size) and embedding.dtype == np.float32
    last = weights["classifier.weight"].astype(float), weights["classifier.bias"].astype(float)
    np.testing.assert_allclose(embedding @ last[0].T + last[1], teacher(crops), atol=1e-4)


def test_mirror_averages_each_face_with_its_mirror_image() -> None:
    plain = emovox.load_teacher("compact", "cpu", "fp32")
    mirrored = emovox.load_teacher("compact", "cpu", "fp32", mirror=True)
    crops = random_crops(48)
    flipped = np.ascontiguousarray(crops[:, :, ::-1])
    expected = (plain(crops) + plain(flipped)) / 2
    np.testing.assert_allclose(mirrored(crops), expected, atol=1e-5)
    assert abs(plain(crops) - expected).max() > 0.01


def test_a_build_and_embed_write_the_same_embeddings(
    corpus: Path, plain: Path, tmp_path: Path
) -> None:
    at_once = build(corpus, tmp_path / "at-once", embeddings=True)
    assert emovox.validate(at_once).valid
    for _ in range(2):  # the second time the table exists, and is damaged
        later = emovox.embed(plain, root=corpus, jobs=1)
        assert emovox.validate(plain).valid
        assert embeddings(plain) == embeddings(at_once)
        first = next((plain / "embeddings").iterdir())
        whole = first.read_bytes()
        first.write_bytes(b"of an interrupted run")
    first.write_bytes(whole)
    assert repr(later).startswith("<Dataset e 0.1.0: 3 tracks")
    assert emovox.diff(at_once, plain).bump.level in ("none", "patch")
    network = find_teacher("compact")
    words = f"`embeddings` has the activations of `compact`, weights sha256 `{network.sha256}`."
    assert all(words in (out / "README.md").read_text() for out in (at_once, plain))
    rows = embeddings(at_once)
    assert sum(map(len, rows.values())) == later.manifest["totals"]["frames"]


def test_embeddings_of_a_fake_teacher_are_those_of_its_crops(corpus: Path, tmp_path: Path) -> None:
    """Mean red over the face is the mean of its strips, which are the fake's logits."""
    engine = InlineEngine(FakeTeacher())
    out = build(corpus, tmp_path / "fake", embeddings=True, engine=engine)
    for name, rows in embeddings(out).items():
        frames = pq.read_table(out / "frames" / name).to_pylist()
        means = [np.mean([row[n] for n in row if n.startswith("logit_")]) for row in frames]
        found = [row["embedding"][0] for row in rows]
        np.testing.assert_allclose(found, means, rtol=1e-3)  # float16


@pytest.mark.parametrize("option", [{"mirror": True}, {"embeddings": True}, {}])
def test_options_change_the_fingerprint(corpus: Path, option: dict[str, bool]) -> None:
    def runtime(*_: object) -> Runtime:
        return Runtime("cpu", "fp32", False, "a processor")

    def fingerprints(**options: Any) -> list[str]:
        config = emovox.BuildConfig("voxceleb2", corpus, Path("out"), **options)
        return [shard.fingerprint for shard in make_plan(config, runtime).shards]

    assert (fingerprints() == fingerprints(**option)) == (not option)


def test_another_corpus_is_refused(plain: Path, tmp_path: Path) -> None:
    for clip in CLIPS:
        write_clip(tmp_path / f"other/mp4/{clip}.mp4", 4)
    before = {p: p.read_bytes() for p in plain.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=r"id00001/video/00001: .* pictures differ"):
        emovox.embed(plain, root=tmp_path / "other", jobs=1)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="the pictures of id00001/video/00001 are missing"):
        emovox.embed(plain, root=tmp_path / "none", jobs=1)
    assert before == {p: p.read_bytes() for p in plain.rglob("*") if p.is_file()}


def test_another_video_of_the_same_times_is_refused(corpus: Path, tmp_path: Path) -> None:
    out = build(corpus, tmp_path / "built")
    noise = np.random.default_rng(0).integers(0, 256, (40, 224, 224, 3), np.uint8)
    for clip in CLIPS:
        write_clip(tmp_path / f"other/mp4/{clip}.mp4", noise)
    with pytest.raises(InputError, match=r"id00001/video/00001: .* pictures differ"):
        emovox.embed(out, root=tmp_path / "other", jobs=1)


def test_datasets_of_different_embeddings_are_compared(corpus: Path, tmp_path: Path) -> None:
    old = build(corpus, tmp_path / "old", embeddings=True)
    engine = InlineEngine(FakeTeacher())
    new = build(corpus, tmp_path / "new", embeddings=True, engine=engine)
    found = emovox.diff(old, new)
    assert found.embeddings_changed == found.frames.common > 0


def test_damaged_datasets_and_other_teachers_are_refused(
    corpus: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    build(corpus, copy)
    faces = next((copy / "faces").iterdir())
    faces.write_bytes(faces.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"faces/{faces.name} differs; run: emovox validate"):
        emovox.embed(copy, root=corpus)
    monkeypatch.setattr(FakeTeacher, "embedding_size", 0)
    with pytest.raises(InputError, match="teacher fake: gives no embeddings; leave out --embed"):
        build(corpus, tmp_path / "no", embeddings=True, engine=InlineEngine(FakeTeacher()))


def test_numbers_beyond_float16_are_refused() -> None:
    kind = schema.EIGHT.of("embeddings", 2).field("embedding").type
    assert embedding_array(np.ones((3, 2), np.float32)).type == kind
    with pytest.raises(InputError, match="a number exceeds 65504"):
        embedding_array(np.full((3, 2), 1e6, np.float32))


def test_card_of_damaged_provenance_is_one_error(corpus: Path, tmp_path: Path) -> None:
    out = build(corpus, tmp_path / "out", embeddings=True)
    path = out / schema.PROVENANCE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"embeddings": 5}))
    with pytest.raises(InputError, match="'int object' has no attribute"):
        card_of(out)
    assert not emovox.validate(out).valid


def test_wrong_card_fields_are_found_before_the_work(corpus: Path, tmp_path: Path) -> None:
    out = build(corpus, tmp_path / "out")
    (out / schema.CARD_FIELDS).write_text('licence = "MIT"')
    with pytest.raises(ConfigError, match=r"card.toml: licence 'MIT'"):
        emovox.embed(out, root=corpus)
    assert not (out / "embeddings").exists()
