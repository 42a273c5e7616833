"""Targets that mix the votes with the outputs of other teachers (Schoneveld et al., 2021)."""

import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from emovox.files import replace_file
from emovox.scores import softmax
from emovox.teacher import Teacher, load_teacher
from emovox.teacher.evaluation import predict
from emovox.teacher.ferplus import Faces

LOGITS_FILE = "teacher_logits.safetensors"


def soft_targets(
    faces: Faces, teachers: list[str | Path], weight: float, out: Path, device: str
) -> np.ndarray:
    """Mix the votes with the softmax of the teachers' averaged logits: float32 `[N, E + V]`.

    The teachers have the `weight`, the votes the rest; a face without votes has the target of the
    teachers. The emotions of each row sum to one; values stay as they are. The teachers run once
    on each face and its mirror image, without augmentation. The averaged logits are saved in `out`
    for a resumed training.
    """
    path = out / LOGITS_FILE
    loaded = [load_teacher(name, device) for name in teachers]
    images_sha256 = hashlib.sha256(faces.images.tobytes()).hexdigest()
    identity = json.dumps([images_sha256, *(t.sha256 for t in loaded), faces.outputs.emotions])
    logits = None
    with contextlib.suppress(OSError, SafetensorError), safe_open(path, "numpy") as file:
        if (file.metadata() or {}).get("faces_and_teachers") == identity:
            logits = file.get_tensor("logits")
    if logits is None:  # missing, damaged, or of other faces or teachers
        logits = averaged_logits(loaded, faces)
        with replace_file(path) as temporary:
            save_file({"logits": logits}, temporary, {"faces_and_teachers": identity})
    targets = faces.targets.copy()
    votes = targets[:, : logits.shape[1]]
    votes *= 1 - weight
    votes += (1 - votes.sum(axis=1, keepdims=True)) * softmax(logits)
    return targets


def averaged_logits(teachers: list[Teacher], faces: Faces) -> np.ndarray:
    """Return the mean over teachers and over each face and its mirror image: float32 `[N, E]`."""
    total = sum(sum(predict(t, faces.images, faces.outputs.emotions)) for t in teachers)
    return np.ascontiguousarray(total / (2 * len(teachers)), np.float32)  # as safetensors needs
