"""The files others published that emovox can use: one place for where they are and what they are.

Nobody published a checksum of the data and models of the University of Oxford, so `sha256` is None
there: the first good download is pinned instead. The lists of the splits have to match exactly.
"""

from dataclasses import dataclass

from emovox.errors import ConfigError


@dataclass(frozen=True)
class PublishedFile:
    """A file on somebody's server.

    Attributes:
        name: of the file, there and here.
        mirrors: addresses, in the order in which they are tried.
        form: what it has to be: a key of `content.FORMS`.
        purpose: what it is for.
        licence: as far as those who published it state one.
        sha256: of its bytes; None where none was ever published.
        size: in bytes; None if unknown.
        alias: another name to ask for it by.
        is_default: fetched when its target is asked for without a name.
    """

    name: str
    mirrors: tuple[str, ...]
    form: str
    purpose: str
    licence: str
    sha256: str | None = None
    size: int | None = None
    alias: str | None = None
    is_default: bool = True


@dataclass(frozen=True)
class Target:
    """What can be asked for: files that belong together, and their folder in the cache."""

    folder: str
    files: tuple[PublishedFile, ...]


def _oxford(path: str) -> tuple[str, ...]:
    return tuple(f"{scheme}://www.robots.ox.ac.uk/{path}" for scheme in ("https", "http"))


_DATA = "~albanie/data/cross-modal-emotions"
_MODELS = "~albanie/models"
_CMPC = (
    "https://raw.githubusercontent.com/Cocoxili/CMPC/760b65f92b941978e557efc9dbddf64c08ad9147/data"
)
_CMU = (
    "https://raw.githubusercontent.com/cmu-mlsp/reconstructing_faces_from_voices/"
    "8d32acd83b6a3cde6648a06083d181202e90f7b7/data"
)

_NOT_STATED = "not stated with the file; the code published with it is MIT"
_LISTS_LICENCE = "not stated with the file; the repository that holds it is MIT"

_ANNOTATIONS = (
    PublishedFile(
        name="senet50-ferplus-logits.mat",
        mirrors=_oxford(f"{_DATA}/senet50-ferplus-logits.mat"),
        form="mat",
        purpose="the published EmoVoxCeleb logits",
        licence=_NOT_STATED,
    ),
    PublishedFile(
        name="voxceleb-imdb.mat",
        mirrors=_oxford(f"{_DATA}/voxceleb-imdb.mat"),
        form="mat",
        purpose="the list of tracks that EmoVoxCeleb was made from",
        licence=_NOT_STATED,
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
        purpose="the published list that names the tracks of heard_val",
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


def _teacher(network: str) -> tuple[PublishedFile, ...]:
    """The PyTorch and the MatConvNet file of one network: the same weights, other bytes."""
    pth, mat = f"{network.replace('-', '_')}_dag.pth", f"{network}.mat"
    return (
        PublishedFile(
            name=pth,
            mirrors=_oxford(f"{_MODELS}/pytorch-mcn/{pth}"),
            form="pth",
            purpose=f"the teacher {network}, for PyTorch",
            licence=_NOT_STATED,
            alias=network,
            is_default=network == "senet50-ferplus",
        ),
        PublishedFile(
            name=mat,
            mirrors=_oxford(f"{_MODELS}/ferplus/{mat}"),
            form="mat",
            purpose=f"the teacher {network}, for MatConvNet",
            licence=_NOT_STATED,
            is_default=False,
        ),
    )


_STUDENT = (
    PublishedFile(
        name="emovoxceleb-student.mat",
        mirrors=_oxford(f"{_MODELS}/emovoxceleb/emovoxceleb-student.mat"),
        form="mat",
        purpose="the published student",
        licence=_NOT_STATED,
    ),
)

TARGETS = {
    "annotations": Target("annotations", _ANNOTATIONS),
    "splits": Target("splits", _SPLITS),
    "teacher": Target("teachers", (*_teacher("senet50-ferplus"), *_teacher("resnet50-ferplus"))),
    "student": Target("students", _STUDENT),
}


def find_target(target: str) -> Target:
    """Look a target up.

    Raises:
        ConfigError: there is none of that name; the message lists those there are.
    """
    if target not in TARGETS:
        raise ConfigError(f"nothing is published as {target!r}; choose one of {', '.join(TARGETS)}")
    return TARGETS[target]


def find_files(target: str, name: str | None = None) -> tuple[PublishedFile, ...]:
    """The files of a target: those it needs, or the one of that name.

    Raises:
        ConfigError: target or name is unknown; the message lists the valid ones.
    """
    files = find_target(target).files
    if name is None:
        return tuple(file for file in files if file.is_default)
    if found := tuple(file for file in files if name in (file.name, file.alias)):
        return found
    names = ", ".join(n for file in files for n in (file.alias, file.name) if n)
    raise ConfigError(f"--name {name}: is not of {target}; choose one of {names}")
