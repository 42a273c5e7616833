"""Training of the student on a dataset and the sound of its tracks."""

import contextlib
import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from emovox import runs
from emovox.dataset import schema
from emovox.dataset.reader import Dataset, load
from emovox.dataset.rows import Dropped
from emovox.devices import resolve_compile, resolve_precision
from emovox.errors import ConfigError, EmovoxError
from emovox.files import replace_file
from emovox.media.spectrogram import batch_spectrogram, normalise
from emovox.student import student_checkpoint
from emovox.student.clips import Scan, check_root, find_clips
from emovox.student.distillation import distillation_loss
from emovox.student.distributed import Processes, join_processes
from emovox.student.segments import FixedSegments, TrainSegments, load_batches, sample
from emovox.student.student_config import LAST, StudentTrainConfig
from emovox.student.vggvox import StudentConfig, VGGVox

Record = dict[str, Any]

TRAIN, *VALIDATION = schema.SPLITS
# What of a config says how a training runs, not what comes out.
MANNER = ("device", "compile", "workers", "max_dropped")


def train(
    config: StudentTrainConfig,
    dataset: str | Path,
    audio: str | Path,
    out: str | Path,
    say: Callable[[str], None] = lambda line: None,
) -> Generator[Record, None, None]:
    """Train a student; yield one record per epoch, in the leading process only.

    Writes to `out`: `best.safetensors` (the epoch with the lowest loss on `config.choose_on`),
    `last.pt` (resume point after each epoch), `log.jsonl`, `config.json` and `dropped.parquet`
    (tracks without usable audio). If `out` holds the resume point of the same recipe, training goes
    on after it, and ends as it would have without the interruption. Processes started by `torchrun`
    share the batch.

    Args:
        config: the recipe.
        dataset: folder of the contract.
        audio: folder with the tracks' audio, see `emovox.audio_path`.
        out: folder, made if it is not there; only the leading process looks into it.
        say: is told how many tracks of each split can be heard.

    Raises:
        InputError: no such dataset or folder.
        ConfigError: `out` belongs to another recipe, or the dataset lacks a split.
        CheckError: too many tracks have no usable audio.
        EmovoxError: the training diverged.
    """
    data, root, out = load(dataset), Path(audio), Path(out)
    with join_processes(config.device) as processes, contextlib.ExitStack() as stack:
        check_root(root)
        _check_splits(data, config)
        run = _Run(config, processes)

        def prepare() -> tuple[dict[str, Scan], Record, Record | None]:
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(runs.locked(out))
            scans = _scan(data, root, config)
            recipe = _recipe(config, run.precision, data, scans)
            runs.claim(out, recipe)
            state = run.resume(out / "last.pt")
            runs.trim_log(out / "log.jsonl", run.epoch)
            _write_dropped(out, scans, run.failures)
            for split, scan in scans.items():
                say(f"{split}: {scan.summary()}")
            return scans, recipe, state

        scans, recipe, state = processes.from_leader(prepare)
        if state is not None and not processes.leads:
            run.take_over(state)
        segments = TrainSegments(data, scans[TRAIN].clips, root, config)
        validation = {
            split: FixedSegments(data, scan.clips, root, config)
            for split, scan in scans.items()
            if split != TRAIN
        }
        while run.epoch < config.epochs:
            record = _train_one(run, segments, validation, recipe, out)
            if processes.leads:
                _write_dropped(out, scans, run.failures)
                yield record


def _train_one(
    run: "_Run",
    segments: TrainSegments,
    validation: dict[str, FixedSegments],
    recipe: Record,
    out: Path,
) -> Record:
    """Train one epoch, score it, keep what has to be kept; return its record."""
    started = time.perf_counter()
    loss, num_segments = run.train_epoch(segments)
    training = time.perf_counter() - started
    record: Record = {
        "epoch": run.epoch,
        "learning_rate": run.learning_rate(),
        "train_loss": loss,
    }
    for split, fixed in validation.items():
        record |= {f"{split}_{name}": value for name, value in run.validate(fixed).items()}
    run.collect_failures()
    record["tracks_unreadable"] = len(run.failures)
    losses = {name: value for name, value in record.items() if name.endswith("_loss")}
    if not all(map(math.isfinite, losses.values())):
        shown = ", ".join(f"{name} {value}" for name, value in losses.items())
        raise EmovoxError(
            f"epoch {run.epoch}: {shown}: training diverged; try a smaller learning_rate in a new "
            "--out"
        )
    chosen = run.config.choose_on
    objective = -float(run.epoch) if chosen == LAST else record[f"{chosen}_loss"]
    kept = dict(record)
    record["segments_per_second"] = num_segments / training
    record["seconds"] = time.perf_counter() - started
    if objective < run.best:
        run.best = objective
        if run.processes.leads:
            student_checkpoint.save(out / "best.safetensors", run.model, kept | recipe)
    run.epoch += 1
    if run.processes.leads:
        runs.append_log(out / "log.jsonl", record)
        run.save(out / "last.pt")
    return record


class _Run:
    """Everything that changes from step to step, and goes on unchanged after an interruption."""

    def __init__(self, config: StudentTrainConfig, processes: Processes) -> None:
        if config.batch_size % processes.count:
            raise ConfigError(
                f"batch_size {config.batch_size} is not a multiple of {processes.count} processes"
            )
        self.config, self.processes = config, processes
        self.device = device = processes.device
        self.precision = resolve_precision(config.precision, str(device))
        shape = StudentConfig(config.width, config.conv3, config.conv4)
        self.model = VGGVox(shape, torch.Generator().manual_seed(config.seed))
        processes.synchronise(self.model)
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        on_gpu = device.type == "cuda"  # on a processor compiling was seen to gain nothing
        self.forward = processes.share(self.model)
        if resolve_compile(config.compile, str(device), pays=on_gpu):
            self.forward = torch.compile(self.forward)  # type: ignore[assignment]
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.epoch, self.best = 0, math.inf  # epochs done; lowest loss on the split that chooses
        self.failures: dict[str, Dropped] = {}  # tracks that could not be read under way

    def learning_rate(self) -> float:
        """Of this epoch: from the first to the last on a log scale."""
        first, last = self.config.learning_rate, self.config.last_learning_rate
        return float(first * (last / first) ** (self.epoch / max(self.config.epochs - 1, 1)))

    def train_epoch(self, segments: TrainSegments) -> tuple[float, int]:
        """One epoch; returns the mean loss of a segment, and how many segments there were."""
        config, processes = self.config, self.processes
        steps = max(1, round(len(segments.clips) * config.epoch_share / config.batch_size))
        first = self.epoch * steps * config.batch_size
        mine = range(first + processes.rank, first + steps * config.batch_size, processes.count)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.forward.train()
        losses = []
        batches = self._batches(segments, mine, config.batch_size // processes.count)
        for samples, targets in self._progress(batches, steps, "train"):
            loss = distillation_loss(self._logits(self.forward, samples), targets, config)
            losses.append(loss.detach().mean())
            self.optimizer.zero_grad(set_to_none=True)
            # Gradients are averaged over processes, so that a sum has to be scaled up again.
            total = loss.mean() if config.reduction == "mean" else loss.sum() * processes.count
            total.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        mean = float(torch.stack(losses).mean())
        return float(np.mean(processes.gather(mean))), steps * config.batch_size

    @torch.no_grad()
    def validate(self, segments: FixedSegments) -> dict[str, float]:
        """Mean loss of a segment, and how often the largest logits of both networks agree."""
        config, processes = self.config, self.processes
        self.forward.eval()
        mine = range(processes.rank, len(segments), processes.count)
        size = max(1, config.batch_size // processes.count)
        losses, hits = [torch.empty(0)], [torch.empty(0)]
        batches = self._batches(segments, mine, size)
        for samples, targets in self._progress(batches, math.ceil(len(mine) / size), "validate"):
            logits = self._logits(self.model, samples)
            losses.append(distillation_loss(logits, targets, config).cpu())
            hits.append((logits.argmax(1) == targets.argmax(1)).float().cpu())
        loss, hit = (
            torch.cat([torch.cat(part) for part in processes.gather(parts)])
            for parts in (losses, hits)
        )
        if not len(loss):
            raise EmovoxError(f"{segments.root}: no track to validate on can be read any more")
        return {"loss": float(loss.mean()), "agreement": float(hit.mean())}

    def collect_failures(self) -> None:
        """Let every process know the tracks that any of them could not read."""
        for failures in self.processes.gather(self.failures):
            self.failures |= failures

    def save(self, path: Path) -> None:
        """Write the resume point."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "best": self.best,
            "failures": [dataclasses.asdict(failure) for failure in self.failures.values()],
        }
        runs.save_state(path, state)

    def resume(self, path: Path) -> Record | None:
        """Go on from the resume point, if there is one, and return it; InputError if damaged."""
        with runs.saved_state(path) as state:
            if state is not None:
                self.take_over(state)
            return state

    def take_over(self, state: Record) -> None:
        """Go on from what `save` wrote."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.best = state["epoch"], state["best"]
        self.failures = {item["track_id"]: Dropped(**item) for item in state["failures"]}

    def _logits(self, model: torch.nn.Module, samples: torch.Tensor) -> torch.Tensor:
        spectrograms = normalise(batch_spectrogram(samples))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits: torch.Tensor = model(spectrograms)
        return logits.float()

    def _batches(
        self, segments: TrainSegments | FixedSegments, positions: Sequence[int], batch_size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches on the device; keeps account of tracks that cannot be read."""
        for batch in load_batches(segments, positions, batch_size, self.config.workers):
            self.failures |= {failure.track_id: failure for failure in batch.failures}
            if isinstance(segments, TrainSegments) and len(batch.samples) < batch_size:
                last = batch.failures[-1]
                raise EmovoxError(
                    f"{segments.root}: nothing can be read any more, for example {last.track_id}: "
                    f"{last.message}"
                )
            if len(batch.samples):
                yield self._to_device(batch.samples), self._to_device(batch.targets)

    def _to_device(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _progress(
        self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]], total: int, what: str
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """A bar on a terminal, in the leading process."""
        description = f"epoch {self.epoch + 1}/{self.config.epochs} {what}"
        quiet = None if self.processes.leads else True  # None: only where stderr is a terminal
        yield from tqdm(
            batches, total=total, desc=description, unit=" batches", disable=quiet, leave=False
        )


def _check_splits(data: Dataset, config: StudentTrainConfig) -> None:
    """Open the splits, before hours of work and before worker processes would do it each.

    Raises:
        ConfigError: a split that is needed is not there, or has no targets of this timing.
        InputError: a split is damaged.
    """
    for split in (TRAIN, config.choose_on):
        if split != LAST:
            data.check_split(split)
    for split in data.splits:
        data.target(data.tracks[split]["track_id"][0].as_py(), timing=config.timing)


def _scan(data: Dataset, root: Path, config: StudentTrainConfig) -> dict[str, Scan]:
    """Find the audio of the train split, and of a fixed share of each validation split.

    Raises:
        CheckError: too many tracks have no audio.
    """
    scans = {}
    for split in (TRAIN, *(s for s in VALIDATION if s in data.splits)):
        track_ids = data.tracks[split]["track_id"].to_pylist()
        if split != TRAIN:
            track_ids = sample(track_ids, config.validation_share, config.seed)
        scans[split] = find_clips(data, track_ids, root, progress=True)
        scans[split].check(root, config.max_dropped)
    return scans


def _recipe(
    config: StudentTrainConfig, precision: str, data: Dataset, scans: dict[str, Scan]
) -> Record:
    """All that decides what a training gives, without paths and without the device."""
    values = dataclasses.asdict(config)
    for name in MANNER:
        del values[name]
    clips = hashlib.sha256()
    for split, scan in scans.items():
        for clip in scan.clips:
            clips.update(f"{split} {clip.track_id} {clip.duration:.6f}\n".encode())
    return {
        "recipe": values | {"precision": precision},
        "dataset": {
            "name": data.name,
            "version": data.version,
            "frames_sha256": [
                file["content_sha256"]
                for file in data.manifest["files"]
                if file["path"].startswith("frames/")
            ],
        },
        "clips_sha256": clips.hexdigest(),
    }


def _write_dropped(out: Path, scans: dict[str, Scan], failures: dict[str, Dropped]) -> None:
    """Write the table of tracks that are not heard, and why."""
    dropped = [*(item for scan in scans.values() for item in scan.dropped), *failures.values()]
    rows = [dataclasses.asdict(item) for item in dropped]
    with replace_file(out / schema.DROPPED_FILE) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema.DROPPED), temporary)
