"""Features of face and sound, and targets, at every step of a track."""

import hashlib
import io
import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from emovox.corpus.splits import TRAIN, fraction
from emovox.corpus.track_table import read_table
from emovox.dataset.reader import Dataset
from emovox.errors import ConfigError, InputError, first_line
from emovox.files import cache_folder, read_text, replace_file
from emovox.fusion.fusion_config import VIDEO, FusionTrainConfig
from emovox.media.audio import read_audio
from emovox.media.spectrogram import SAMPLE_RATE
from emovox.student import load_student
from emovox.student.clips import CHUNK, Windows, find_clips
from emovox.student.encoder import Encoder, HeadConfig
from emovox.teacher.sidecar import HUB

LABELS, VALUES = "labels", "values"  # targets that a dataset itself has
KEYS = ("track_id", "timestamp_ms", "rater")  # columns of a table that are not values
ALWAYS = np.array([-1e9, 1e9])  # seconds
ROUNDING = 1e-6  # steps

Curve = tuple[np.ndarray, np.ndarray]  # rising seconds `[n]`, values float64 `[n, V]`


@dataclass(frozen=True)
class Targets:
    """Values of tracks over time, or the classes of tracks: 1 for its own, 0 for the others."""

    names: tuple[str, ...]
    curves: Mapping[str, list[Curve]]  # of every track, one or more; NaN where unknown
    are_classes: bool = False

    def at(self, track_id: str, times: np.ndarray) -> np.ndarray:
        """Return the mean of a track's curves at some times, float32 `[T, V]`.

        A curve is linear between its values; before the first and after the last it is unknown.
        """
        total = np.zeros((2, len(times), len(self.names)))
        for seconds, values in self.curves.get(track_id, []):
            for place, column in enumerate(values.T):
                if (known := ~np.isnan(column)).any():
                    edges = {"left": np.nan, "right": np.nan}
                    found = np.interp(times, seconds[known], column[known], **edges)
                    total[:, :, place] += np.nan_to_num(found), ~np.isnan(found)
        with np.errstate(invalid="ignore"):
            return (total[0] / total[1]).astype(np.float32)


def read_targets(source: str | os.PathLike[str], data: Dataset) -> Targets:
    """Read the targets of a dataset's tracks.

    Args:
        source: `labels` or `values` of the dataset itself; a table (CSV, TSV or Parquet) of
            track_id, timestamp_ms from the start of the track, a column per value and, if several
            people annotated, rater; or RECOLA's folder: in it a folder per value with a file per
            track, ARFF or CSV, of a time in seconds and a column per rater. Its name is the track's
            identity, video, or id with `-` in place of `/`.
        data: the dataset.

    Raises:
        ConfigError: the dataset has no values.
        InputError: the files cannot be read, or have no target of a track of the dataset.
    """
    names, path = data.emotions, Path(source)
    if source == LABELS:
        rows = dict(zip(names, np.eye(len(names))[:, None].repeat(2, 1), strict=True))
        return Targets(names, {t.track_id: [(ALWAYS, rows[t.label])] for t in data}, True)
    if source == VALUES:
        if not data.values:
            raise ConfigError(f"{data.path}: has no values; pass a table of targets")
        return Targets(data.values, {t.track_id: [(t.times, t.values)] for t in data})
    names, curves = _read_folder(path, data) if path.is_dir() else _read_table(path)
    if not any(track_id in data for track_id in curves):
        known = next(iter(data)).track_id
        raise InputError(f"{path}: no target of a track of {data.path}, such as {known}")
    return Targets(names, curves)


def _read_table(path: Path) -> tuple[tuple[str, ...], dict[str, list[Curve]]]:
    table = pd.DataFrame(read_table(path, KEYS[:2]))
    names = [name for name in table.columns if name not in KEYS]
    try:
        numbers = table[["timestamp_ms", *names]].astype(float).sort_values("timestamp_ms")
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: expected numbers ({first_line(error)})") from error
    if not names or not np.isfinite(numbers["timestamp_ms"]).all():
        raise InputError(f"{path}: a column of values, or a timestamp_ms, is missing")
    curves: dict[str, list[Curve]] = {}
    raters = table.get("rater", table["track_id"])
    for (track_id, _), rows in numbers.groupby([table["track_id"], raters], dropna=False):
        curve = rows["timestamp_ms"].to_numpy() / 1000, rows[names].to_numpy()
        curves.setdefault(str(track_id), []).append(curve)
    return tuple(names), curves


def _read_folder(folder: Path, data: Dataset) -> tuple[tuple[str, ...], dict[str, list[Curve]]]:
    tracks: dict[str, set[str]] = {}
    for track in data:
        for name in (track.identity_id, track.video_id, track.track_id.replace("/", "-")):
            tracks.setdefault(name, set()).add(track.track_id)
    files = [p for p in sorted(folder.glob("*/*.*")) if p.stem in tracks]
    names = sorted({path.parent.name for path in files})
    curves: dict[str, list[Curve]] = {}
    for path in files:
        track_id, *others = tracks[path.stem]
        if others:
            raise InputError(f"{path}: several tracks have this name; use their ids with '-'")
        seconds, ratings = _read_ratings(path)
        values = np.full((len(seconds), len(names)), np.nan)
        values[:, names.index(path.parent.name)] = ratings
        curves.setdefault(track_id, []).append((seconds, values))
    return tuple(names), curves


def _read_ratings(path: Path) -> Curve:
    """Return rising seconds and the mean over raters, `[n]` each, of an ARFF or a CSV file."""
    flags = re.IGNORECASE | re.MULTILINE
    text = re.sub(r"^%.*", "", read_text(path), flags=flags)
    names = re.findall(r"^@attribute\s+['\"]?([^'\"\s]+)", text, flags)
    body = re.split(r"^@data.*\n", text, maxsplit=1, flags=flags)[-1].strip()
    body = ";".join(names) + "\n" * bool(names) + body
    try:
        table = pd.read_csv(io.StringIO(body), sep=r"\s*[;,\t]\s*", engine="python")
        time = next(name for name in table.columns if "time" in str(name).lower())
        table = table.astype({time: float}).sort_values(time)
        ratings = table.drop(columns=time).select_dtypes("number").mean(axis=1)
    except (ValueError, StopIteration) as error:  # pandas' ParserError is a ValueError
        raise InputError(f"{path}: expected a column of times, then ratings") from error
    return table[time].to_numpy(), ratings.to_numpy(float)


@dataclass(frozen=True)
class Sequence:
    """One track; NaN stands for a missing face or sound, and for an unknown target."""

    track_id: str
    identity: str
    times: np.ndarray  # float64 `[T]`, seconds from the start of the track
    features: tuple[np.ndarray, np.ndarray]  # of face and sound, float32 `[T, D]` and `[T, A]`
    target: np.ndarray  # float32 `[T, V]`, at `times`


class Reader:
    """Reads tracks of a dataset as sequences; ConfigError without `config.sound` or `audio`.

    Sound is the embedding of a window around each step. The face is the teacher's embedding in the
    row nearest to the step, or logits and values where the dataset has no embeddings; it is missing
    where that row is missing.
    """

    def __init__(
        self,
        data: Dataset,
        targets: Targets,
        audio: str | os.PathLike[str] | None,
        config: FusionTrainConfig,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._data, self._targets, self._say = data, targets, say
        self._audio, self.step = Path(audio or ""), config.step or data.step
        self.seconds: float | None = None  # of the windows
        self.sound_sha256: str | None = None  # of the network that hears the sound
        self._hear: Callable[[list[np.ndarray]], np.ndarray]  # windows to embeddings `[N, A]`
        if config.fusion == VIDEO:
            return
        if config.sound is None or audio is None:
            raise ConfigError(f"fusion {config.fusion!r} hears sound: pass --sound and --audio")
        if config.sound.startswith(HUB):
            encoder = Encoder(HeadConfig(config.sound), config.device)
            self._hear = lambda parts: encoder(parts).mean(dim=(1, 2)).cpu().numpy()
            self.sound_sha256, trained = encoder.config.sha256, Windows()
        else:
            student = load_student(config.sound, config.device)
            self._hear = lambda parts: student.embed(parts, self._windows)
            self.sound_sha256, trained = student.sha256, student.windows
        self.seconds = config.seconds or trained.seconds
        self._windows = Windows(self.seconds)

    def read(self, split: str, identities: Collection[str] | None = None) -> list[Sequence]:
        """Return the tracks of a split that have targets; of some identities, or of all."""
        data, found, clips = self._data, [], {}
        data.check_split(split)
        faces = data.embeddings(split)
        if faces is None:
            values = [track.values for track in data if track.split == split]
            faces = np.hstack([data.to_numpy(split)[0], np.concatenate(values)])
        rows = [
            row
            for row in data.tracks[split].to_pylist()
            if row["track_id"] in self._targets.curves
            and (identities is None or row["identity_id"] in identities)
        ]
        if self.sound_sha256 and rows:
            scan = find_clips(data, [row["track_id"] for row in rows], self._audio)
            self._say(f"{split}: {scan.summary()}")
            scan.check(self._audio, 1.0)
            clips = {clip.track_id: clip for clip in scan.clips}
        for row in tqdm(rows, split, unit=" tracks", disable=None, leave=False):
            name, index = row["track_id"], data.frame_index(row["track_id"])
            times = (
                np.arange(math.ceil(row["n_expected"] * data.step / self.step - ROUNDING))
                * self.step
            )
            nearest = np.floor(times / data.step + 0.5)
            place = np.searchsorted(index, nearest).clip(max=len(index) - 1)
            face = faces[row["row_offset"] + place].astype(np.float32)
            face[index[place] != nearest] = np.nan
            samples = np.zeros(0, np.float32)
            if clip := clips.get(name):
                try:
                    samples = read_audio(clip.path, clip.start, clip.start + clip.duration)
                except InputError as error:
                    self._say(f"{name}: sound not used ({error})")
            features, target = (face, self._embed(samples, times)), self._targets.at(name, times)
            if not np.isnan(target).all():
                found.append(Sequence(name, row["identity_id"], times, features, target))
        return found

    def _embed(self, samples: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Return the sound at some times, float32 `[T, A]`; it is kept in the cache."""
        if not self.sound_sha256:
            return np.empty((len(times), 0), np.float32)
        starts, length = np.round(times * SAMPLE_RATE).astype(int), self._windows.length
        how = f"{self.sound_sha256} {self.seconds} {self.step} {len(starts)} "
        key = hashlib.sha256(how.encode() + samples.tobytes()).hexdigest()
        kept = cache_folder() / "fusion" / f"{key}.npy"
        try:
            embedded: np.ndarray = np.load(kept)
        except (OSError, ValueError, EOFError):  # missing or damaged
            padded = np.pad(samples, (length // 2, length + starts[-1]))
            heard = [padded[start : start + length] for start in starts]
            chunks = (heard[i : i + CHUNK] for i in range(0, len(heard), CHUNK))
            embedded = np.concatenate([self._hear(chunk) for chunk in chunks])
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replace_file(kept) as temporary, temporary.open("wb") as file:
                np.save(file, embedded)
        embedded[starts >= len(samples)] = np.nan
        return embedded


def divide_identities(data: Dataset, share: float) -> tuple[set[str], set[str]]:
    """Divide the identities of train by the hashes of their names: for training, and the others."""
    data.check_split(TRAIN)
    names = sorted(set(data.tracks[TRAIN]["identity_id"].to_pylist()), key=fraction)
    num = min(len(names) - 1, max(1, round(share * len(names))))
    return set(names[num:]), set(names[:num])
