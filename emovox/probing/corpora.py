"""Labelled speech corpora: from a folder, by the names of its files, or from a table."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path, PurePosixPath

from emovox.corpus.listing import VIDEO_ENDINGS
from emovox.corpus.track_table import read_table
from emovox.corpus.tracks import Corpus
from emovox.emotions import EMOTIONS
from emovox.errors import ConfigError, InputError
from emovox.ids import printable
from emovox.probing.filenames import PARSERS, Name

AUDIO_ENDINGS = frozenset(
    (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus", ".aif", ".aiff", ".wma")
)
TABLE = "table"
LAYOUTS = (*PARSERS, TABLE)
VARIANTS = ("ravdess-song",)  # layouts whose names are another one's, and that have to be asked for
SURE = 0.95  # share of the media that has to be named like a corpus for it to be detected


@dataclass(frozen=True, slots=True)
class Utterance:
    """One labelled recording.

    Attributes:
        path: of the file.
        label: what it is labelled with; one of `EMOTIONS` where the corpus means the same.
        speaker: who speaks; None where the corpus does not say.
        part: `train` or `val` where the corpus has such a partition of its own.
    """

    path: Path
    label: str
    speaker: str | None = None
    part: str | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """A file that should have been an utterance, and why it is none."""

    path: str
    error: str
    message: str


@dataclass
class SpeechCorpus:
    """Labelled utterances.

    Attributes:
        layout: by which the files were read.
        root: its folder; that of the file for `table`.
        utterances: sorted by path; in the order of the file for `table`.
        dropped: what should have been utterances.
        notes: lines for the user about what is left aside.
    """

    layout: str
    root: Path
    utterances: list[Utterance] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def shown(self, path: Path) -> str:
        """A path as it may be written down: below the root, or else the file's name alone."""
        inside = path.relative_to(self.root) if path.is_relative_to(self.root) else Path(path.name)
        return printable(inside.as_posix())

    def drop(self, path: Path, error: str, message: str) -> None:
        """Record a file that should have been an utterance."""
        shown = self.shown(path)
        message = message.replace(str(path), shown)
        self.dropped.append(Dropped(shown, error, printable(message)))

    def note(self, what: str, paths: list[Path]) -> None:
        """Tell the user what is left aside; nothing if there are no such paths."""
        if paths:
            self.notes.append(f"{len(paths):,} {what}: {self.shown(paths[0])}")


def read_speech_corpus(
    path: Path, layout: str | None = None, *, video: bool = False
) -> SpeechCorpus:
    """List the utterances of a corpus without opening media.

    Of several files of one recording one is taken: its sound, or, if `video`, its video.

    Args:
        path: folder of the corpus; the file for the layout `table`.
        layout: one of `LAYOUTS`; None to tell it by the names of the files.
        video: take videos alone.

    Raises:
        ConfigError: no such layout, or it has to be named.
        InputError: no such folder or file, or there is not one utterance in it.
    """
    if layout not in (None, *LAYOUTS):
        raise ConfigError(f"unknown layout {layout!r}; choose one of {', '.join(LAYOUTS)}")
    if not path.exists():
        raise InputError(f"{path}: no such folder or file")
    if layout == TABLE or (layout is None and path.is_file()):
        corpus = _read_table(path)
    else:
        corpus = _read_folder(path, layout, video)
    if video:
        _leave_sound_aside(corpus, path)
    if not corpus.utterances and not corpus.dropped:
        raise InputError(f"{path}: no utterance of layout {corpus.layout} in it")
    return corpus


def class_order(labels: Iterable[str]) -> list[str]:
    """Every label once: those of `EMOTIONS` in their order, then the others by name.

    Example:
        >>> class_order(["calm", "sadness", "boredom", "neutral", "sadness"])
        ['neutral', 'sadness', 'boredom', 'calm']
    """
    found = set(labels)
    return [e for e in EMOTIONS if e in found] + sorted(found.difference(EMOTIONS))


def _read_folder(root: Path, layout: str | None, video: bool) -> SpeechCorpus:
    if not root.is_dir():
        raise InputError(f"{root}: is no folder; a file goes with --layout {TABLE}")
    seen = Corpus(root)
    found = {PurePosixPath(entry.name): entry.is_file for entry in seen.walk()}
    media = sorted(path for path in found if _is_media(path))
    if not media:
        raise InputError(f"{root}: holds neither audio nor video")
    layout = layout or _detect(root, media)
    corpus = SpeechCorpus(layout, root, notes=list(seen.notes))
    others = sorted(root / path for path in found if not _is_media(path))
    corpus.note("files are neither audio nor video and are left aside", others)
    named: list[tuple[PurePosixPath, Name]] = []
    for path in media:
        if (name := PARSERS[layout](path)) is None:
            corpus.drop(root / path, "BadName", f"not named like a file of {layout}")
        elif not found[path]:
            corpus.drop(root / path, "NotAFile", "is a folder, a broken link or a device")
        else:
            named.append((path, name))
    for reason in sorted({name.aside for _, name in named} - {""}):
        corpus.note(reason, [root / path for path, name in named if name.aside == reason])
    _choose(corpus, [(path, name) for path, name in named if not name.aside], video)
    return corpus


def _choose(corpus: SpeechCorpus, named: list[tuple[PurePosixPath, Name]], video: bool) -> None:
    """Take one file of each recording: the kind that is wanted, then the first by name."""

    def rank(item: tuple[PurePosixPath, Name]) -> tuple[str, bool, PurePosixPath]:
        path, name = item
        return name.recording, (path.suffix.lower() in VIDEO_ENDINGS) != video, path

    copies = []
    for _, group in groupby(sorted(named, key=rank), lambda item: item[1].recording):
        (path, name), *others = group
        found = corpus.root / path
        corpus.utterances.append(Utterance(found, name.label, name.speaker, name.part))
        copies += [corpus.root / other for other, _ in others]
    corpus.utterances.sort(key=lambda utterance: utterance.path)
    corpus.note("files are other copies of a recording and are left aside", sorted(copies))


def _detect(root: Path, media: list[PurePosixPath]) -> str:
    counts = Counter(
        {
            layout: sum(parse(path) is not None for path in media)
            for layout, parse in PARSERS.items()
            if layout not in VARIANTS
        }
    )
    found = {layout: count for layout, count in counts.items() if count}
    if len(found) == 1 and max(found.values()) >= SURE * len(media):
        return next(iter(found))
    told = " and ".join(f"{count:,} like {layout}" for layout, count in found.items())
    raise ConfigError(
        f"{root}: which corpus is it? Of {len(media):,} media files, named as a known corpus does: "
        f"{told or 'none'}; choose --layout, one of {', '.join(PARSERS)}, or list the files in a "
        "table with path, label and speaker"
    )


def _read_table(path: Path) -> SpeechCorpus:
    """Columns `path`, below the folder of the table or absolute; `label`; `speaker` if known."""
    corpus = SpeechCorpus(TABLE, path.absolute().parent)
    taken: set[Path] = set()
    copies = []
    for number, row in enumerate(read_table(path, ("path", "label")), start=2):
        name, label, speaker = (_text(row.get(key)) for key in ("path", "label", "speaker"))
        file = corpus.root / (name or f"row {number}")
        if not name or "\0" in name:
            corpus.drop(file, "BadPath", f"{path.name}, row {number}: no path")
        elif not label:
            corpus.drop(file, "NoLabel", f"{path.name}, row {number}: no label")
        elif file in taken:
            copies.append(file)
        else:
            taken.add(file)
            corpus.utterances.append(Utterance(file, label, speaker))
    corpus.note("rows name a file that an earlier row has and are left aside", copies)
    return corpus


def _text(value: object) -> str | None:
    return None if value is None else str(value).strip() or None


def _leave_sound_aside(corpus: SpeechCorpus, path: Path) -> None:
    silent = [u for u in corpus.utterances if u.path.suffix.lower() in AUDIO_ENDINGS]
    if corpus.utterances and len(silent) == len(corpus.utterances):
        raise InputError(f"{path}: holds sound alone; a teacher needs videos of the faces")
    corpus.utterances = [u for u in corpus.utterances if u.path.suffix.lower() not in AUDIO_ENDINGS]
    corpus.note("files hold sound alone and are left aside", [u.path for u in silent])


def _is_media(path: PurePosixPath) -> bool:
    return path.suffix.lower() in AUDIO_ENDINGS | VIDEO_ENDINGS
