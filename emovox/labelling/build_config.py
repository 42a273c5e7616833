"""What a build can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from emovox.corpus.splits import HEARD_FRACTION, UNHEARD_FRACTION
from emovox.dataset.names import STEP_MS
from emovox.errors import ConfigError
from emovox.ids import printable
from emovox.paths import as_path, is_remote
from emovox.teacher import DEFAULT_TEACHER

ENGINES = ("joblib", "ray")
MAX_STEP_MS = 60_000  # keeps timestamp_ms of the last frame index within int32
MAX_SHARD_TRACKS = 400  # keeps the message to a worker within a pipe
MAX_TIMEOUT = 10**6  # seconds; timers do not take every float


@dataclass(frozen=True)
class BuildConfig:
    """Options of `emovox build-dataset`, by flag or as keys of a TOML file.

    Attributes:
        URLS: those that may be URLs instead of local paths.
        layout: how the corpus lies on disk; `emovox.corpus.layouts` lists them.
        root: folder of the corpus.
        out: folder of the dataset; new, empty, or of an earlier build.
        teacher: registered name, or path of a checkpoint.
        splits: `auto`, `official`, or a file; None: the table's own column, else `auto`.
        meta: folder of vox1_meta.csv and the published lists; the corpus root if None.
        table: list of tracks, for the layout `table`.
        state: folder of what a build resumes from; `.emovox` in `out` if None.
        name: of the dataset; the name of its folder if None.
        version: of the dataset.
        jobs: worker processes that decode; 0 means one per core.
        engine: `joblib` on this machine, or `ray` on a cluster.
        ray_address: of the cluster's head; None: `RAY_ADDRESS`, else a cluster of this machine.
        actor_cpus: cores of a Ray actor, each with a worker.
        actor_gpus: GPUs of a Ray actor, or a fraction of one.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto`, `fp32` or `bf16`.
        compile: `on`, `off`, or `auto`: run the teacher through torch.compile where a compiler is
            there and the corpus is large enough to pay. Compiled rows differ in the last digits, so
            name one of the two for a corpus that will grow.
        step_ms: milliseconds between grid points.
        timeout: seconds that one track may take.
        max_dropped: share of tracks that may be dropped before the run counts as failed.
        unheard_fraction: share of identities that the automatic split keeps unheard.
        heard_fraction: share of the other identities' tracks that it holds back.
        shard_tracks: tracks per unit of work, about.
        hdf5: write each split as HDF5 too.
        retry_dropped: build shards with dropped tracks again.
        synthetic: faces and voices are nobody's; the card then says so.
        profile: measure what media and teacher can do here, and what of it the run reaches.
    """

    URLS: ClassVar[tuple[str, ...]] = ("root", "out", "state", "meta", "table")

    layout: str
    root: Path
    out: Path
    teacher: str = DEFAULT_TEACHER
    splits: str | None = None
    meta: Path | None = None
    table: Path | None = None
    state: Path | None = None
    name: str | None = None
    version: str = "0.1.0"
    jobs: int = 0
    engine: str = "joblib"
    ray_address: str | None = None
    actor_cpus: int = 1
    actor_gpus: float = 0.0
    device: str = "auto"
    precision: str = "auto"
    compile: str = "auto"
    step_ms: int = STEP_MS
    timeout: float = 300.0
    max_dropped: float = 0.05
    unheard_fraction: float = UNHEARD_FRACTION
    heard_fraction: float = HEARD_FRACTION
    shard_tracks: int = 16
    hdf5: bool = False
    retry_dropped: bool = False
    synthetic: bool = False
    profile: bool = False

    def __post_init__(self) -> None:
        for name in self.URLS:
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, as_path(value))
        if self.state == self.out:
            raise ConfigError("--state and --out are the same folder; give each its own")
        if self.meta is not None and not self.meta.is_dir():
            raise ConfigError(f"--meta {self.meta}: no such folder")
        if self.engine not in ENGINES:
            raise ConfigError(f"--engine {self.engine!r} is not one of {', '.join(ENGINES)}")
        if self.engine != "ray":
            self._refuse_cluster_options()
        elif self.device.startswith("cuda") and not self.actor_gpus:
            raise ConfigError(f"--device {self.device} with --engine ray needs --actor-gpus")
        if self.engine == "ray" and self.profile:
            raise ConfigError("--profile measures one machine; use it with --engine joblib")
        least = {"step_ms": 1, "timeout": 0.001, "shard_tracks": 1, "jobs": 0}
        least |= {"actor_cpus": 1, "actor_gpus": 0}
        for name, bound in least.items():
            if not getattr(self, name) >= bound:  # refuses NaN too
                raise ConfigError(f"--{name.replace('_', '-')} must be at least {bound}")
        if self.actor_gpus > 1 and self.actor_gpus % 1:
            raise ConfigError("--actor-gpus above 1 must be a whole number")
        most = {"step_ms": MAX_STEP_MS, "timeout": MAX_TIMEOUT, "shard_tracks": MAX_SHARD_TRACKS}
        for name, bound in most.items():
            if getattr(self, name) > bound:
                raise ConfigError(f"--{name.replace('_', '-')} must be at most {bound}")
        for name in ("max_dropped", "unheard_fraction", "heard_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"--{name.replace('_', '-')} must lie between 0 and 1")

    def _refuse_cluster_options(self) -> None:
        for name in ("ray_address", "actor_cpus", "actor_gpus"):
            if getattr(self, name) != getattr(type(self), name):
                raise ConfigError(f"--{name.replace('_', '-')} needs --engine ray")

    @property
    def dataset_name(self) -> str:
        """Name of the dataset: the one that was given, or that of its folder."""
        out = self.out if is_remote(self.out) else self.out.resolve()
        return printable(self.name or out.name or "dataset")  # a bucket's name stays out of it
