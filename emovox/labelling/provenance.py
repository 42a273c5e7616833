"""What a dataset was made from, and by which software."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from emovox.devices import Runtime
from emovox.ids import printable
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.plan import Shard, ShardSettings
from emovox.packages import software
from emovox.paths import RemotePath
from emovox.teacher import ACCURACY

LIBRARIES = ("torch", "av", "numpy", "opencv-python-headless", "pyarrow", "facenet-pytorch")


# Options that say how a build runs, and nothing of what it makes.
LEFT_OUT = {"out", "state", "jobs", "retry_dropped", "timeout", "profile", "engine", "ray_address"}
LEFT_OUT |= {"actor_cpus", "actor_gpus"}


def build_provenance(
    config: BuildConfig, settings: ShardSettings, runtime: Runtime, shards: Iterable[Shard]
) -> dict[str, Any]:
    """All that the dataset was made from, without paths of this machine."""
    resolved = {
        key: printable(value.name) if isinstance(value, Path | RemotePath) else value
        for key, value in asdict(config).items()
        if key not in LEFT_OUT
    }
    for key in ("teacher", "splits"):
        resolved[key] = resolved[key] and printable(Path(resolved[key]).name)
    resolved |= {
        "device": settings.device,
        "precision": settings.precision,
        "compile": "on" if settings.compiled else "off",
    }
    source = hashlib.sha256("".join(shard.fingerprint for shard in shards).encode())
    corpus = "a synthetic corpus" if config.synthetic else "a corpus"
    return {
        **software(*LIBRARIES),
        "config": resolved,
        "origin": f"Built by emovox from {corpus} of layout `{config.layout}`.",
        "teacher": {
            "name": settings.teacher_name,
            "sha256": settings.teacher_sha256,
            "accuracy": ACCURACY.get(config.teacher),  # a checkpoint may have any name
        },
        "source_fingerprint": source.hexdigest(),
        "device": runtime.device_name,
    }
