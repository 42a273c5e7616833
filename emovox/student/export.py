"""Labels of a dataset beside their sound, in the forms that other libraries read."""

import gzip
import io
import json
import os
import tarfile
import tomllib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from emovox.dataset.reader import Dataset, load
from emovox.dataset.rows import Dropped
from emovox.errors import CheckError, ConfigError, InputError, check_choice
from emovox.files import check_vacant, new_folder, read_text, write_text
from emovox.media.audio import SAMPLE_RATE, read_audio
from emovox.packages import DataFrame, data_frame
from emovox.scores import softmax
from emovox.student.clips import MIN_DURATION, Scan, find_clips, list_reasons, unusable

PER_TAR = 1000  # examples

Row = dict[str, Any]  # one example, JSON values


@dataclass(frozen=True, repr=False)
class Exported:
    """Result of an export."""

    out: Path  # folder
    # One per example: `file`, `track_id`, `split`, `start` and `end` in seconds of the track,
    # `label`, and `probability_<class>`
    rows: list[Row]
    dropped: list[Dropped]  # tracks without usable sound

    def __repr__(self) -> str:
        return f"<Exported {len(self.rows):,} examples to {self.out}>"

    def summary(self) -> str:
        """Return one line with the number of examples per label, and the dropped tracks."""
        labels = Counter(row["label"] for row in self.rows).most_common()
        counts = ", ".join(f"{label} {count:,}" for label, count in labels)
        dropped = f"\ndropped {list_reasons(self.dropped)}" if self.dropped else ""
        return f"{self.out}: {len(self.rows):,} examples ({counts}){dropped}"

    def to_pandas(self) -> DataFrame:
        """Return the rows as a table; MissingPackageError without pandas."""
        return data_frame(self.rows)


def export(
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    audio: str | os.PathLike[str],
    to: str = "csv",
    *,
    seconds: float | None = None,
    collapse: str | os.PathLike[str] | None = None,
    max_dropped: float = 0.05,
) -> Exported:
    """Write the labels of a dataset beside their sound.

    An example is a track, or with `seconds` a segment of one; the last one may be shorter. Its
    probabilities are the softmax of the maxima of its logits, its label the class with the largest.

    Args:
        dataset: folder of the dataset.
        out: folder, new or empty. It appears when it is complete.
        audio: folder with the tracks' audio, see `audio_path`, or of the dataset's sources.
        to: `csv` writes labels.csv, whose `file`, `from` and `to` are the part of an audio file
            below `audio`. The others copy the sound as 16 kHz mono WAV: `audiofolder` of Hugging
            Face datasets, `webdataset` (tar files), or manifests of `lhotse`.
        seconds: length of the segments; None for whole tracks.
        collapse: TOML file whose keys are classes and whose values are lists of emotions; the
            probabilities of a class are added, emotions of no class left out.
        max_dropped: largest fraction of tracks without usable sound.

    Raises:
        ConfigError: an option is not valid, or `collapse` names no emotion of the dataset.
        InputError: `dataset` is not a dataset, `audio` or `collapse` is missing, or `out` is not
            empty.
        CheckError: too many tracks have no usable sound, or there is no track.

    Example:
        >>> export("emovox-demo/dataset", "out", "emovox-demo/corpus", seconds=2).out.name
        'out'
    """
    data, out, root = load(dataset), Path(out), Path(audio)
    check_choice("to", to, WRITERS)
    if seconds is not None and not seconds >= MIN_DURATION:
        raise ConfigError(f"seconds {seconds:g}: below {MIN_DURATION}")
    classes = _read_classes(collapse, data) if collapse else {e: [e] for e in data.emotions}
    members = np.array([[e in of_class for e in data.emotions] for of_class in classes.values()])
    check_vacant(out, data.path)
    rows: list[Row] = []
    dropped: list[Dropped] = []

    def examples(split: str, scan: Scan) -> Iterator[tuple[Row, np.ndarray]]:
        """Yield the examples of a split with their sound, none for `csv`; collect their rows."""
        for clip in tqdm([*scan.clips], split, unit=" tracks", disable=None, leave=False):
            length = seconds or clip.duration
            for start in np.arange(0, clip.duration, length).tolist():
                if clip.duration - start < MIN_DURATION:
                    break  # a rest below a step of the grid
                end, samples = min(start + length, clip.duration), np.empty(0)
                try:
                    if to != "csv":
                        samples = read_audio(clip.path, clip.start + start, clip.start + end)
                except InputError as error:
                    scan.clips.remove(clip)
                    scan.dropped.append(unusable(clip.track_id, clip.path, root, error))
                    break
                target = data.target(clip.track_id, start, end)
                shares = members @ softmax(target[None].astype(float))[0]
                shares /= shares.sum()
                row: Row = {"file": clip.path.relative_to(root).as_posix()}
                if to == "csv":
                    row |= {"from": clip.start + start, "to": clip.start + end}
                row |= {"track_id": clip.track_id, "split": split, "start": start, "end": end}
                row["label"] = [*classes][shares.argmax()]
                probabilities = zip(classes, shares.tolist(), strict=True)
                rows.append(row | {f"probability_{name}": p for name, p in probabilities})
                yield rows[-1], samples

    with new_folder(out.resolve(), "exporting") as building:
        for split in data.splits:
            scan = find_clips(data, data.tracks[split]["track_id"].to_pylist(), root)
            scan.check(root, max_dropped)
            WRITERS[to](building, split, examples(split, scan))
            scan.check(root, max_dropped)  # with those whose sound is damaged
            dropped += scan.dropped
        if not rows:
            raise CheckError(f"{data.path}: no track to export")
        if to == "csv":
            data_frame(rows).to_csv(building / "labels.csv", index=False)
        if to == "audiofolder":
            splits = "".join(f"  - split: {s}\n    path: {s}/**\n" for s in data.splits)
            head = f"---\nconfigs:\n- config_name: default\n  data_files:\n{splits}---\n"
            write_text(building / "README.md", f"{head}\nFrom {data.name} {data.version}.\n")
    return Exported(out, rows, dropped)


def _read_classes(path: str | os.PathLike[str], data: Dataset) -> dict[str, list[str]]:
    try:
        classes = {k: list(v) for k, v in tomllib.loads(read_text(Path(path))).items()}
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as TOML ({error})") from error
    names = [name for members in classes.values() for name in members]
    for name in names:
        check_choice(f"{path}: emotion", name, data.emotions)
    if len(classes) < 2 or len({*names}) < len(names) or not all(classes.values()):
        raise ConfigError(f"{path}: expected two or more classes, not empty, and each emotion once")
    return classes


def _wav(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


Examples = Iterable[tuple[Row, np.ndarray]]


def _audiofolder(out: Path, split: str, examples: Examples) -> None:
    rows = []
    (out / split).mkdir()
    for number, (row, samples) in enumerate(examples):
        row["file"] = f"{split}/{number:08d}.wav"
        (out / row["file"]).write_bytes(_wav(samples))
        rows.append({"file_name": Path(row["file"]).name, **row})
    data_frame(rows).to_csv(out / split / "metadata.csv", index=False)


def _webdataset(out: Path, split: str, examples: Examples) -> None:
    for shard, group in groupby(enumerate(examples), lambda pair: pair[0] // PER_TAR):
        name = f"{split}-{shard:06d}.tar"
        with tarfile.open(out / name, "w") as tar:
            for number, (row, samples) in group:
                row["file"] = name
                for ending, data in (("wav", _wav(samples)), ("json", json.dumps(row).encode())):
                    member = tarfile.TarInfo(f"{number:08d}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def _lhotse(out: Path, split: str, examples: Examples) -> None:
    recordings, supervisions = [], []
    for number, (row, samples) in enumerate(examples):
        row["file"] = f"audio/{split}-{number:08d}.wav"
        (out / "audio").mkdir(exist_ok=True)
        (out / row["file"]).write_bytes(_wav(samples))
        span = {"id": f"{split}-{number:08d}", "duration": len(samples) / SAMPLE_RATE}
        source = {"type": "file", "channels": [0], "source": row["file"]}
        sound = {"sources": [source], "sampling_rate": SAMPLE_RATE, "num_samples": len(samples)}
        recordings.append(span | sound)
        place = {"recording_id": span["id"], "start": 0.0, "channel": 0}
        speaker = row["track_id"].split("/")[0]
        supervisions.append(span | place | {"speaker": speaker, "custom": row})
    for kind, items in (("recordings", recordings), ("supervisions", supervisions)):
        with gzip.open(out / f"{split}-{kind}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(item) + "\n" for item in items)


WRITERS: dict[str, Callable[[Path, str, Examples], object]] = {
    "csv": lambda _out, _split, examples: deque(examples, 0),
    "audiofolder": _audiofolder,
    "webdataset": _webdataset,
    "lhotse": _lhotse,
}
