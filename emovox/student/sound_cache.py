"""Sound of tracks as 16-bit samples in a few large files: decoded once, shared by all trainings.

`sound-*.pcm` has the samples of many tracks, little-endian int16 at 16 kHz, and `sound-*.json`
their sources and places, and the hash of both. The latter is written last, and neither changes
after that: a killed run loses only what it was writing, and packing does not disturb readers.
"""

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from tqdm import tqdm

from emovox.dataset.reader import load
from emovox.dataset.rows import Dropped
from emovox.errors import EmovoxError, InputError
from emovox.files import exclusive, read_object, replace_file, write_text
from emovox.media.audio import SAMPLE_RATE, read_audio
from emovox.student.clips import Clip, Scan, find_clips, unusable

FULL_SCALE = 2**15
FILE_TRACKS = 2000  # of 8 s: 500 MB


class SoundCache:
    """Sound of clips in the folder of a cache, memory-mapped; pickles as its arguments.

    `root` is the folder of the audio. Clips that the cache lacks are read from their files.
    """

    def __init__(self, folder: Path, clips: Sequence[Clip], root: Path) -> None:
        self._arguments = folder, clips, root
        self._samples: dict[str, np.ndarray] = {}
        (_, places), files = _read_index(folder), dict[str, np.ndarray]()
        for clip in clips:
            if place := places.get(_identity(clip, root)):
                name, offset, count = place
                if name not in files:  # as an array, because slices of a memmap are slow
                    files[name] = np.memmap(folder / f"{name}.pcm", "<i2", "r").view(np.ndarray)
                self._samples[clip.track_id] = files[name][offset : offset + count]

    def __reduce__(self) -> tuple[Any, ...]:
        return SoundCache, self._arguments

    def read(self, clip: Clip, start: float, end: float) -> np.ndarray:
        """Return samples int16 `[L]` between two times of a track; InputError if unreadable."""
        if clip.track_id not in self._samples:
            return to_int16(read_audio(clip.path, clip.start + start, clip.start + end))
        samples = self._samples[clip.track_id][round(start * SAMPLE_RATE) :]
        if not len(samples):
            raise InputError(f"{clip.path}: holds no sound from {clip.start + start:g} s on")
        return samples[: round(end * SAMPLE_RATE) - round(start * SAMPLE_RATE)]


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Round samples to 16 bits, as in a WAV file: full scale is clipped to 32,767."""
    scaled = np.rint(samples * np.float32(FULL_SCALE))
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype("<i2")


def pack_sound(
    dataset: str | os.PathLike[str],
    audio: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    jobs: int = 0,
    max_dropped: float = 0.05,
    say: Callable[[str], None] = lambda line: None,
) -> Scan:
    """Store the sound of a dataset's tracks for `train_student` and `SpeechSegments`.

    Tracks that `out` has, of any dataset, are not decoded again, unless their audio changed or a
    file of the cache differs from its hash. A killed run resumes.

    Args:
        dataset: folder of the dataset.
        audio: folder with the tracks' audio, see `emovox.audio_path`, or of the dataset's sources.
        out: folder of the cache.
        jobs: number of processes that decode; 0 for one per core.
        max_dropped: largest fraction of tracks without usable audio.
        say: receives the number of new tracks and the damaged files, as lines of text.

    Returns:
        The tracks that are in the cache, and the others.

    Raises:
        InputError: the dataset or the folder of audio is missing.
        CheckError: too many tracks have no usable audio; the others are stored.

    Example:
        >>> len(pack_sound("emovox-demo/dataset", "emovox-demo/corpus", "sound", jobs=1).clips)
        96
    """
    data, root = load(dataset), Path(audio)
    track_ids = [key for split in data.splits for key in data.tracks[split]["track_id"].to_pylist()]
    scan = find_clips(data, track_ids, root)
    failed = pack_clips(Path(out), scan.clips, root, jobs, say)
    lost = {item.track_id for item in failed}
    scan = Scan([c for c in scan.clips if c.track_id not in lost], scan.dropped + failed)
    scan.check(root, max_dropped)
    return scan


def pack_clips(
    folder: Path, clips: Sequence[Clip], root: Path, jobs: int, say: Callable[[str], None]
) -> list[Dropped]:
    """Store the sound of the clips that a cache lacks, in `jobs` processes, 0 for one per core.

    Files of the cache that hold clips are compared with their hashes; those that differ are
    removed, and their tracks packed again. Returns the clips that cannot be read. EmovoxError if a
    process was killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing, _ = _examine(folder, clips, root)
    if not missing:
        return []
    say(f"{folder}: packing {len(missing):,} tracks, after any other run that packs there")
    with exclusive(folder / "lock", "", timeout=-1):
        missing, intact = _examine(folder, clips, root)  # the other run may have packed them
        for path in (*folder.glob("sound-*.*"), *folder.glob(".sound-*.tmp")):
            if path.stem not in intact:
                say(f"{path}: incomplete, or differs from its hash; its tracks are packed again")
                path.unlink()
        jobs = jobs if jobs > 0 else joblib.cpu_count()
        size = min(FILE_TRACKS, -(-len(missing) // jobs)) or 1
        missing = [replace(clip, path=clip.path.absolute()) for clip in missing]
        parts = [missing[k : k + size] for k in range(0, len(missing), size)]
        written = joblib.Parallel(jobs, return_as="generator")(
            joblib.delayed(_write)(folder.absolute(), part, root.absolute()) for part in parts
        )
        bar = tqdm(written, "sound", len(parts), unit=" files", disable=None, leave=False)
        try:
            return [item for dropped in bar for item in dropped]
        except BrokenProcessPool as error:
            advice = "rerun the same command with fewer --jobs to resume"
            raise EmovoxError(f"{folder}: a process that decodes was killed; {advice}") from error


def _write(folder: Path, clips: Sequence[Clip], root: Path) -> list[Dropped]:
    """Write the samples of clips to a new file; return the clips that cannot be read."""
    name, digest, end = f"sound-{secrets.token_hex(8)}", hashlib.sha256(), 0
    tracks, dropped = [], []
    with replace_file(folder / f"{name}.pcm") as temporary, temporary.open("wb") as file:
        for clip in clips:
            identity = _identity(clip, root)  # before the samples, which may change
            try:
                samples = to_int16(read_audio(clip.path, clip.start, clip.end))
            except InputError as error:
                dropped.append(unusable(clip.track_id, clip.path, root, error))
                continue
            file.write(samples.data)
            digest.update(samples.data)
            tracks.append([identity, end, len(samples)])
            end += len(samples)
    if not tracks:
        (folder / f"{name}.pcm").unlink()
        return dropped
    digest.update(json.dumps(tracks).encode())
    index = {"sha256": digest.hexdigest(), "tracks": tracks}
    write_text(folder / f"{name}.json", json.dumps(index))
    return dropped


def _examine(folder: Path, clips: Sequence[Clip], root: Path) -> tuple[list[Clip], set[str]]:
    """Return the clips that a cache lacks, and the names of the files to keep."""
    hashes, places = _read_index(folder)
    names = [places.get(_identity(clip, root), ("",))[0] for clip in clips]

    def differs(name: str) -> bool:
        try:
            with (folder / f"{name}.pcm").open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        except OSError:
            return True
        digest.update(json.dumps(hashes[name][1]).encode())
        return bool(digest.hexdigest() != hashes[name][0])

    used = sorted({*names} - {""})
    with ThreadPoolExecutor() as pool:
        bad = {"", *compress(used, pool.map(differs, used))}
    return [c for c, name in zip(clips, names, strict=True) if name in bad], {*hashes} - bad


def _read_index(folder: Path) -> tuple[dict[str, Any], dict[str, tuple[str, int, int]]]:
    """Return hash and tracks of each file, and file, offset and length by `_identity`."""
    files: dict[str, Any] = {}
    places: dict[str, tuple[str, int, int]] = {}
    for path in folder.glob("sound-*.json"):
        with contextlib.suppress(InputError, LookupError, TypeError, ValueError):
            index, name = read_object(path), path.stem
            found = {track: (name, int(first), int(num)) for track, first, num in index["tracks"]}
            files[name] = str(index["sha256"]), index["tracks"]
            places |= found
    return files, places


def _identity(clip: Clip, root: Path) -> str:
    """Return what tells the sound of a clip from other sound, as JSON; "" if it is missing."""
    try:
        status = clip.path.stat()
    except OSError:
        return ""
    source = clip.path.relative_to(root).as_posix()
    return json.dumps([source, status.st_size, status.st_mtime_ns, clip.start, clip.end])
