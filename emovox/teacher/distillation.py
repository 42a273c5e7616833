"""Targets that mix the votes with what other face networks see (Schoneveld et al., 2021)."""

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from emovox.files import replace_file
from emovox.teacher import Teacher, load_teacher
from emovox.teacher.evaluation import predict
from emovox.teacher.ferplus import FerPlus
from emovox.teacher.teacher_scores import softmax

LOGITS_FILE = "teacher_logits.safetensors"


def soft_targets(
    faces: FerPlus, teachers: list[str | Path], weight: float, out: Path, device: str
) -> np.ndarray:
    """Mix the votes with the probabilities that follow from the teachers' averaged logits.

    Every teacher sees each face and its mirror image, unaugmented, once; the averaged logits are
    kept in `out`, so that a resumed training does not ask again.

    Args:
        faces: of the training part.
        teachers: registered names or checkpoints.
        weight: share of the teachers; the votes have the rest.
        out: folder of the training.
        device: as for `load_teacher`.

    Returns:
        float32 `[N, 8]`, each row summing to one.
    """
    path = out / LOGITS_FILE
    loaded = [load_teacher(name, device) for name in teachers]
    seen = hashlib.sha256(faces.images.tobytes()).hexdigest()
    identity = json.dumps([seen, *(teacher.sha256 for teacher in loaded)])
    logits = _kept_logits(path, identity)
    if logits is None:
        logits = averaged_logits(loaded, faces.images)
        with replace_file(path) as temporary:
            save_file({"logits": logits}, temporary, {"faces_and_teachers": identity})
    return weight * softmax(logits) + (1 - weight) * faces.targets


def averaged_logits(teachers: list[Teacher], images: np.ndarray) -> np.ndarray:
    """Mean over teachers, and over each face and its mirror image: float32 `[N, 8]`."""
    total = sum(sum(predict(teacher, images)) for teacher in teachers)
    return np.asarray(total / (2 * len(teachers)), np.float32)


def _kept_logits(path: Path, identity: str) -> np.ndarray | None:
    try:
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            return (
                file.get_tensor("logits") if header.get("faces_and_teachers") == identity else None
            )
    except (OSError, SafetensorError):  # not there, or damaged
        return None
