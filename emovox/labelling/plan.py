"""The plan of a build: tracks in shards, each with a fingerprint of its inputs, and their files."""

import dataclasses
import errno
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emovox.corpus.layouts import read_corpus
from emovox.corpus.splits import assign, fraction
from emovox.corpus.tracks import Corpus, FaceSource, Files, Track
from emovox.dataset import schema
from emovox.dataset.rows import Dropped, TrackRow, count_reasons
from emovox.dataset.schema import SCHEMA_VERSION
from emovox.devices import Runtime
from emovox.emotions import Outputs
from emovox.errors import InputError, TrackError
from emovox.files import LFS_HINT, is_lfs_pointer, replace_file, sha256_file, write_text
from emovox.ids import TrackKey, printable
from emovox.labelling.build_config import BuildConfig
from emovox.media.faces import DENSE_SCALE, VOXCELEB2_SCALE
from emovox.paths import is_remote, map_ahead
from emovox.teacher import find_teacher, resolve_modes
from emovox.teacher.sidecar import ForeignWeights

MAX_DEATHS = 2  # crashes or hangs of workers on one track before the track counts as lost
ROWS_VERSION = 3  # raise it when a change to the code changes rows
MAX_SHARD_GROWTH = 2  # largest shard, in multiples of `shard_tracks`
COMPILE_PAYS_FROM = (200_000, 5_000)  # crops, measured on two cores; the latter if is_released
FRAMES_PER_TRACK = 33  # mean of VoxCeleb1 at 0.24 s; estimates the size of a build


@dataclass(frozen=True)
class ShardSettings:
    """Everything that decides the rows of a shard, except its tracks."""

    step_ms: int  # milliseconds between grid points
    teacher_name: str  # registered name of the teacher, or file name of its checkpoint
    teacher_sha256: str  # SHA-256 of its weights
    device: str  # type of its device, with an index if the user gave one
    precision: str  # `fp32` or `bf16`
    compiled: bool  # True if it runs through torch.compile
    outputs: Outputs = field(default_factory=Outputs)  # names of its emotions and values
    min_face: int | None = None  # of the face detector, see `BuildConfig`
    # The sidecar of a teacher in another format.
    teacher_settings: Mapping[str, Any] | None = None
    mirror: bool = False  # True to average the outputs of each face and of its mirror image
    embeddings: bool = False  # True to keep the last hidden layer too


@dataclass(frozen=True)
class Shard:
    """Tracks that one worker turns into rows together."""

    # Hash of settings, tracks and source files; also the name of the shard's files.
    fingerprint: str
    tracks: tuple[Track, ...]  # in the order of the dataset


@dataclass(frozen=True)
class ShardJob:
    """Input of a worker."""

    shard: Shard
    settings: ShardSettings
    root: Path  # folder of the corpus
    state: Path  # folder of finished shards
    teacher_path: Path
    timeout: float | None = None  # seconds per track; None for no limit
    # Number of workers that died, by the track they were working on. These tracks are decoded once
    # more, in a child process; after more than `MAX_DEATHS` they are dropped.
    lost: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class BuildPlan:
    """Everything known before the first frame is decoded."""

    config: BuildConfig
    corpus: Corpus
    assigned: Mapping[str, str]  # split of every track, by track_id
    teacher_path: Path
    runtime: Runtime
    settings: ShardSettings
    shards: list[Shard]  # in the order of the dataset

    def jobs(self, state: Path, done: Container[str]) -> list[ShardJob]:
        """Return the shards that are not in `done`, large ones first so that none ends last."""
        # Workers have their own working folders: paths must be absolute.
        paths = (self.config.root, state)
        root, state = (p.absolute() if isinstance(p, Path) else p for p in paths)
        missing = [shard for shard in self.shards if shard.fingerprint not in done]
        return [
            ShardJob(shard, self.settings, root, state, self.teacher_path, self.config.timeout)
            for shard in sorted(missing, key=lambda shard: -len(shard.tracks))
        ]


def make_plan(config: BuildConfig, resolve: Callable[[str, str, str, bool], Runtime]) -> BuildPlan:
    """List the tracks of a corpus, assign their splits and group them into shards.

    `resolve` resolves device, precision and compile mode where the teacher will run. ConfigError
    or InputError if an option or an input is not valid, CheckError if the split leaks.
    """
    teacher = find_teacher(config.teacher)
    corpus = read_corpus(config.layout, config.root, config.table, config.meta)
    fractions = config.unheard_fraction, config.heard_fraction
    assigned = assign(corpus, config.splits, config.meta, *fractions)
    check_contents(corpus)
    if config.limit and (more := len(corpus.tracks) - config.limit) > 0:
        corpus.note(f"{more:,} tracks were left out by the limit of {config.limit:,}")
        corpus.tracks = corpus.tracks[: config.limit]
    if not corpus.tracks:
        reasons = ", ".join(f"{n} x {why}" for why, n in count_reasons(corpus.dropped).items())
        raise InputError(
            f"{config.root}: no usable track of layout {config.layout} ({reasons}; "
            f"the first: {corpus.dropped[0].source}: {corpus.dropped[0].message})"
        )
    # Fingerprints hold the resolved settings, never `auto`.
    pays = len(corpus.tracks) * FRAMES_PER_TRACK >= COMPILE_PAYS_FROM[teacher.is_released]
    precision, compile = resolve_modes(teacher, config.precision, config.compile)
    runtime = resolve(config.device, precision, compile, pays)
    settings = ShardSettings(
        config.step_ms,
        printable(teacher.name),
        teacher.sha256,
        runtime.device,
        runtime.precision,
        runtime.compiled,
        teacher.read_outputs(),
        config.min_face,
        asdict(teacher.sidecar) if isinstance(teacher, ForeignWeights) else None,
        config.mirror,
        config.embeddings,
    )
    # No core is idle at the end; one track each costs more time than four, see RESULTS.md.
    count = len(corpus.tracks)
    size = config.shard_tracks or (1 if count < 64 else 4 if count < 1024 else 16)
    shards = list(plan_shards(corpus.files, corpus.tracks, settings, size))
    return BuildPlan(config, corpus, assigned, teacher.path, runtime, settings, shards)


def plan_shards(
    files: Files, tracks: Iterable[Track], settings: ShardSettings, shard_tracks: int
) -> Iterator[Shard]:
    """Group sorted tracks into shards of about `shard_tracks`.

    The end of a shard depends on the names of the tracks alone: a corpus that grows or shrinks
    changes only the shards of the tracks in question.
    """
    groups: list[list[Track]] = [[]]
    for track in tracks:
        groups[-1].append(track)
        ends_here = fraction(f"shard {track.track_id}") < 1 / shard_tracks
        if ends_here or len(groups[-1]) >= MAX_SHARD_GROWTH * shard_tracks:
            groups.append([])
    for group in filter(None, groups):
        yield Shard(_fingerprint(files, group, settings), tuple(group))


def _fingerprint(files: Files, tracks: list[Track], settings: ShardSettings) -> str:
    inputs = [SCHEMA_VERSION, ROWS_VERSION, [DENSE_SCALE, VOXCELEB2_SCALE], asdict(settings)]
    whole = hashlib.sha256(json.dumps(inputs).encode())
    for track in tracks:
        # Rows do not depend on the split, so it is left out.
        fields = (track.track_id, track.source, track.faces, track.boxes, track.start, track.end)
        state = files.folder_state if track.faces is FaceSource.DENSE else files.state
        states = [state(track.source), track.boxes and files.state(track.boxes)]
        whole.update(json.dumps([fields, states]).encode())
    return whole.hexdigest()


MAX_POINTER = 1024  # bytes of a Git LFS pointer
SAMPLE = 4096  # bytes in the middle of a file, which rule out most copies


def check_contents(corpus: Corpus) -> None:
    """Drop Git LFS pointers, and note files that occur under two identities or videos.

    Only files of equal size are compared. Files behind a URL, and folders of pictures, are not.
    """
    owners: dict[str, object] = {}  # the video of each file; its own name if several list it
    for track in [] if is_remote(corpus.root) else corpus.tracks:
        video = track.key.identity_id, track.key.video_id
        if track.faces is not FaceSource.DENSE and owners.setdefault(track.source, video) != video:
            owners[track.source] = track.source
    by_size: dict[object, list[str]] = defaultdict(list)
    pointers = set()
    for source in owners:
        size, *_ = corpus.files.state(source) or (0,)
        if size > MAX_POINTER:
            by_size[size].append(source)
        elif size and is_lfs_pointer(corpus.root / source):
            pointers.add(source)
    if pointers:
        error = TrackError("open", "GitLfsPointer", LFS_HINT)
        for track in corpus.tracks:
            if track.source in pointers:
                corpus.drop(track.track_id, track.shown(track.source), error)
        corpus.tracks = [track for track in corpus.tracks if track.source not in pointers]
        what = "media files: Git LFS pointers; run `git lfs pull` and rerun"
        corpus.note(f"{len(pointers):,} {what}")
    groups = list(by_size.values())
    for digest in (_sample, sha256_file):
        several = [group for group in groups if len({owners[name] for name in group}) > 1]
        groups = _split(corpus.root, several, digest)
    if copies := [group for group in groups if len(group) > 1]:
        first, second, *_ = copies[0]
        corpus.note(
            f"{sum(map(len, copies)) - len(copies):,} files are copies of a file of another "
            f"identity or video, for example {second} of {first}; remove them, or they may leak "
            "between splits"
        )


def _split(
    root: Path, groups: list[list[str]], digest: Callable[[Path], object]
) -> list[list[str]]:
    def key(place: tuple[int, str]) -> object:
        number, name = place
        try:
            return number, digest(root / name)
        except OSError:
            return place  # the same as no other file

    places = [(number, name) for number, group in enumerate(groups) for name in group]
    same: dict[object, list[str]] = defaultdict(list)
    for (_, name), found in zip(places, map_ahead(key, places), strict=True):
        same[found].append(name)
    return list(same.values())


def _sample(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(path.stat().st_size // 2)
        return file.read(SAMPLE)


def row_columns(outputs: Outputs, embedding_size: int = 0) -> pa.Schema:
    """Return the columns of a shard's file: those of frames, of faces, and the embedding if any."""
    columns = schema.columns(outputs)
    fields = [*columns.frames, *(f for f in schema.FACES if f.name not in columns.frames.names)]
    if embedding_size:
        fields.append(columns.of("embeddings", embedding_size).field("embedding"))
    return pa.schema(fields)


@dataclass
class ShardReport:
    """Marker of a finished shard."""

    fingerprint: str  # of the shard
    rows_bytes: int = 0  # size of the file of rows; detects a damaged one
    tracks: list[TrackRow] = field(default_factory=list)  # tracks with rows, in order
    dropped: list[Dropped] = field(default_factory=list)  # tracks without rows
    notes: dict[str, list[Any]] = field(default_factory=dict)  # `{oddity: [times, example]}`
    media_seconds: float = 0.0  # time spent on decoding, faces and crops
    teacher_seconds: float = 0.0  # time that the teacher spent on these crops
    wait_seconds: float = 0.0  # time spent waiting for the teacher
    num_decoded: int = 0  # video frames decoded

    def note(self, what: str, example: str) -> None:
        """Count an oddity, and keep its first example."""
        count, first = self.notes.get(what, [0, example])
        self.notes[what] = [count + 1, first]

    @property
    def num_tracks(self) -> int:
        """Number of tracks, dropped ones included."""
        return len(self.tracks) + len(self.dropped)

    @property
    def num_frames(self) -> int:
        """Number of rows."""
        return sum(track.n_frames for track in self.tracks)


def rows_file(state: Path, fingerprint: str) -> Path:
    """Path of a shard's rows."""
    return state / f"{fingerprint[:32]}.parquet"


def marker_file(state: Path, fingerprint: str) -> Path:
    """Path of a shard's marker."""
    return state / f"{fingerprint[:32]}.json"


def write_shard(state: Path, table: pa.Table, report: ShardReport) -> None:
    """Write the rows of a shard, see `row_columns`, then its marker; set `rows_bytes` of it."""
    with replace_file(rows_file(state, report.fingerprint)) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
        report.rows_bytes = temporary.stat().st_size
    marker = dataclasses.asdict(report)
    marker["tracks"] = [dataclasses.astuple(track) for track in report.tracks]
    marker["dropped"] = [dataclasses.astuple(dropped) for dropped in report.dropped]
    write_text(marker_file(state, report.fingerprint), json.dumps(marker))


def read_report(state: Path, fingerprint: str, rows_bytes: int) -> ShardReport | None:
    """Read the marker of a shard; None if it is damaged or its rows are not `rows_bytes` long."""
    try:
        marker = json.loads(marker_file(state, fingerprint).read_text(encoding="utf-8"))
        marker["tracks"] = [TrackRow(TrackKey(*key), *rest) for key, *rest in marker["tracks"]]
        marker["dropped"] = [Dropped(*values) for values in marker["dropped"]]
        report = ShardReport(**marker)
    except OSError as error:
        if is_remote(state) and error.errno != errno.ENOENT:
            raise  # a store that does not answer says nothing about the shard
        return None
    except (ValueError, TypeError, KeyError):
        return None
    is_whole = report.fingerprint == fingerprint and report.rows_bytes == rows_bytes
    return report if is_whole else None
