"""Provenance of a built dataset: its options, inputs and software."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from emovox.ids import printable
from emovox.labelling.plan import BuildPlan
from emovox.packages import software
from emovox.paths import RemotePath
from emovox.teacher import ACCURACY

LIBRARIES = ("torch", "av", "numpy", "opencv-python-headless", "pyarrow", "facenet-pytorch")

# Options that change how a build runs, not what it makes.
LEFT_OUT = {"out", "state", "jobs", "retry_dropped", "replace", "timeout", "engine"}
LEFT_OUT |= {"ray_address", "actor_cpus", "actor_gpus"}


def build_provenance(plan: BuildPlan) -> dict[str, Any]:
    """Return the content of provenance.json except the date; no path of this machine is in it."""
    config, settings = plan.config, plan.settings
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
    source = hashlib.sha256("".join(shard.fingerprint for shard in plan.shards).encode())
    corpus = "a synthetic corpus" if config.synthetic else "a corpus"
    return {
        **software(*LIBRARIES),
        "config": resolved,
        "origin": f"Built by emovox from {corpus} of layout `{config.layout}`.",
        "teacher": {
            "name": settings.teacher_name,
            "sha256": settings.teacher_sha256,
            "accuracy": ACCURACY.get(config.teacher),  # None for a checkpoint, whatever its name
        },
        "source_fingerprint": source.hexdigest(),
        "device": plan.runtime.device_name,
    }
