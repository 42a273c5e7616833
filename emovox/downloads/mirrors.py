"""Published files that emovox can use, and their addresses.

The data and models of the University of Oxford have no published checksum (`sha256` is None): the
first good download is pinned instead. The lists of the splits must match exactly.
"""

from dataclasses import dataclass
from typing import Any

from emovox.errors import ConfigError


@dataclass(frozen=True)
class PublishedFile:
    """One published file."""

    name: str  # on the server and locally
    mirrors: tuple[str, ...]  # addresses, in order of preference
    form: str  # a key of `content.FORMS`
    purpose: str  # a phrase for the user
    licence: str  # as stated by the publisher
    sha256: str | None = None  # None if no checksum was published
    size: int | None = None  # bytes
    alias: str | None = None  # another name for `--name`
    is_default: bool = True  # downloaded when its target is requested without a name


@dataclass(frozen=True)
class Target:
    """Files that are downloaded together, and their folder in the cache."""

    folder: str
    files: tuple[PublishedFile, ...]


_CMPC = (
    "https://raw.githubusercontent.com/Cocoxili/CMPC/760b65f92b941978e557efc9dbddf64c08ad9147/data"
)
_CMU = (
    "https://raw.githubusercontent.com/cmu-mlsp/reconstructing_faces_from_voices/"
    "8d32acd83b6a3cde6648a06083d181202e90f7b7/data"
)
_LISTS_LICENCE = "not stated with the file; the repository that holds it is MIT"


def _oxford(path: str, purpose: str, **options: Any) -> PublishedFile:
    """Return a file on the page of Samuel Albanie at the University of Oxford."""
    address = f"://www.robots.ox.ac.uk/~albanie/{path}"
    return PublishedFile(
        name=path.rpartition("/")[2],
        mirrors=(f"https{address}", f"http{address}"),
        form=path.rpartition(".")[2],
        purpose=purpose,
        licence="not stated with the file; the code published with it is MIT",
        **options,
    )


def _teacher(network: str, *, is_default: bool) -> tuple[PublishedFile, ...]:
    """Return the PyTorch and the MatConvNet file of one network, with the same weights."""
    pth = f"models/pytorch-mcn/{network.replace('-', '_')}_dag.pth"
    mat = f"models/ferplus/{network}.mat"
    teacher = f"the teacher {network}"
    return (
        _oxford(pth, f"{teacher}, for PyTorch", alias=network, is_default=is_default),
        _oxford(mat, f"{teacher}, for MatConvNet", is_default=False),
    )


def _onnx(name: str, licence: str, *paths: str) -> PublishedFile:
    """Return a network in ONNX on GitHub, whose sidecar is in `emovox.teacher`."""
    return PublishedFile(
        name=f"{name}.onnx",
        mirrors=tuple(f"https://{path}/{name}.onnx" for path in paths),
        form="onnx",
        purpose=f"the teacher {name}, for ONNX Runtime",
        licence=licence,
        alias=name,
        is_default=False,
    )


_ZOO = "onnx/models/{}main/validated/vision/body_analysis/emotion_ferplus/model"
_EFFICIENT = "av-savchenko/face-emotion-recognition/{}main/models/affectnet_emotions/onnx"
_ONNX = (
    _onnx(
        "emotion-ferplus-8",
        "MIT",
        f"media.githubusercontent.com/media/{_ZOO.format('')}",
        f"github.com/{_ZOO.format('raw/')}",
    ),
    *(
        _onnx(
            name,
            "Apache-2.0, stated for the code; trained on AffectNet",
            f"github.com/{_EFFICIENT.format('raw/')}",
            f"raw.githubusercontent.com/{_EFFICIENT.format('')}",
        )
        for name in (
            *("enet_b0_8_best_vgaf", "enet_b0_8_best_afew", "enet_b0_8_va_mtl"),
            *("enet_b2_8", "enet_b2_7"),
        )
    ),
)
_ANNOTATIONS = (
    _oxford(
        "data/cross-modal-emotions/senet50-ferplus-logits.mat", "the published EmoVoxCeleb logits"
    ),
    _oxford(
        "data/cross-modal-emotions/voxceleb-imdb.mat",
        "the list of tracks that EmoVoxCeleb was made from",
    ),
)
_SPLITS = (
    PublishedFile(
        name="identity_splits.txt",
        mirrors=(f"{_CMPC}/Splits/identity_splits.txt",),
        form="text",
        purpose="the published split of the identities",
        licence=_LISTS_LICENCE,
        sha256="864291182c882944cf5d25ecbb56490767a92760097acb3e8960013173ab7dc8",
        size=21_213,
    ),
    PublishedFile(
        name="veriflist_test_random_seenheard.txt",
        mirrors=(f"{_CMPC}/veriflist/veriflist_test_random_seenheard.txt",),
        form="text",
        purpose="the published list of the tracks of heard_val",
        licence=_LISTS_LICENCE,
        sha256="8c11fa282f6a134e414426fc82e9bfb92afa2d7fc2da1bbe3fa0b03949996c40",
        size=1_652_159,
    ),
    PublishedFile(
        name="vox1_meta.csv",
        mirrors=(
            f"{_CMPC}/vox1_meta.csv",
            f"{_CMPC}/Splits/vox1_meta.csv",
            "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/vox1_meta.csv",
            "https://mm.kaist.ac.kr/datasets/voxceleb/meta/vox1_meta.csv",
            f"{_CMU}/vox1_meta.csv",
        ),
        form="text",
        purpose="the names and ids of VoxCeleb1",
        licence="CC BY 4.0, as VoxCeleb",
        sha256="48bcb2f0024cae5d4ccf37e4480f686afb1161c5793a2a9a4c670c0e8dab0892",
        size=40_782,
    ),
)
TARGETS = {
    "annotations": Target("annotations", _ANNOTATIONS),
    "splits": Target("splits", _SPLITS),
    "teacher": Target(
        "teachers",
        (
            *_teacher("senet50-ferplus", is_default=True),
            *_teacher("resnet50-ferplus", is_default=False),
            *_ONNX,
        ),
    ),
    "student": Target(
        "students",
        (_oxford("models/emovoxceleb/emovoxceleb-student.mat", "the published student"),),
    ),
}


def find_files(target: str, name: str | None = None) -> tuple[PublishedFile, ...]:
    """Return the default files of a target, or the one with this name or alias.

    Raises:
        ConfigError: the name is unknown; the message lists the valid ones.
    """
    files = TARGETS[target].files
    if name is None:
        return tuple(file for file in files if file.is_default)
    if found := tuple(file for file in files if name in (file.name, file.alias)):
        return found
    names = ", ".join(n for file in files for n in (file.alias, file.name) if n)
    raise ConfigError(f"--name {name}: not a file of {target}; pass one of {names}")
