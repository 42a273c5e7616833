"""Import of the published annotations of EmoVoxCeleb, a MATLAB file, into a dataset."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emovox.corpus import voxceleb
from emovox.corpus.splits import HEARD, TRAIN, UNHEARD, audit, official_split
from emovox.dataset import schema
from emovox.dataset.rows import Chunk, Dropped, TrackRow, count_reasons
from emovox.dataset.writer import DatasetInfo, write_chunks
from emovox.emotions import EMOTIONS
from emovox.errors import InputError, TrackError
from emovox.files import check_vacant, new_folder, sha256_file
from emovox.ids import TrackKey, printable
from emovox.labelling.own_labels import CHUNK_TRACKS, frame_table
from emovox.labelling.published_mat import Annotations, FaceImages, read_annotations
from emovox.packages import DataFrame, data_frame, software
from emovox.teacher import ACCURACY

SETS: dict[float, str] = {1: TRAIN, 2: UNHEARD, 3: HEARD}  # `images.set` of the file
NAME = re.compile(r"([^/]+)/(?:[^/]+/)?([^/]+)_([0-9]{1,20})\.wav")
MAX_EXAMPLES = 5
TEACHER = "senet50-ferplus"
ORIGIN = "Imported by emovox from the published annotations of EmoVoxCeleb (Albanie et al., 2018)."

# Counts of the published file, from Table 3 of the paper and from the reference code.
PUBLISHED = {
    "tracks in the file": 153_486,
    f"tracks in the file, {TRAIN}": 118_485,
    f"tracks in the file, {HEARD}": 4_505,
    f"tracks in the file, {UNHEARD}": 30_496,
    "tracks without frames": 134,
    "face images": 5_078_961,
    "face images of no track": 1_217,
    "tracks": 153_352,
    "frames": 5_077_744,
    "identities": 1_251,
}


@dataclass(repr=False)
class ImportResult:
    """Result of an import."""

    out: Path  # folder of the dataset
    manifest: dict[str, Any]  # content of its manifest.json
    counts: dict[str, int]  # with the keys of `PUBLISHED`
    reasons: Counter[str]  # dropped tracks by stage and error
    notes: list[str]  # lines about oddities

    def __repr__(self) -> str:
        totals = self.manifest["totals"]
        counts = f"{totals['tracks']:,} tracks, {totals['frames']:,} frames"
        return f"<ImportResult {self.out}: {counts}>"

    def to_pandas(self) -> DataFrame:
        """Return the columns `count`, `found`, `published`; MissingPackageError without pandas."""
        rows = [(what, self.counts.get(what), count) for what, count in PUBLISHED.items()]
        return data_frame(rows, ["count", "found", "published"])

    def summary(self) -> str:
        """Return the counts next to the published ones, then dropped tracks and notes."""
        lines = [f"{'':<34}{'this file':>12}{'published':>12}"]
        for what, published in PUBLISHED.items():
            found = self.counts.get(what)
            shown = "-" if found is None else f"{found:,}"
            mark = "" if found in (published, None) else "  differs"
            lines.append(f"{what:<34}{shown:>12}{published:>12,}{mark}")
        lines += [f"dropped   {count:,} x {why}" for why, count in self.reasons.most_common()]
        lines += [f"note      {note}" for note in self.notes]
        return "\n".join([*lines, f"dataset   {self.out}"])


def import_mat(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    meta: str | os.PathLike[str] | None = None,
    name: str = "emovoxceleb",
    version: str = "1.0.0",
    hdf5: bool = False,
) -> ImportResult:
    """Convert the published annotations into a dataset.

    Args:
        files: the MAT file, or several that together contain `wavLogits` and `images`.
        out: folder of the dataset, new or empty. It appears when it is complete.
        meta: folder of vox1_meta.csv, which maps names to ids, and optionally of the two official
            lists, with which the splits of the file are compared. None: the folder of the first
            file, or that of `emovox download splits`.
        name: name of the dataset.
        version: version of the dataset.
        hdf5: write each split as HDF5 too.

    Raises:
        InputError: a file is missing or damaged, lacks a field, or has another number of emotions.
        CheckError: the split of the file leaks.

    Example:
        >>> import_mat("published/senet50-ferplus-logits.mat", "emovoxceleb")  # doctest: +SKIP
        <ImportResult emovoxceleb: 153,352 tracks, 5,077,744 frames>
    """
    given = [files] if isinstance(files, str | os.PathLike) else files
    paths, out = [Path(path) for path in given], Path(out)
    where = ", ".join(map(str, paths))
    meta = voxceleb.lists_folder(None if meta is None else Path(meta), paths[0].parent)
    check_vacant(out)
    if missing := next((path for path in paths if not path.is_file()), None):
        raise InputError(f"{missing}: cannot be read; run `emovox download annotations`")
    names = voxceleb.read_names(meta)
    lists = voxceleb.read_official_split(meta) if (meta / voxceleb.SETS_LIST).is_file() else None
    tracks = _Tracks(read_annotations(paths), names, where)
    tracks.compare(lists)
    audit(tracks.keys, tracks.splits)
    reasons = count_reasons(tracks.dropped)
    if not tracks.keys:
        why = ", ".join(f"{count} x {reason}" for reason, count in reasons.items())
        raise InputError(f"{where}: no usable track ({why})")
    info = DatasetInfo(
        name=printable(name),
        version=printable(version),
        step_ms=schema.STEP_MS,
        teacher={"name": TEACHER, "sha256": None},
        provenance={
            **software("numpy", "pyarrow", "h5py"),
            "origin": ORIGIN,
            "teacher": {"name": TEACHER, "sha256": None, "accuracy": ACCURACY[TEACHER]},
            "imported_from": [_fingerprint(path) for path in paths],
            "lists": [_fingerprint(meta / n) for n in voxceleb.LISTS if (meta / n).is_file()],
            "split_disagreements": tracks.disagreements,
        },
        tables=("frames", "tracks"),
    )
    # `out` may be a link or the current folder.
    with new_folder(out.resolve(), "importing") as building:
        manifest = write_chunks(building, tracks.chunks(), tracks.dropped, info, hdf5=hdf5)
    counts = tracks.counts | {"frames": manifest["totals"]["frames"]}
    return ImportResult(out, manifest, counts, reasons, tracks.notes)


def _fingerprint(path: Path) -> dict[str, str]:
    return {"file": printable(path.name), "sha256": sha256_file(path)}


def _unique_ids(ids: np.ndarray) -> np.ndarray:
    """Return ids as int64, with a distinct negative number for each invalid or repeated id."""
    values = ids.astype(np.float64)
    whole = np.isfinite(values) & (values == np.round(values)) & (values >= 0) & (values < 2**53)
    numbers = np.where(whole, values, 0).astype(np.int64)
    _, kinds, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return np.where(whole & (counts[kinds] == 1), numbers, -1 - np.arange(len(numbers)))


def _check_logits(logits: np.ndarray) -> None:
    if not logits.size:
        raise TrackError("decode", "NoFrames", "wavLogits has no rows for it")
    if logits.ndim != 2 or logits.shape[1] != len(EMOTIONS):
        shape = " x ".join(map(str, logits.shape))
        message = f"its logits are {shape}, expected n x {len(EMOTIONS)}"
        raise TrackError("decode", "BadShape", message)
    if not (np.abs(logits) <= np.finfo(np.float32).max).all():
        raise TrackError("decode", "NotFinite", "a logit is NaN, infinite or beyond float32")
    if len(logits) > schema.max_frame_index(schema.STEP_MS) + 1:
        raise TrackError("time", "TooLong", f"{len(logits):,} frames")


class _Tracks:
    """Tracks of the file, by id, and their rows."""

    def __init__(self, found: Annotations, names: dict[str, str], where: str) -> None:
        assert found.ids is not None and found.sets is not None
        found.ids = _unique_ids(found.ids)
        self._found, self._names, self._where = found, names, where
        self._ids, self._sets = found.ids, found.sets
        lengths = [len(column) for column in (found.names, found.ids, found.sets)]
        if len(set(lengths)) > 1:
            shown = ", ".join(map(str, lengths))
            raise InputError(f"{where}: images.name, id and set differ in length: {shown}")
        widths = Counter(x.shape[1] for x in found.logits if x.ndim == 2 and x.size)
        if widths and len(EMOTIONS) not in widths:
            fact = f"wavLogits has {widths.most_common(1)[0][0]} columns"
            expected = f"{len(EMOTIONS)}: {', '.join(EMOTIONS)}"
            raise InputError(f"{where}: {fact}, expected {expected}")
        self.keys: list[TrackKey] = []  # tracks with rows, sorted by track_id
        self.splits: dict[str, str] = {}
        self.dropped: list[Dropped] = []  # the other tracks
        self.notes: list[str] = []  # lines about oddities
        # Tracks whose split in the file differs from the official lists.
        self.disagreements: list[dict[str, str | None]] = []
        # Position in wavLogits and frame indices of every track with rows.
        self._rows: dict[str, tuple[int, np.ndarray]] = {}
        self._faces = FaceImages(found)
        for position, cell in enumerate(self._find_cells()):
            self._add(position, cell)
        self.keys.sort(key=lambda key: key.track_id)
        self.notes += self._faces.notes()
        self.counts = self._count()  # with keys of `PUBLISHED`

    def _find_cells(self) -> np.ndarray:
        """Return the position in `wavLogits` of the logits of each entry of `images`.

        Ids are the original numbers of the utterances. If wavLogits has a cell for each of them,
        the id gives the position; if utterances were removed from both, they are parallel. If both
        are possible, the numbers of face images, which have ids, decide.
        """
        ids, num_cells = self._ids, len(self._found.logits)
        is_parallel = len(ids) == num_cells
        is_by_id = ids.min() >= 1 and ids.max() <= num_cells
        if not is_parallel and not is_by_id:
            raise InputError(
                f"{self._where}: wavLogits has {num_cells:,} cells, images.id {len(ids):,} entries "
                f"up to {ids.max():,}: cannot join them"
            )
        in_order = np.arange(len(ids))
        if not (is_parallel and is_by_id) or np.array_equal(ids - 1, in_order):
            return ids - 1 if is_by_id else in_order
        if self._faces.counts is None:
            self.notes.append("wavLogits and images match by position and by id; joined by id")
            return ids - 1
        num_rows = np.array([len(x) for x in self._found.logits])
        misfits = [(num_rows[x] != self._faces.counts).sum() for x in (ids - 1, in_order)]
        return ids - 1 if misfits[0] <= misfits[1] else in_order

    def _add(self, position: int, cell: int) -> None:
        number, split = int(self._ids[position]), SETS.get(float(self._sets[position]))
        track_id = f"images/{number}"
        logits = self._found.logits[cell]
        try:
            if number < 0:
                raise TrackError("plan", "BadId", "its images.id is not a unique integer")
            key = self._key(self._found.names[position])
            track_id = key.track_id
            if track_id in self.splits:
                raise TrackError("plan", "DuplicateTrack", "another entry has the same track_id")
            _check_logits(logits)
            if split is None:
                message = f"images.set is {self._sets[position]}, expected 1, 2 or 3"
                raise TrackError("split", "UnknownSet", message)
        except TrackError as error:
            source = f"images.id {number}"  # its name is that of a person
            self.dropped.append(Dropped.of(track_id, source, error))
        else:
            self.keys.append(key)
            self.splits[track_id] = split
            self._rows[track_id] = cell, self._faces.index(position, len(logits))

    def _key(self, name: str) -> TrackKey:
        match = NAME.fullmatch(name)
        if match is None or {".", ".."} & {*name.split("/"), match[2]}:
            message = "the name is not <person>/<set>/<video>_<track>.wav"
            raise TrackError("plan", "BadName", message)
        if match[1] not in self._names:
            raise TrackError("plan", "UnknownIdentity", "vox1_meta.csv does not list the person")
        key = TrackKey(self._names[match[1]], match[2], int(match[3]))
        key.check()
        return key

    def _count(self) -> dict[str, int]:
        counts = {"tracks in the file": len(self._ids)}
        sets = Counter(SETS.get(float(value)) for value in self._sets)
        counts |= {f"tracks in the file, {split}": sets[split] for split in SETS.values()}
        counts["tracks without frames"] = sum(d.error == "NoFrames" for d in self.dropped)
        if (wav_ids := self._found.wav_ids) is not None:
            counts["face images"] = len(wav_ids)
            counts["face images of no track"] = int((~np.isin(wav_ids, self._ids)).sum())
        counts["tracks"] = len(self.keys)
        counts["identities"] = len({key.identity_id for key in self.keys})
        return counts

    def compare(self, lists: voxceleb.OfficialSplit | None) -> None:
        if lists is None:
            self.notes.append("official lists not found; the splits of the file were not compared")
            return
        for key in self.keys:
            name, listed = key.track_id, official_split(key, lists)
            if listed != (split := self.splits[name]):
                self.disagreements.append({"track_id": name, "file": split, "lists": listed})
        for each in self.disagreements[:MAX_EXAMPLES]:
            splits = f"{each['file']} in the file, {each['lists']} in the official lists"
            self.notes.append(f"{each['track_id']}: {splits}")
        if self.disagreements:
            self.notes.append(
                f"{len(self.disagreements):,} tracks have another split in the official lists; "
                f"{schema.PROVENANCE} lists them"
            )

    def chunks(self) -> Iterator[Chunk]:
        for split in schema.SPLITS:
            keys = [key for key in self.keys if self.splits[key.track_id] == split]
            for start in range(0, len(keys), CHUNK_TRACKS):
                tracks, logits, indices = [], [], []
                for key in keys[start : start + CHUNK_TRACKS]:
                    cell, index = self._rows[key.track_id]
                    rows = self._found.logits[cell]
                    order = np.argsort(index)
                    tracks.append(TrackRow(key, len(rows), int(index[order[-1]]) + 1))
                    logits.append(rows[order])
                    indices.append(index[order])
                outputs = np.concatenate(logits).astype(np.float32, copy=False)
                index = np.concatenate(indices)
                table = frame_table(tracks, index, outputs, schema.STEP_MS, schema.EIGHT)
                yield Chunk(split, tracks, table)
