"""Options of a build, and of embeddings for an existing dataset."""

from dataclasses import dataclass
from pathlib import Path

from emovox.config import Options, check_options, option
from emovox.corpus.layouts import LAYOUTS
from emovox.corpus.splits import HEARD_FRACTION, UNHEARD_FRACTION
from emovox.dataset.names import STEP_MS
from emovox.devices import COMPILE_MODES, PRECISIONS
from emovox.errors import ConfigError
from emovox.ids import check_printable, printable
from emovox.paths import is_remote
from emovox.teacher import DEFAULT_TEACHER

ENGINES = ("joblib", "ray")
MAX_STEP_MS = 60_000  # keeps timestamp_ms of the last frame index within int32
MAX_SHARD_TRACKS = 400  # keeps the message to a worker within a pipe
MAX_TIMEOUT = 10**6  # seconds; timers do not accept every float


@dataclass(frozen=True)
class BuildConfig:
    """Options of `emovox build-dataset`.

    Attributes:
        layout: Layout of the corpus on disk, see `emovox.corpus.layouts`.
        root: Folder of the corpus, or its URL.
        out: Folder of the dataset, or its URL: new, empty, or of an earlier build. A URL has no
            lock: never start two builds into one at the same time.
        teacher: Teacher: registered name, checkpoint, .onnx file, or hf: and a folder or id.
        splits: `auto` (by hash), `official` (VoxCeleb1), or a CSV or Parquet file.
        meta: Folder of vox1_meta.csv and the official lists.
        table: List of tracks, if the layout is table.
        limit: Label only the first tracks of the corpus, this many; a later run may label more.
        state: Folder of the state that a build resumes from.
        name: Name of the dataset.
        version: Version of the dataset.
        jobs: Number of worker processes.
        engine: Engine that runs the shards: joblib on this machine, ray on a cluster.
        ray_address: Address of the head of the Ray cluster.
        actor_cpus: Cores of each Ray actor; it runs one worker per core.
        actor_gpus: GPUs of each Ray actor; may be a fraction of one.
        device: Device of the teacher: auto (CUDA if available), cpu, cuda or cuda:N.
        precision: Arithmetic of the teacher; auto selects bf16 where the hardware supports it.
        compile: Use of torch.compile for the teacher; auto compiles if a compiler is installed and
            the corpus is large enough to benefit. Compiled rows differ in the last digits, so pass
            on or off for a corpus that will grow.
        mirror: Average the teacher's outputs for each face and its mirror image; takes twice as
            long on the teacher's side.
        embeddings: Write the table `embeddings` too: the teacher's last hidden layer per row.
        step_ms: Milliseconds between grid points.
        min_face: Smallest face that the detector searches for, in pixels of the picture; half the
            size takes about four times as long.
        timeout: Time limit for one track, in seconds.
        max_dropped: Largest fraction of dropped tracks; above it the exit code is 1.
        unheard_fraction: Fraction of identities in unheard_val, if splits is auto.
        heard_fraction: Fraction of the other identities' videos in heard_val, if splits is auto.
        shard_tracks: Approximate number of tracks per shard.
        hdf5: Write HDF5 files in addition to Parquet.
        retry_dropped: Rebuild shards that contain dropped tracks.
        replace: Replace the dataset at OUT even if tracks are lost or change.
        synthetic: Mark the dataset as synthetic in its card.
    """

    layout: str = option(choices=LAYOUTS)
    root: Path = option(url=True)
    out: Path = option(url=True)
    teacher: str = DEFAULT_TEACHER
    splits: str | None = option(None, shown="the table's split column, else auto")
    meta: Path | None = option(None, url=True, shown="the corpus, else downloaded lists")
    table: Path | None = option(None, url=True)
    limit: int | None = option(None, least=1)
    state: Path | None = option(None, url=True, shown="OUT/.emovox")
    name: str | None = option(None, shown="name of the folder OUT")
    version: str = "0.1.0"
    jobs: int = option(0, least=0, shown="one per core")
    engine: str = option("joblib", choices=ENGINES)
    ray_address: str | None = option(None, shown="$RAY_ADDRESS, else a new local cluster")
    actor_cpus: int = option(1, least=1)
    actor_gpus: float = option(0.0, least=0)
    device: str = "auto"
    precision: str = option("auto", choices=PRECISIONS)
    compile: str = option("auto", choices=COMPILE_MODES)
    mirror: bool = False
    embeddings: bool = False
    step_ms: int = option(STEP_MS, least=1, most=MAX_STEP_MS)
    min_face: int | None = option(None, least=20, shown="1/16 of the longer side, at least 40")
    timeout: float = option(300.0, least=0.001, most=MAX_TIMEOUT)
    max_dropped: float = option(0.05, least=0, most=1)
    unheard_fraction: float = option(UNHEARD_FRACTION, least=0, most=1)
    heard_fraction: float = option(HEARD_FRACTION, least=0, most=1)
    shard_tracks: int | None = option(
        None, least=1, most=MAX_SHARD_TRACKS, shown="16; fewer below 1,024 tracks"
    )
    hdf5: bool = False
    retry_dropped: bool = False
    replace: bool = False
    synthetic: bool = False

    def __post_init__(self) -> None:
        check_options(self)
        for name in ("out", "state"):
            if (value := getattr(self, name)) is not None:
                check_printable(value, f"--{name}")
        if self.state == self.out:
            raise ConfigError("--state and --out are the same folder; pass two different ones")
        if isinstance(self.state, Path) and self.state.is_file():
            raise ConfigError(f"--state {self.state}: is a file; pass a folder")
        if self.meta is not None and not self.meta.is_dir():
            raise ConfigError(f"--meta {self.meta}: no such folder")
        if self.engine != "ray":
            for name in ("ray_address", "actor_cpus", "actor_gpus"):
                if getattr(self, name) != getattr(type(self), name):
                    raise ConfigError(f"--{name.replace('_', '-')} needs --engine ray")
        elif self.device.startswith("cuda") and not self.actor_gpus:
            raise ConfigError(f"--device {self.device} with --engine ray needs --actor-gpus")
        if self.actor_gpus > 1 and self.actor_gpus % 1:
            raise ConfigError("--actor-gpus above 1 must be a whole number")

    @property
    def dataset_name(self) -> str:
        """Name of the dataset: the one that was given, or that of its folder."""
        out = self.out if is_remote(self.out) else self.out.resolve()
        return printable(self.name or out.name or "dataset")  # never the name of a bucket


@dataclass(frozen=True)
class EmbedConfig(Options):
    """Options of `emovox embed`.

    Attributes:
        root: Folder of the corpus that the dataset was built from.
        teacher: Teacher whose last hidden layer is written: as for `emovox build-dataset`.
        meta: Folder of vox1_meta.csv, for a corpus with names of persons.
        device: Device of the teacher: auto (CUDA if available), cpu, cuda or cuda:N.
        precision: Arithmetic of the teacher; auto selects bf16 where the hardware supports it.
        jobs: Number of processes that decode.
    """

    root: Path = option()
    teacher: str | None = option(None, shown="that of the dataset")
    meta: Path | None = option(None, shown="the corpus, else downloaded lists")
    device: str = "auto"
    precision: str = option("auto", choices=PRECISIONS)
    jobs: int = option(0, least=0, shown="one per core")
