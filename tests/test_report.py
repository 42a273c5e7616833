"""The report: numbers, page, figures, and missing data."""

import base64
import csv
import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import soundfile
from click.testing import CliRunner, Result
from report_fixtures import (
    HEARD,
    TRAIN,
    UNHEARD,
    build,
    evaluation,
    made,
    num_colours,
    small,
    write,
)
from sklearn.metrics import auc, roc_auc_score

from emovox.charts import COLOURS, COLOURS_ON_DARK, colours_of, percent
from emovox.cli import main
from emovox.dataset import schema
from emovox.dataset.reader import load
from emovox.dataset.rows import Dropped
from emovox.dataset.takedown import format_list, hash_identity
from emovox.emotions import EMOTIONS
from emovox.errors import ConfigError, InputError
from emovox.labelling.own_labels import write_dataset
from emovox.media.audio import SAMPLE_RATE, read_audio
from emovox.probing.classifiers import FeatureScores, FoldScores
from emovox.probing.probe_config import ProbeConfig
from emovox.probing.probe_result import ProbeResult
from emovox.reporting.aggregates import QUANTILES, aggregate
from emovox.reporting.page_charts import cell, emotions_figure, losses_figure, roc_figure
from emovox.reporting.report import render
from emovox.reporting.report import report as make_report
from emovox.reporting.report_config import MAX_TRACKS
from emovox.reporting.run_results import Report, SplitResult, read_results
from emovox.reporting.track_sample import (
    LEVELS,
    ReportTrack,
    choose,
    pack,
    traces_of,
)
from emovox.scores import CURVE_POINTS, Interval, roc_curve
from emovox.teacher.evaluation import TeacherEvaluation, score
from emovox.testing import write_clip

EVIL = "<img src=x onerror=alert(1)>"
EVIL_MESSAGE = "</script><script>alert(2)</script>"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dropped = [Dropped(f"idz/v/{k:05d}", "z.mp4", "open", "Broken", EVIL_MESSAGE) for k in range(3)]
    dropped.append(Dropped("idz/w/00001", "w.mp4", "faces", "NoFace", "no face"))
    return write(tmp_path_factory.mktemp("report") / "dataset", small(), dropped=dropped)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    evaluation().write(folder)
    lines = [{"epoch": k, "train_loss": 2 - 0.1 * k, "heard_val_loss": 2.0} for k in range(3)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def report(dataset: Path, run_folder: Path) -> Report:
    return make_report(dataset, student=[run_folder])


class Page(HTMLParser):
    """The elements of a page as a browser finds them, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.styles: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        elif tag == "style":
            self.styles.append("")
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self._inside == "style":
            self.styles[-1] += data
        else:
            self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    def json(self, name: str) -> Any:
        [text] = [text for attributes, text in self.scripts if attributes.get("id") == name]
        return json.loads(text)


def page_of(folder: Path, **options: Any) -> Page:
    return Page(render(make_report(folder, **options)))


def frames_of(folder: Path) -> pd.DataFrame:
    tracks, frames = (load(folder).to_pandas(table) for table in ("tracks", "frames"))
    columns = ["track_id", "identity_id", "video_id", "split"]
    frames = frames.merge(tracks[columns], on="track_id")
    frames["dominant"] = frames[list(schema.EIGHT.logits)].to_numpy().argmax(axis=1)
    return frames


def test_counts_match_pandas(dataset: Path) -> None:
    found, frames = aggregate(load(dataset)), frames_of(dataset)
    tracks = load(dataset).to_pandas("tracks")
    for split in found.splits:
        rows, its = frames[frames["split"] == split.split], tracks[tracks["split"] == split.split]
        assert (split.num_frames, split.num_tracks) == (len(rows), len(its))
        assert split.num_identities == its["identity_id"].nunique()
        assert split.num_videos == len(its[["identity_id", "video_id"]].drop_duplicates())
        assert split.num_expected == its["n_expected"].sum()
        assert split.seconds == pytest.approx(its["duration_ms"].sum() / 1000)
        counts = rows["dominant"].value_counts().reindex(range(8), fill_value=0)
        assert split.frames.tolist() == counts.tolist()
        labels = its["label"].value_counts().reindex(EMOTIONS, fill_value=0)
        assert split.labels.tolist() == labels.tolist()
    coverage = tracks["n_frames"] / tracks["n_expected"]
    assert found.num_full == (coverage == 1).sum()
    expected, _ = np.histogram(coverage, np.linspace(0, 1, 21))
    assert found.coverage.tolist() == expected.tolist()
    assert [(why, num) for why, num, _ in found.dropped] == [
        ("open: Broken", 3),
        ("faces: NoFace", 1),
    ]


def test_logit_statistics_match_numpy(dataset: Path) -> None:
    found = aggregate(load(dataset)).logits
    values = frames_of(dataset)[list(schema.EIGHT.logits)].to_numpy()
    np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.deviation, values.std(axis=0), rtol=1e-5)
    expected = np.quantile(values, QUANTILES, axis=0).T
    np.testing.assert_allclose(found.quantiles, expected, rtol=1e-5)
    inside = values.clip(found.edges[0], found.edges[-1])
    for k in range(8):
        counts, _ = np.histogram(inside[:, k], found.edges)
        assert np.abs(found.counts[k] - counts).sum() <= 2  # a value on an edge may round
        assert found.counts[k].sum() == len(values)
    beyond = (values < found.edges[0]) | (values > found.edges[-1])
    assert beyond.mean() < 0.002


def test_skew_matches_a_naive_computation(dataset: Path) -> None:
    found, frames = aggregate(load(dataset)), frames_of(dataset)
    by_video = ["identity_id", "video_id"]
    for skew, keys in ((found.identities, ["identity_id"]), (found.videos, by_video)):
        sizes = sorted(frames.groupby(keys).size())
        assert skew.num_groups == len(sizes)
        gaps = sum(abs(a - b) for a, b in itertools.product(sizes, sizes))
        assert skew.gini == pytest.approx(gaps / (2 * len(sizes) * sum(sizes)))
        assert skew.largest == pytest.approx(sizes[-1] / sum(sizes))
        assert skew.lorenz[0] == 0 and skew.lorenz[-1] == pytest.approx(1)
        assert (np.diff(skew.lorenz, 2) > -1e-9).all()  # a Lorenz curve is convex


@pytest.mark.parametrize("num", [20, 5000])
def test_area_of_curves_matches_scikit_learn(num: int) -> None:
    rng = np.random.default_rng(num)
    positive = rng.random(num) < 0.3
    scores = np.round(rng.normal(positive, 1.0), 1)  # with ties
    false_rate, true_rate = roc_curve(positive, scores)
    area = roc_auc_score(positive, scores)
    assert len(false_rate) <= CURVE_POINTS
    assert auc(false_rate, true_rate) == pytest.approx(area, abs=2e-3)
    ends = [rate[k] for rate in (false_rate, true_rate) for k in (0, -1)]
    assert ends == pytest.approx([0, 1, 0, 1])


def test_evaluation_is_read_back(run_folder: Path) -> None:
    found, original = read_results([run_folder]), evaluation()
    assert found.student is not None and [len(each) for each in found.trainings.values()] == [3]
    for split in found.student["splits"]:
        predictions, scores = original.predictions[split.split], original.splits[split.split]
        assert split.num_tracks == len(predictions.labels)
        confusion = pd.crosstab(predictions.labels, predictions.scores.argmax(axis=1))
        confusion = confusion.reindex(index=range(8), columns=range(8), fill_value=0)
        assert split.confusion is not None
        assert split.confusion.tolist() == confusion.to_numpy().tolist()
        for emotion in EMOTIONS[:-1]:
            area, curve = split.areas[emotion], split.curves[emotion]
            assert area.value == pytest.approx(scores.auc[emotion].value)
            assert auc(*curve) == pytest.approx(area.value, abs=1e-6)
        assert np.isnan(split.areas["contempt"].value) and "contempt" not in split.curves


def test_page_shows_the_numbers(dataset: Path, report: Report) -> None:
    page = Page(render(report))
    frames = frames_of(dataset)
    assert f"{len(frames):,} frames, one every 240 ms" in page.words
    for split in schema.SPLITS:
        assert split in page.words
    counts = frames["dominant"].value_counts()
    alt = next(a["aria-label"] for t, a in page.tags if t == "svg")
    assert alt is not None
    for k, emotion in enumerate(EMOTIONS):
        assert f"{emotion} {counts.get(k, 0):,}" in alt
    for scores in evaluation().splits.values():
        assert f"{scores.auc['anger'].value:.3f}" in page.words
    assert "The dataset has no table of faces" in page.words
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {"figure-emotions", "figure-logits", "figure-roc-heard_val", "figure-losses-1"} <= ids


def test_figures_have_descriptions_and_tables(report: Report) -> None:
    page = Page(render(report))
    pictures = [a for t, a in page.tags if t == "svg" and a.get("role") == "img"]
    assert len(pictures) == 7 and all(a.get("aria-label") for a in pictures)
    tables = sum(tag == "table" for tag, _ in page.tags)
    captions = sum(tag == "caption" for tag, _ in page.tags)
    assert tables == captions > len(pictures)
    names = [a for t, a in page.tags if t in ("input", "select", "nav")]
    assert all(a.get("aria-label") for a in names)


def test_page_is_self_contained(report: Report) -> None:
    text = render(report)
    page = Page(text)
    assert not re.search(r"https?:|//[a-z]+\.", text.replace("http://www.w3.org/2000/svg", ""))
    sources = [a[n] for _, a in page.tags for n in ("src", "href") if n in a]
    assert all(str(s).startswith(("#", "data:")) for s in sources)
    assert not any(name.startswith("on") or name == "style" for _, a in page.tags for name in a)
    [policy] = [
        a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None and policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    code = [text for attributes, text in page.scripts if "type" not in attributes]
    assert len(code) == len(page.styles) == 1
    for content, kind in ((code[0], "script"), (page.styles[0], "style")):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_page_is_deterministic(dataset: Path, run_folder: Path) -> None:
    pages = [render(make_report(dataset, student=[run_folder], tracks=7)) for _ in range(2)]
    assert pages[0] == pages[1]


def evil_dataset(out: Path) -> Path:
    tracks = [made(TRAIN, EVIL, "&<b>v", 1), made(UNHEARD, "id'\"x", "</td>".replace("/", ""), 1)]
    dropped = [Dropped(f"{EVIL}/v/00002", EVIL, EVIL, EVIL, EVIL_MESSAGE)]
    return write(out, tracks, name=f"{EVIL}</title>", dropped=dropped, origin=EVIL_MESSAGE)


def test_names_and_messages_are_escaped(tmp_path: Path) -> None:
    folder = evil_dataset(tmp_path / "evil")
    log = {"epoch": 0, "train_loss": 1.0, "heard_val_loss": EVIL}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/log.jsonl").write_text(json.dumps(log))
    found = evaluation(name=EVIL)
    object.__setattr__(found, "student", {"name": EVIL, "sha256": ""})
    found.write(tmp_path / "run")
    page = page_of(folder, student=[tmp_path / "run"], compare=folder)
    assert not [tag for tag, _ in page.tags if tag in ("img", "b", "td>")]
    assert sum("type" not in attributes for attributes, _ in page.scripts) == 1
    assert EVIL_MESSAGE in page.words and EVIL in page.words
    assert page.json("data")["tracks"][0]["id"] == f"{EVIL}/&<b>v/00001"
    make_report(folder, figures=tmp_path / "figures")
    assert EVIL not in (tmp_path / "figures/figure-2.svg").read_text()


def test_tracks_are_chosen_by_the_rule(dataset: Path) -> None:
    data = load(dataset)
    tracks = data.to_pandas("tracks")
    for num in (1, 10, 24, len(tracks) + 5):
        shown = choose(data, num)
        assert len({t.track_id for t in shown}) == len(shown) == min(num, len(tracks))
        assert [t.track_id for t in shown] == [t.track_id for t in choose(load(dataset), num)]
    shown = choose(data, 40)
    assert {t.split for t in shown} == set(schema.SPLITS)
    assert {(t.split, t.label) for t in shown} == set(
        zip(tracks["split"], tracks["label"], strict=True)
    )
    for emotion in EMOTIONS[:4]:
        best = tracks.loc[tracks[f"max_{emotion}"].idxmax(), "track_id"]
        [found] = [t for t in shown if f"strongest {emotion}" in t.reasons]
        assert found.track_id == best
    assert choose(data, 0) == []


def test_most_changes_are_counted_within_tracks(tmp_path: Path) -> None:
    steady = np.zeros((30, 8), np.float32)
    steady[:, 1] = 1
    lively = np.eye(8, dtype=np.float32)[np.arange(30) % 2]
    tracks = [
        made(TRAIN, "ida", "v", 1, 30, logits=steady),
        made(TRAIN, "ida", "v", 2, 30, logits=lively),
        made(TRAIN, "ida", "v", 3, 30, logits=np.roll(steady, 1, axis=1)),
    ]
    shown = choose(load(write(tmp_path / "d", tracks)), 40)
    [found] = [t.track_id for t in shown if "changes most often" in t.reasons]
    assert found == "ida/v/00002"


@pytest.mark.parametrize("num", [1, 5, 40])
def test_figure_2_shows_changes(tmp_path: Path, num: int) -> None:
    steady = np.tile(np.eye(8, dtype=np.float32)[0] * 9, (30, 1))
    lively = np.eye(8, dtype=np.float32)[np.arange(30) // 6]
    made_so = [made(TRAIN, "ida", "v", k, 30, logits=steady) for k in range(2, 30)]
    folder = write(tmp_path / "d", [made(TRAIN, "ida", "v", 1, 30, logits=lively), *made_so])
    make_report(folder, figures=tmp_path / "figures", tracks=num)
    rows = rows_of(tmp_path / "figures/figure-2.csv")[1:]
    assert len({row[-1] for row in rows}) == 5


def test_figure_2_ends_lines_at_gaps(tmp_path: Path) -> None:
    gap = made(TRAIN, "ida", "v", 1, 20, gap=True, duration_ms=9600)
    make_report(write(tmp_path / "d", [gap]), figures=tmp_path / "figures")
    root = ElementTree.parse(tmp_path / "figures/figure-2.svg").getroot()
    paths = [element.get("d", "") for element in root.iter("{http://www.w3.org/2000/svg}path")]
    # 18 of the 20 rows follow the gap of 2 after row 3.
    assert sum(path.count("M") == 2 and path.count("L") == 18 for path in paths) == 8


def test_packed_logits_are_unpacked(dataset: Path) -> None:
    data = load(dataset)
    for track in choose(data, 30):
        packed = json.loads(json.dumps(pack(track, EMOTIONS)))
        levels = np.frombuffer(base64.b64decode(packed["logits"]), "<i2").reshape(-1, 8)
        np.testing.assert_allclose(levels / LEVELS, data.logits(track.track_id), atol=0.00501)
        index = packed.get("index", list(range(len(levels))))
        assert index == data.frame_index(track.track_id).tolist()


def test_peaks_are_of_dominant_emotions() -> None:
    logits = np.zeros((5, 8), np.float32)
    logits[:, 0] = 1
    logits[2, 4], logits[3, 4], logits[4, 1] = 5, 6, 0.5
    places = np.array([0, 1, 2, 7, 8])
    track = ReportTrack("id/v/1", "id", TRAIN, "anger", "neutral", 5, 9, None, logits, places, [])
    assert [(EMOTIONS[p.emotion], p.frame_index, p.logit) for p in track.peaks] == [
        ("neutral", 0, 1),
        ("anger", 7, 6),
    ]


def test_long_tracks_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emovox.reporting.track_sample.FRAMES_IN_ALL", 100)
    folder = write(tmp_path / "d", [made(TRAIN, "ida", "v", k, 400) for k in (1, 2)])
    packed = page_of(folder).json("data")["tracks"]
    assert [track["frames"] for track in packed] == [400, 400]
    assert [len(base64.b64decode(track["logits"])) // 16 for track in packed] == [50, 50]


def test_page_without_media_is_small(tmp_path: Path) -> None:
    tracks = [made(TRAIN, f"id{k:05d}", "video00001", 1, 100) for k in range(MAX_TRACKS)]
    folder = write(tmp_path / "d", tracks)
    out = tmp_path / "page.html"
    make_report(folder, out, tracks=MAX_TRACKS)
    assert out.stat().st_size < 5e6


def test_page_states_missing_data(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", [made(TRAIN, "ida", "v", 1, duration_ms=None)])
    (folder / schema.PROVENANCE).unlink()
    words = page_of(folder).words
    assert "heard_val and unheard_val: no tracks." in words
    assert "The source gives no track durations" in words
    assert "The dataset has no table of faces" in words
    assert "No results were given" in words
    assert "The number of tracks shown is 0." in page_of(folder, tracks=0).words
    (folder / schema.DROPPED_FILE).unlink()
    with pytest.raises(InputError, match=r"dropped\.parquet: cannot read"):
        make_report(folder)


def test_dataset_without_rows(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", [])
    words = page_of(folder, compare=folder).words
    assert "The dataset has no frames." in words and "The dataset has no tracks." in words
    lines = make_report(folder, figures=tmp_path / "figures").written
    assert any("figure-2" in line and "no track was chosen" in line for line in lines)


def test_frames_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    logits = np.tile(np.arange(8, dtype=np.float32), (6, 1))
    logits[2, 3], logits[4, 0] = np.nan, np.inf
    folder = write(tmp_path / "d", [made(TRAIN, "ida", "v", 1, 6, logits=logits)])
    with pytest.raises(InputError, match="a logit of train is not finite; run `emovox validate`"):
        make_report(folder)


def test_identities_of_a_takedown_list_are_hidden(tmp_path: Path) -> None:
    dropped = [Dropped("idb/v/00009", "idb/v.mp4", "open", "Secret", "idb/v.mp4 is broken")]
    folder = write(tmp_path / "d", small(), dropped=dropped)
    assert "idb/" in render(make_report(folder))
    (folder / schema.TAKEDOWN).write_text(format_list([hash_identity("idb")]))
    text = render(make_report(folder))
    assert "idb" not in text and "Secret" not in text
    assert "1 identities are hidden" in Page(text).words


def test_two_datasets_are_compared(dataset: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", [made(TRAIN, "ida", "v", 1, 50)], name="other")
    found = make_report(dataset, compare=other)
    assert found.compared is not None
    np.testing.assert_array_equal(found.aggregates.logits.edges, found.compared.logits.edges)
    page = Page(render(found))
    assert "Compared with other 1.2.3 : 50 frames of 1 tracks." in page.words.replace(
        "1.2.3:", "1.2.3 :"
    )
    assert "Hollow: other 1.2.3" in page.words


def test_two_datasets_of_the_same_version_are_compared(dataset: Path, tmp_path: Path) -> None:
    same = write(tmp_path / "same", [made(TRAIN, "ida", "v", 1, 50)])
    picture = emotions_figure(aggregate(load(dataset)), aggregate(load(same))).picture(EMOTIONS)
    assert len(re.findall(r">[0-9.]+ %<", picture)) > 2 * len(EMOTIONS)


def test_evaluation_without_predictions(dataset: Path, run_folder: Path, tmp_path: Path) -> None:
    text = (run_folder / "evaluation.json").read_text()
    (tmp_path / "evaluation.json").write_text(text)
    page = page_of(dataset, student=[tmp_path])
    assert "predictions.parquet is missing, or has only one emotion" in page.words
    area = evaluation().splits[HEARD].auc["anger"].value
    assert f"{area:.3f}" in page.words
    found = make_report(dataset, student=[tmp_path], figures=tmp_path / "f")
    assert "its predictions.parquet is missing" in found.summary()


@pytest.mark.parametrize("area", [None, {"value": None, "low": None, "high": None}])
def test_evaluation_without_the_area_of_a_curve(
    dataset: Path, run_folder: Path, tmp_path: Path, area: dict[str, None] | None
) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    content = json.loads((tmp_path / "run/evaluation.json").read_text())
    del content["splits"][HEARD]["auc"]["anger"]
    if area:
        content["splits"][HEARD]["auc"]["anger"] = area
    (tmp_path / "run/evaluation.json").write_text(json.dumps(content))
    found = make_report(dataset, student=[tmp_path / "run"], figures=tmp_path / "figures")
    assert (tmp_path / "figures/figure-5.svg").is_file()
    assert re.search(r">anger - \(\d+\)<", render(found))


def test_two_students_are_compared(dataset: Path, run_folder: Path, tmp_path: Path) -> None:
    evaluation().write(tmp_path / "second")
    changed = json.loads((tmp_path / "second/evaluation.json").read_text())
    changed["splits"][HEARD]["auc"]["anger"]["value"] = 0.125
    changed["splits"][HEARD] |= {"uar": 0.375, "macro_f1": None}
    (tmp_path / "second/evaluation.json").write_text(json.dumps(changed))
    text = render(make_report(dataset, student=[run_folder, tmp_path / "second"]))
    page, [table_text] = Page(text), re.findall(r"Students compared</h3>(.*?)</table>", text, re.S)
    lines = re.findall(r"<tr>(.*?)</tr>", table_text)
    header, *rows = ([*re.findall(r">([^<>]*)</t[hd]>", line)] for line in lines)
    table = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    first, second = f"{run_folder.name}, {HEARD}", f"second, {HEARD}"
    original = evaluation().splits[HEARD]
    assert table["AUC, anger"][first] == str(original.auc["anger"])
    assert table["AUC, anger"][second].startswith("0.125 [")
    assert (table["UAR"][second], table["macro F1"][second]) == ("0.375", "-")
    assert table["UAR"][first] == f"{original.others['uar']:.3f}"
    twice = read_results([tmp_path / "second", tmp_path / "second"])
    assert list(twice.students) == ["second", "second 2"]
    assert "Students compared" in page.words and "second, heard_val" in page.words
    assert "Students compared" not in page_of(dataset, student=[run_folder]).words


def windows_file(folder: Path, rows: list[tuple[object, ...]]) -> Path:
    """Write windows as `predict --out FOLDER` does; the student's scores are those given."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = ["path", "start", "end", "sound", "student", *(f"student_{e}" for e in EMOTIONS)]
    with (folder / "predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return folder


def test_windows_of_a_student_belong_to_tracks(filmed: Path, tmp_path: Path) -> None:
    data, scores = load(filmed / "dataset"), [0.3, 0.7, *[0.0] * 6]
    path = "/data/VoxCeleb2/mp4/id1/v/00001.mp4"
    heard = [("heard", "happiness", *scores), ("silent", *[""] * 9)]
    rows = [(path, 0, 1.5, *heard[0]), (path, 1, 2.5, *heard[1]), (path, 9, 12, *heard[0])]
    rows += [("wav/id1/v/00002.wav", 0.5, 99, *heard[0]), ("wav/id9/v/00002.wav", 0, 1, *heard[0])]
    results = read_results([windows_file(tmp_path / "run", rows)])
    found = traces_of(results.windows["run"], data, choose(data, 40))
    end = data.to_pandas("tracks").set_index("track_id")["duration_ms"]["id1/v/00002"] / 1000
    assert found == {
        "id1/v/00001": [
            [0, 1.5, *scores],
            [1, min(2.5, end), *[None] * 8],
        ],
        "id1/v/00002": [[0.5, end, *scores]],
    }
    page = page_of(filmed / "dataset", student=[tmp_path / "run"])
    assert set(page.json("data")["students"]["run"]) == set(found)
    assert "draw the scores of run over the teacher's" in page.words
    assert "No results were given" not in page.words
    other = windows_file(tmp_path / "other", rows[-1:])
    assert (
        "No track shown has scores of the student other"
        in page_of(filmed / "dataset", student=[other]).words
    )


def test_windows_of_a_file_with_several_tracks(tmp_path: Path) -> None:
    tracks = {
        "track_id": ["ann/talk/00001", "ann/talk/00002"],
        "label": ["anger", "neutral"],
        "source": ["ann/talk.mp4"] * 2,
        "start_ms": [0, 4000],
        "end_ms": [4000, 9000],
        "duration_ms": [4000, 5000],
    }
    data = write_dataset(tmp_path / "own", tracks, name="own")
    columns = {f"student_{name}": [0.5] * 3 for name in data.emotions}
    times = {"start": [0.0, 3.0, 6.0], "end": [4.0, 7.0, 12.0]}
    windows = pa.table({"path": ["x/ann/talk.mp4"] * 3, **times, **columns})
    spans = {
        track_id: [window[:2] for window in trace]
        for track_id, trace in traces_of(windows, data, choose(data, 5)).items()
    }
    assert spans == {"ann/talk/00001": [[0, 4], [3, 4]], "ann/talk/00002": [[0, 3], [2, 5]]}


def test_scores_of_an_evaluation_are_those_of_whole_tracks(tmp_path: Path) -> None:
    evaluation().write(tmp_path / "run")
    folder = write(tmp_path / "d", [made(HEARD, "id0", "v", 0, 10), made(HEARD, "id9", "v", 1, 10)])
    [trace] = page_of(folder, student=[tmp_path / "run"]).json("data")["students"].values()
    scores = evaluation().predictions[HEARD].scores[0]
    assert list(trace) == ["id0/v/00000"] and trace["id0/v/00000"][0][:2] == [0, 2.4]
    np.testing.assert_allclose(trace["id0/v/00000"][0][2:], scores, rtol=1e-6)


def test_page_states_a_student_of_another_dataset(dataset: Path, tmp_path: Path) -> None:
    evaluation(name="elsewhere").write(tmp_path)
    words = page_of(dataset, student=[tmp_path]).words
    assert "scored on another dataset: elsewhere 1.2.3" in words


def test_provenance_without_accuracy(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "dataset")
    provenance = tmp_path / "dataset" / schema.PROVENANCE
    content = json.loads(provenance.read_text()) | {"teacher": {"name": "fake", "sha256": None}}
    provenance.write_text(json.dumps(content))
    assert "The page is self-contained" in page_of(tmp_path / "dataset").words


def test_training_without_evaluation(dataset: Path, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text((run_folder / "log.jsonl").read_text())
    assert "These folders have no evaluation" in page_of(dataset, student=[tmp_path]).words


def test_damaged_results_are_errors(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folder not found"):
        read_results([tmp_path / "none"])
    with pytest.raises(InputError, match="has none of"):
        read_results([tmp_path])
    for content in (
        "",
        "path,start\na,0",
        "path,start,end,student_anger\na,0,1,x",
        "path,start,end,student_anger\na,,1,0.5",
        "a,b\n1",
    ):
        (tmp_path / "predictions.csv").write_text(content)
        with pytest.raises(InputError, match=r"predictions\.csv"):
            read_results([tmp_path])
    (tmp_path / "predictions.csv").unlink()
    for name in ("evaluation.json", "log.jsonl", "probe.json"):
        for content in ("{", "[]", '{"splits": 1}' if name != "log.jsonl" else "3"):
            (tmp_path / name).write_text(content)
            if (name, content) != ("log.jsonl", "[]"):
                with pytest.raises(InputError, match=name):
                    read_results([tmp_path])
            (tmp_path / name).unlink()
    (tmp_path / "evaluation.json").write_text((run_folder / "evaluation.json").read_text())
    (tmp_path / "predictions.parquet").write_text("no table")
    with pytest.raises(InputError, match=r"evaluation\.json"):
        read_results([tmp_path])


def probe_folder(folder: Path, layout: str) -> Path:
    folder.mkdir(parents=True)
    scores = {"accuracy": (0.5, 0.6), "recall": (0.4, 0.5), "macro_f1": (0.4, 0.5)}
    held_out = FoldScores("random", scores | {"temperature": (1, 2)}, 0.1, 0.05, ((3, 1), (1, 3)))
    probed = FeatureScores("student logits", "affine map", ("anger", "fear"), (held_out,))
    found = ProbeResult(
        "x",
        "corpus",
        ProbeConfig(),
        {"name": "student", "sha256": "0" * 64},
        layout,
        {"anger": 4, "fear": 4},
        2,
        (probed,),
        (),
        (),
    )
    (folder / "probe.json").write_text(json.dumps(found.as_json()))
    return folder


def teacher_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    scores = score(rng.normal(size=(50, 8)), rng.dirichlet(np.ones(8), 50))
    found = TeacherEvaluation("fake", "0" * 64, "private_test", 1.0, scores, scores)
    (folder / "evaluation.json").write_text(json.dumps(found.as_json()))
    return folder


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_figures_and_tables_of_the_paper(dataset: Path, run_folder: Path, tmp_path: Path) -> None:
    runs = [run_folder, *(probe_folder(tmp_path / name, name) for name in ("rml", "enterface"))]
    runs.append(teacher_folder(tmp_path / "teacher"))
    found = make_report(dataset, student=runs, figures=tmp_path / "out")
    assert "not written" not in found.summary()
    names = ("figure-2", "figure-4", "figure-5", "figure-5-confusion")
    expected = {f"{name}.{form}" for name in names for form in ("png", "svg", "csv")}
    expected |= {f"table-{number}.csv" for number in (2, 3, 5)}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    for name in names:
        image = cv2.imread(str(tmp_path / "out" / f"{name}.png"))
        assert image is not None and num_colours(image) > 20
    counts = {row[0]: int(row[1]) for row in rows_of(tmp_path / "out/figure-4.csv")[1:]}
    dominant = frames_of(dataset)["dominant"].value_counts()
    assert counts == {e: dominant.get(k, 0) for k, e in enumerate(EMOTIONS)}
    two, three, five = (rows_of(tmp_path / f"out/table-{n}.csv") for n in (2, 3, 5))
    assert two[0] == ["method", "accuracy_percent"] and [row[0] for row in two[1:]] == ["fake"]
    tracks = load(dataset).to_pandas("tracks")["split"].value_counts()
    assert three[:2] == [
        ["", *schema.SPLITS],
        ["speaking_face_tracks", *map(str, tracks[list(schema.SPLITS)])],
    ]
    values = {row[0]: row[4:] for row in five}
    assert values["student logits"] == ["55.0", "7.1", "50.0"] * 2
    assert values["student (Albanie et al. 2018)"] == ["49.7", "5.4", "50.0", "34.3", "4.0", "50.0"]
    words = Page(render(found)).words
    assert "Probe: rml" in words and "student (Albanie et al. 2018)" in words


def test_figures_without_data_are_listed(dataset: Path, tmp_path: Path) -> None:
    lines = make_report(dataset, figures=tmp_path / "a").written
    missing = {line.split()[0] for line in lines if "not written" in line}
    assert missing == {"figure-5", "table-2", "table-5"}
    assert not {path.stem for path in (tmp_path / "a").iterdir()} & missing


def test_figures_are_deterministic(dataset: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        make_report(dataset, figures=tmp_path / folder)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built dataset with faces, and its corpus, whose frames get brighter with time."""
    root = tmp_path_factory.mktemp("filmed")
    for identity, number in (("id1", 1), ("id1", 2), ("id2", 1)):
        frames = (np.full((224, 224, 3), 20 + 3 * k, np.uint8) for k in range(60))
        write_clip(root / f"corpus/mp4/{identity}/v/{number:05d}.mp4", frames)
    time = np.arange(int(2.4 * SAMPLE_RATE)) / SAMPLE_RATE
    sound = 0.3 * np.sin(2 * np.pi * 440 * time)
    path = root / "corpus/wav/id1/v/00001.wav"
    path.parent.mkdir(parents=True)
    soundfile.write(path, sound, SAMPLE_RATE)
    build("voxceleb2", root / "corpus", root / "dataset")
    return root


def decoded(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2])


def test_page_has_the_faces_and_the_sound_of_its_tracks(filmed: Path, tmp_path: Path) -> None:
    found = make_report(filmed / "dataset", media=filmed / "corpus")
    page = Page(render(found))
    for number, track in enumerate(found.tracks):
        media = page.json(f"media-{number}")
        assert {peak.frame_index for peak in track.peaks} <= {int(k) for k in media["pictures"]}
        for index, uri in media["pictures"].items():
            assert uri.startswith("data:image/jpeg;base64,")
            face = cv2.imdecode(np.frombuffer(decoded(uri), np.uint8), cv2.IMREAD_COLOR)
            assert face is not None and face.shape == (144, 144, 3)
            assert face.mean() == pytest.approx(20 + 3 * 6 * int(index), abs=4)
        if track.track_id != "id1/v/00001":
            assert media["sound"] is None
            continue
        kind = media["sound"].partition(";")[0]
        assert kind in ("data:audio/mpeg", "data:audio/flac")
        path = tmp_path / "sound"
        path.write_bytes(decoded(media["sound"]))
        samples = read_audio(path)
        assert len(samples) / SAMPLE_RATE == pytest.approx(2.4, abs=0.15)
        spectrum = np.abs(np.fft.rfft(samples))
        peak = spectrum.argmax() * SAMPLE_RATE / len(samples)
        assert peak == pytest.approx(440, abs=2)
    words = page.words
    assert "Personal data: this page holds faces and voices of people." in words
    assert "2 tracks: the file has no sound" in words
    assert str(filmed) not in render(found) and "Deadline" not in words
    assert render(make_report(filmed / "dataset", media=filmed / "corpus")) == render(found)


def test_page_has_no_media_by_default(filmed: Path) -> None:
    text = render(make_report(filmed / "dataset"))
    assert "data:image" not in text and "data:audio" not in text and "Personal data" not in text


def test_page_states_synthetic_media(filmed: Path, tmp_path: Path) -> None:
    build("voxceleb2", filmed / "corpus", tmp_path / "dataset", synthetic=True)
    words = page_of(tmp_path / "dataset", media=filmed / "corpus").words
    assert "They are synthetic" in words and "Personal data" not in words


def test_missing_silent_and_damaged_sound_differ(filmed: Path, tmp_path: Path) -> None:
    shutil.copytree(filmed, tmp_path / "filmed")
    corpus = tmp_path / "filmed/corpus"
    (corpus / "wav/id1/v/00001.wav").write_bytes(b"RIFF of something else")
    (corpus / "mp4/id2/v/00001.mp4").unlink()
    found = make_report(tmp_path / "filmed/dataset", media=corpus)
    assert found.media is not None
    pairs = zip(found.tracks, found.media, strict=True)
    assert {track.track_id: media.problems for track, media in pairs} == {
        "id1/v/00001": ("the sound cannot be read",),
        "id1/v/00002": ("the file has no sound",),
        "id2/v/00001": ("sound file not found", "video not found"),
    }


def test_media_of_another_corpus(filmed: Path, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no sound or pictures of any track; pass the folder"):
        make_report(dataset, media=filmed / "corpus")
    with pytest.raises(InputError, match="folder not found; pass the folder of the corpus"):
        make_report(dataset, media=tmp_path / "none")


def test_media_of_another_layout(filmed: Path, tmp_path: Path) -> None:
    """Only the layout finds files with arbitrary names."""
    clip = filmed / "corpus/mp4/id1/v/00001.mp4"
    (tmp_path / "corpus/ann").mkdir(parents=True)
    (tmp_path / "corpus/ann/talk.mp4").write_bytes(clip.read_bytes())
    build("folder", tmp_path / "corpus", tmp_path / "dataset")
    found = make_report(tmp_path / "dataset", media=tmp_path / "corpus")
    assert found.media is not None
    assert found.media[0].pictures and not found.media[0].sound


def test_media_of_a_track_within_a_video(tmp_path: Path) -> None:
    """A track of a whole video, as in VoxCeleb1, starts with its first box."""
    frames = (np.full((160, 160, 3), 20 + 2 * k, np.uint8) for k in range(100))
    write_clip(tmp_path / "corpus/video/abc.mp4", frames)
    header = "Identity  : \tid10001\nReference : \tabc\nOffset    : \t0\nFV Conf   : \t1\n"
    boxes = "".join(f"{k:06d} \t30 \t30 \t80 \t80\n" for k in range(25, 86))
    path = tmp_path / "corpus/txt/id10001/abc/00001.txt"
    path.parent.mkdir(parents=True)
    path.write_text(f"{header}ASD Conf  : \t1\n\nFRAME \tX \tY \tW \tH\n{boxes}")
    build("voxceleb1", tmp_path / "corpus", tmp_path / "dataset")
    found = make_report(tmp_path / "dataset", media=tmp_path / "corpus")
    assert found.media is not None and len(found.media[0].pictures) >= 5
    for index, uri in found.media[0].pictures.items():
        face = cv2.imdecode(np.frombuffer(decoded(uri), np.uint8), cv2.IMREAD_COLOR)
        assert face is not None
        assert face.mean() == pytest.approx(20 + 2 * (25 + 6 * index), abs=4)


def as_seen(colours: Iterable[str]) -> np.ndarray:
    """Return colours in OKLab for normal and colour-blind sight, `[4, N, 3]`."""
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    # Protanopia, deuteranopia and tritanopia by Machado, Oliveira and Fernandes (2009).
    sights = [
        np.eye(3),
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    ]
    to_lms = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    seen = np.stack([np.clip(linear @ np.array(sight).T, 0, 1) for sight in sights])
    return np.asarray(np.cbrt(seen @ to_lms.T) @ to_lab.T)


def least_difference(colours: dict[str, str]) -> float:
    """Return the smallest difference in OKLab of two colours, for normal and colour-blind sight."""
    pairs = itertools.combinations(as_seen(colours.values()).transpose(1, 0, 2), 2)
    return float(min(np.linalg.norm(a - b, axis=1).min() for a, b in pairs))


def test_colours_are_distinct_under_colour_blindness() -> None:
    assert list(COLOURS) == list(COLOURS_ON_DARK) == list(EMOTIONS)
    for colours in (COLOURS, COLOURS_ON_DARK):
        assert least_difference(colours) > 0.09
    okabe_ito = (
        "#000000",
        "#e69f00",
        "#56b4e9",
        "#009e73",
        "#f0e442",
        "#0072b2",
        "#d55e00",
        "#cc79a7",
    )
    assert least_difference(dict(zip(EMOTIONS, okabe_ito, strict=True))) < 0.09


def test_other_emotions_have_colours_of_their_own() -> None:
    mixed = ("neutral", "joy", "anger", "awe", "fear", "calm", "sadness")
    for dark in (False, True):
        known = (COLOURS, COLOURS_ON_DARK)[dark]
        assert colours_of(EMOTIONS, dark=dark) == list(known.values())
        found = dict(zip(mixed, colours_of(mixed, dark=dark), strict=True))
        assert len({*found.values()}) == 7
        assert all(found[name] == known[name] for name in mixed if name in known)
        many = colours_of([f"e{k}" for k in range(64)], dark=dark)
        assert len(set(many)) == 10 and all(re.fullmatch("#[0-9a-f]{6}", c) for c in many)


def test_percentages() -> None:
    shares = [percent(v) for v in (0, 1, 0.99999, 0.5, 0.0123456, 1e-7, np.nan)]
    assert shares == ["0 %", "100 %", "99.9 %", "50 %", "1.23 %", "1e-05 %", "-"]
    assert [cell(v) for v in (1234, 0.25, "a", None, np.nan)] == ["1,234", "0.250", "a", "-", "-"]


def test_split_with_a_single_label_has_no_curves() -> None:
    positives = dict.fromkeys(EMOTIONS, 0) | {"neutral": 3}
    areas = {"neutral": Interval(np.nan)}
    found = SplitResult(HEARD, 3, 1, positives, areas, {}, np.eye(8, dtype=int), {})
    assert "aria-label" in roc_figure(found).picture(EMOTIONS)


def test_single_epoch_is_a_point() -> None:
    picture = losses_figure([{"train_loss": 1.5, "heard_val_loss": 1.7}], 1).picture(EMOTIONS)
    places = [use.get("x") for use in ElementTree.fromstring(picture).iter("use")]
    # Two losses of the same epoch, and two markers of the legend.
    assert len(places) == 4 and len(set(places[:2])) == 1


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def test_command(dataset: Path, run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new/page.html"
    result = run(
        "report", dataset, "--out", out, "--figures", tmp_path / "f", "--student", run_folder,
        "--tracks", 5,
    )  # fmt: skip
    assert (
        result.exit_code == 0 and f"{out}: 0." in result.stdout and "table-3.csv" in result.stdout
    )
    assert len(Page(out.read_text()).json("data")["tracks"]) == 5
    for arguments, words in (
        ([dataset], "pass --out FILE.html"),
        ([dataset, "--out", out, "--tracks", -1], "tracks -1: must be 0 to 2000"),
        ([tmp_path, "--out", out], "not a dataset"),
        ([dataset, "--out", out, "--student", tmp_path], "has none of"),
        ([dataset, "--out", out, "--compare", tmp_path], "not a dataset"),
    ):
        result = run("report", *arguments)
        assert result.exit_code == 2 and words in result.stderr and result.stderr.count("\n") == 1


def test_function(dataset: Path, tmp_path: Path) -> None:
    found = make_report(str(dataset), str(tmp_path / "page.html"), tracks=5)
    assert (tmp_path / "page.html").is_file()
    assert repr(found).startswith("<Report on small 1.2.3: ") and "; 5 tracks shown>" in repr(found)
    table, tracks = found.to_pandas().set_index("split"), load(dataset).to_pandas("tracks")
    assert list(table.index) == list(schema.SPLITS)
    assert table["num_tracks"].sum() == len(tracks)
    neutral = (tracks["label"] == "neutral").groupby(tracks["split"]).sum()
    assert table["labels_neutral"].to_dict() == neutral.to_dict()
    with pytest.raises(ConfigError, match="tracks 2001: must be 0 to 2000"):
        make_report(dataset, tracks=MAX_TRACKS + 1)


def test_templates_are_package_data() -> None:
    """A wheel leaves out files that pyproject.toml does not list."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert '"emovox.reporting" = ["templates/*"]' in text
