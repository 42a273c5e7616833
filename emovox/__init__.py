"""Datasets of per-frame emotion logits from speaking-face video.

Each command of the command line, except demo, card and schema, is a function::

    build_dataset(...)      label a corpus of talking faces
    embed(...)              add the teacher's embeddings to a dataset
    import_mat(...)         convert the published annotations to a dataset
    download(...)           download published annotations, splits, teachers and students
    validate(...)           check a dataset against the contract
    diff(...)               compare two datasets
    release(...)            make an immutable version of a dataset
    report(...)             show a dataset as a web page or as figures
    train_teacher(...)      train the compact teacher on FERPlus
    evaluate_teacher(...)   score a teacher on FERPlus
    train_student(...)      train a speech student on a dataset
    evaluate(...)           score a student on a dataset
    probe(...)              test a network on a labelled speech corpus
    predict(...)            label audio and video files with emotions

They return a result with the method `to_pandas`. Their options are keyword arguments, or a config:
BuildConfig, EmbedConfig, DownloadConfig, ReportConfig, TeacherTrainConfig, TeacherEvaluateConfig,
StudentTrainConfig, EvaluateConfig, ProbeConfig, PredictConfig, WriteConfig. Every path may be a
string.

To use datasets and networks directly::

    load(path)                      open a dataset: its tables, and the logits of any track
    write_dataset(out, tracks)      write labels and values of your own as a dataset
    audio_path(root, track_id)      find the sound file of a track
    read_audio(path)                read sound as 16 kHz mono, float32 [L]
    track_audio(dataset, id, root)  read the sound of a track, whatever the layout of the corpus
    spectrogram(samples)            compute the input of a student, float32 [512, T]
    load_teacher(name)              load a network: face crops uint8 [N, S, S, 3] to logits [N, 8]
    load_student(name)              load a network: 16 kHz samples [L] to logits [N, 8]
    hash_identity(identity_id)      compute the line of a takedown list for an identity
    EMOTIONS                        names of the eight logits, in order
    EmovoxError                     base class of all errors that a user can fix
    __version__                     version of emovox

Importing emovox loads no heavy package. The functions for datasets work in the core installation;
the others need the extra `build`. With the dataset of `emovox demo`:

    >>> import emovox
    >>> emovox.load("emovox-demo/dataset")
    <Dataset emovox-demo 0.1.0: 96 tracks, 1,996 frames, train, heard_val, unheard_val>

`emovox --help` lists the commands; the folder `guide` of this package explains them.
"""

import os
from typing import TYPE_CHECKING, Any

from emovox.emotions import EMOTIONS as EMOTIONS
from emovox.errors import EmovoxError as EmovoxError
from emovox.limits import MAX_PIXELS

__version__ = "0.1.0"  # pyproject.toml reads it

# OpenCV reads it when it is first imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))

if TYPE_CHECKING:  # what `_HOMES` loads, for type checkers
    from emovox.comparison.difference import diff as diff
    from emovox.corpus.sound_files import audio_path as audio_path
    from emovox.corpus.sound_files import track_audio as track_audio
    from emovox.dataset.reader import Dataset as Dataset
    from emovox.dataset.reader import load as load
    from emovox.dataset.takedown import hash_identity as hash_identity
    from emovox.downloads.download_config import DownloadConfig as DownloadConfig
    from emovox.downloads.published_files import download as download
    from emovox.labelling.build_config import BuildConfig as BuildConfig
    from emovox.labelling.build_config import EmbedConfig as EmbedConfig
    from emovox.labelling.embed import embed as embed
    from emovox.labelling.import_mat import import_mat as import_mat
    from emovox.labelling.own_labels import WriteConfig as WriteConfig
    from emovox.labelling.own_labels import write_dataset as write_dataset
    from emovox.labelling.result import BuildResult as BuildResult
    from emovox.labelling.run import build_dataset as build_dataset
    from emovox.media.audio import read_audio as read_audio
    from emovox.media.spectrogram import spectrogram as spectrogram
    from emovox.probing.probe_config import ProbeConfig as ProbeConfig
    from emovox.probing.probes import probe as probe
    from emovox.publishing.publish import release as release
    from emovox.reporting.page import report as report
    from emovox.reporting.report_config import ReportConfig as ReportConfig
    from emovox.student import Student as Student
    from emovox.student import load_student as load_student
    from emovox.student.evaluation import evaluate as evaluate
    from emovox.student.prediction import predict as predict
    from emovox.student.student_config import EvaluateConfig as EvaluateConfig
    from emovox.student.student_config import PredictConfig as PredictConfig
    from emovox.student.student_config import StudentTrainConfig as StudentTrainConfig
    from emovox.student.training import train_student as train_student
    from emovox.teacher import Teacher as Teacher
    from emovox.teacher import load_teacher as load_teacher
    from emovox.teacher.evaluation import evaluate_teacher as evaluate_teacher
    from emovox.teacher.teacher_config import TeacherEvaluateConfig as TeacherEvaluateConfig
    from emovox.teacher.teacher_config import TeacherTrainConfig as TeacherTrainConfig
    from emovox.teacher.training import train_teacher as train_teacher
    from emovox.validation.outcomes import validate as validate

# Public names, by the module that is imported when one of them is first used.
_HOMES = {
    "emovox.comparison.difference": ("diff",),
    "emovox.corpus.sound_files": ("audio_path", "track_audio"),
    "emovox.dataset.reader": ("Dataset", "load"),
    "emovox.dataset.takedown": ("hash_identity",),
    "emovox.downloads.download_config": ("DownloadConfig",),
    "emovox.downloads.published_files": ("download",),
    "emovox.labelling.build_config": ("BuildConfig", "EmbedConfig"),
    "emovox.labelling.embed": ("embed",),
    "emovox.labelling.import_mat": ("import_mat",),
    "emovox.labelling.own_labels": ("WriteConfig", "write_dataset"),
    "emovox.labelling.result": ("BuildResult",),
    "emovox.labelling.run": ("build_dataset",),
    "emovox.media.audio": ("read_audio",),
    "emovox.media.spectrogram": ("spectrogram",),
    "emovox.probing.probe_config": ("ProbeConfig",),
    "emovox.probing.probes": ("probe",),
    "emovox.publishing.publish": ("release",),
    "emovox.reporting.page": ("report",),
    "emovox.reporting.report_config": ("ReportConfig",),
    "emovox.student": ("Student", "load_student"),
    "emovox.student.evaluation": ("evaluate",),
    "emovox.student.prediction": ("predict",),
    "emovox.student.student_config": ("EvaluateConfig", "PredictConfig", "StudentTrainConfig"),
    "emovox.student.training": ("train_student",),
    "emovox.teacher": ("Teacher", "load_teacher"),
    "emovox.teacher.evaluation": ("evaluate_teacher",),
    "emovox.teacher.teacher_config": ("TeacherEvaluateConfig", "TeacherTrainConfig"),
    "emovox.teacher.training": ("train_teacher",),
    "emovox.validation.outcomes": ("validate",),
}
__all__ = sorted(
    ["EMOTIONS", "EmovoxError", *(name for names in _HOMES.values() for name in names)]
)


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'emovox' has no attribute {name!r}")
    import importlib

    from emovox.packages import explained

    with explained(f"emovox.{name}"):
        return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    """Return the public names, so that pydoc and completion show those that are not loaded yet."""
    return __all__
