"""Teachers on labelled faces of another source: accuracy and unweighted average recall.

    python tests/benchmarks/other_faces.py DATA --teacher compact --teacher enet_b0_8_best_vgaf.onnx

DATA is whatever `emovox evaluate-teacher` reads, for example CK+ as a folder per emotion. All its
parts are scored together. Emotions that DATA lacks are ruled out; with `--without neutral`, faces
of this emotion are left out and it is ruled out too.
"""

import argparse

import numpy as np

import emovox
from emovox.emotions import Outputs
from emovox.errors import InputError
from emovox.scores import recall_and_f1
from emovox.teacher.evaluation import predict, score
from emovox.teacher.face_data import read_faces
from emovox.teacher.teacher_config import PARTS


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data")
    parser.add_argument("--teacher", action="append", required=True)
    parser.add_argument("--without", default="")
    options = parser.parse_args()
    print("| teacher | faces | accuracy | unweighted average recall |\n|---|---:|---:|---:|")
    for name in options.teacher:
        teacher = emovox.load_teacher(name)
        confusion: np.ndarray | int = 0
        for part in PARTS:
            try:
                faces = read_faces(options.data, part, teacher.input_size, grey=False)
            except InputError as error:
                if "no labelled faces" not in str(error):
                    raise
                continue
            kept = [k for k, e in enumerate(faces.outputs.emotions) if e != options.without]
            emotions = [faces.outputs.emotions[k] for k in kept]
            rows = faces.targets[:, kept].any(axis=1)
            logits, _ = predict(teacher, faces.images[rows], emotions)
            found = score(logits, faces.targets[rows][:, kept], Outputs.of(emotions))
            confusion = confusion + np.array(found.confusion)
        assert isinstance(confusion, np.ndarray)
        recall, _ = recall_and_f1(confusion)
        share = confusion.trace() / confusion.sum()
        print(f"| {teacher.name} | {confusion.sum():,} | {share:.1%} | {recall:.1%} |", flush=True)


if __name__ == "__main__":
    main()
