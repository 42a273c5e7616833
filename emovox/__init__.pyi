# The public names, for type checkers and for __init__.py, which imports them when they are used.
from typing import TYPE_CHECKING

from emovox.emotions import EMOTIONS as EMOTIONS
from emovox.errors import EmovoxError as EmovoxError

__all__: list[str]
__version__: str

if TYPE_CHECKING:  # lets mypy check these modules before this one, which they import
    from emovox.comparison.difference import diff as diff
    from emovox.corpus.sound_files import audio_path as audio_path
    from emovox.corpus.sound_files import track_audio as track_audio
    from emovox.dataset.reader import Dataset as Dataset
    from emovox.dataset.reader import load as load
    from emovox.dataset.takedown import hash_identity as hash_identity
    from emovox.downloads.download_config import DownloadConfig as DownloadConfig
    from emovox.downloads.published_files import download as download
    from emovox.fusion.fusion_config import FusionEvaluateConfig as FusionEvaluateConfig
    from emovox.fusion.fusion_config import FusionTrainConfig as FusionTrainConfig
    from emovox.fusion.fusion_evaluation import evaluate_fusion as evaluate_fusion
    from emovox.fusion.fusion_training import train_fusion as train_fusion
    from emovox.labelling.build_config import BuildConfig as BuildConfig
    from emovox.labelling.build_config import EmbedConfig as EmbedConfig
    from emovox.labelling.embed import embed as embed
    from emovox.labelling.import_mat import import_mat as import_mat
    from emovox.labelling.own_labels import WriteConfig as WriteConfig
    from emovox.labelling.own_labels import write_dataset as write_dataset
    from emovox.labelling.run import BuildResult as BuildResult
    from emovox.labelling.run import build_dataset as build_dataset
    from emovox.media.audio import read_audio as read_audio
    from emovox.media.spectrogram import spectrogram as spectrogram
    from emovox.probing.probe_config import ProbeConfig as ProbeConfig
    from emovox.probing.probes import probe as probe
    from emovox.publishing.publish import release as release
    from emovox.publishing.selection import select as select
    from emovox.reporting.corpus_check import check_corpus as check_corpus
    from emovox.reporting.report import report as report
    from emovox.reporting.report_config import ReportConfig as ReportConfig
    from emovox.reporting.show import show as show
    from emovox.student import Student as Student
    from emovox.student import load_student as load_student
    from emovox.student.evaluation import evaluate as evaluate
    from emovox.student.export import export as export
    from emovox.student.prediction import predict as predict
    from emovox.student.segments import SpeechSegments as SpeechSegments
    from emovox.student.sound_cache import pack_sound as pack_sound
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
