"""Six folds of four RAVDESS actors each: a recipe chosen on the training actors, and today's.

    python tests/benchmarks/ravdess_folds.py RAVDESS OUT

In each fold the network learns from twenty actors and is scored on the four others. The recipe is
chosen among `CANDIDATES` on the training actors alone: every candidate is first trained without
the four actors of a second fold and scored on these, and the better one then learns from all
twenty. Two folds choose for each other, so three first trainings of a candidate serve all six.
Beside it, pipelines/student-ravdess.toml, whose settings were once chosen on actors 21 to 24, is
trained on the same folds. Scores are of the utterances of all six folds together, each heard by a
network that never heard its actor; intervals are those of a bootstrap over the 24 actors.

Everything stays in OUT; the same command resumes after an interruption.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from ravdess_student import unpack

import emovox
from emovox.emotions import EMOTIONS
from emovox.scores import MEAN_ALL, MEAN_PAPER, SplitScores, score_split, softmax

RECIPE = Path(__file__).parents[2] / "pipelines" / "student-ravdess.toml"
FOLDS = range(6)
# Changes to the recipe; all were fixed before the first training.
CANDIDATES: dict[str, dict[str, Any]] = {
    "12 epochs of 2 s": {"epochs": 12},
    "24 epochs of 1 s": {"epochs": 24, "seconds": 1.0},
}
TODAY = "student-ravdess.toml"

Track = dict[str, Any]


class Utterances:
    """The utterances of RAVDESS below `out`, with the folds of their actors."""

    def __init__(self, source: Path, out: Path) -> None:
        self.out, self.audio = out, out / "audio"
        shutil.rmtree(self.audio, ignore_errors=True)
        self.tracks = unpack(source, self.audio)
        occur = {track["label"] for track in self.tracks}
        self.emotions = tuple(name for name in EMOTIONS if name in occur)
        self.actors = np.array([track["track_id"].split("/")[0] for track in self.tracks])
        self.folds = (np.array([int(name.removeprefix("actor")) for name in self.actors]) - 1) // 4
        self.labels = np.array([self.emotions.index(track["label"]) for track in self.tracks])

    def logits(self, name: str, changes: dict[str, Any], *left_out: int) -> np.ndarray:
        """Train without the actors of some folds; return logits `[N, E]`, NaN for the others."""
        place = self.out / "-".join([name.replace(" ", "-"), "without", *map(str, left_out)])
        unheard = np.isin(self.folds, left_out)
        found = place / "logits.npy"
        if not found.exists():
            tracks = [
                track | {"split": "unheard_val"} if new else track
                for track, new in zip(self.tracks, unheard, strict=True)
            ]
            if not (place / "dataset").exists():
                emovox.write_dataset(
                    place / "dataset",
                    {column: [track[column] for track in tracks] for column in tracks[0]},
                    name="ravdess",
                    teacher="intention",
                    origin="The acted emotions of RAVDESS; no teacher was run on faces.",
                )
            folders = place / "dataset", self.audio, place / "run"
            run = emovox.train_student(*folders, RECIPE, **changes)
            student = emovox.load_student(run.best)
            assert student.emotions == self.emotions
            logits = np.full((len(tracks), len(self.emotions)), np.nan, np.float32)
            for row in np.flatnonzero(unheard):
                path = emovox.audio_path(self.audio, tracks[row]["track_id"])
                logits[row] = student(emovox.read_audio(path))[0]
            np.save(found, logits)
        return np.load(found)

    def scores(self, logits: np.ndarray, rows: np.ndarray) -> SplitScores:
        """Return the scores of utterances, with intervals over their actors."""
        probabilities = softmax(logits[rows])
        return score_split(
            "unheard_val", self.labels[rows], probabilities, self.actors[rows], self.emotions
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ravdess", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    data = Utterances(arguments.ravdess, arguments.out)

    logits = np.full((len(data.tracks), len(data.emotions)), np.nan, np.float32)
    for fold in FOLDS:
        other = fold ^ 1  # chooses for this fold, and this one for it
        pair = sorted((fold, other))
        areas = {}
        for name, changes in CANDIDATES.items():
            first = data.logits(name, changes, *pair)
            areas[name] = data.scores(first, data.folds == other).auc[MEAN_ALL].value
        best = max(areas, key=lambda name: areas[name])
        print(f"fold {fold + 1}: {areas}; chosen: {best}", flush=True)
        here = data.folds == fold
        logits[here] = data.logits(best, CANDIDATES[best], fold)[here]
    report("chosen on the training actors", data, logits)

    for fold in FOLDS:
        here = data.folds == fold
        logits[here] = data.logits(TODAY, {}, fold)[here]
    report(TODAY, data, logits)


def report(name: str, data: Utterances, logits: np.ndarray) -> None:
    """Print the scores of all folds together, and of each fold."""
    scores = data.scores(logits, np.full(len(logits), True))
    each = [data.scores(logits, data.folds == fold).auc[MEAN_ALL].value for fold in FOLDS]
    print(f"{name}\n  mean AUC of the paper's five emotions: {scores.auc[MEAN_PAPER]}")
    print(f"  mean AUC of all seven: {scores.auc[MEAN_ALL]}; by fold {np.round(each, 3)}")
    print(f"  UAR {scores.others['uar']:.3f}, accuracy {scores.others['accuracy']:.3f}", flush=True)


if __name__ == "__main__":
    main()
