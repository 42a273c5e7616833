"""Labelled speech corpora, read from file names or from a table."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from emovox.corpus.track_table import read_table
from emovox.corpus.tracks import AUDIO_ENDINGS, MEDIA_ENDINGS, Corpus
from emovox.emotions import closest_emotion, standard_name
from emovox.errors import ConfigError, InputError
from emovox.files import read_text
from emovox.ids import printable
from emovox.probing.filenames import LABEL_FILES, LAYOUTS, PARSERS, TABLE, Name, read_labels

MIN_MATCHES = 0.95  # fraction of the media files that must match a layout for its detection


@dataclass(frozen=True, slots=True)
class Utterance:
    """One labelled recording."""

    path: Path  # media file
    label: str  # emotion, one of `EMOTIONS` where possible
    speaker: str | None = None  # id of the speaker; None if the corpus does not give one
    # `train`, `val` or `test`; None if the corpus defines no partition
    partition: str | None = None
    session: str | None = None  # id of the recording session; None if the corpus has none
    corpus: str = ""  # name of the corpus, if there are several
    seconds: float | None = None  # duration of the sound, once it was read


@dataclass(frozen=True, slots=True)
class DroppedFile:
    """A file of the corpus that gives no utterance, and the reason."""

    path: str
    error: str
    message: str


@dataclass
class SpeechCorpus:
    """Labelled utterances."""

    layout: str  # layout of the corpus
    root: Path  # folder of the corpus, or of the table
    # Sorted by path, or in the order of the table
    utterances: list[Utterance] = field(default_factory=list)
    # Files of the corpus that give no utterance
    dropped: list[DroppedFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # lines for the user about skipped files

    def shown(self, path: Path) -> str:
        """Return a path without the root; for a path outside of it only the file name."""
        inside = path.relative_to(self.root) if path.is_relative_to(self.root) else Path(path.name)
        return printable(inside.as_posix())

    def drop(self, path: Path, error: str, message: str) -> None:
        """Add a file that gives no utterance."""
        shown = self.shown(path)
        message = message.replace(str(path), shown)
        self.dropped.append(DroppedFile(shown, error, printable(message)))

    def skip(self, reason: str, paths: list[Path]) -> None:
        """Add a note about skipped files, if there are any."""
        if paths:
            example = self.shown(paths[0])
            self.notes.append(f"{len(paths):,} files skipped ({reason}), for example {example}")


def read_speech_corpus(
    path: str | os.PathLike[str], layout: str | None = None, *, video: bool = False
) -> SpeechCorpus:
    """List the utterances of a corpus without opening media files.

    Of several files of one recording one is used: an audio file, or with `video` a video file.

    `path` is the folder of the corpus, or the file for the layout `table`; a `layout` of None is
    detected from the file names.

    Raises:
        ConfigError: unknown layout, or the layout cannot be detected.
        InputError: the folder or file is missing, or contains no utterance.
    """
    path = Path(path)
    if layout not in (None, *LAYOUTS):
        raise ConfigError(f"unknown layout {layout!r}; use one of {', '.join(LAYOUTS)}")
    if not path.exists():
        raise InputError(f"{path}: not found; pass a folder or a table")
    if layout == TABLE or (layout is None and path.is_file()):
        corpus = _read_table(path)
    else:
        corpus = _read_folder(path, layout, video)
    for label, count in Counter(u.label for u in corpus.utterances).items():
        if meant := closest_emotion(label):
            fact = "not an emotion emovox knows; did you mean"
            corpus.notes.append(f"label {label!r}: {fact} {meant}? ({count:,} utterances)")
    if not corpus.utterances and not corpus.dropped:
        raise InputError(f"{path}: contains no utterance of the layout {corpus.layout}")
    return corpus


def merge_corpora(corpora: Mapping[str, SpeechCorpus]) -> SpeechCorpus:
    """Return the utterances of corpora, by name, with standard names of the emotions.

    A speaker of one corpus is not that of the same id in another. Files are shown without folders.
    """
    merged = SpeechCorpus(" + ".join(corpora), Path(os.devnull))
    for name, corpus in corpora.items():
        merged.dropped += corpus.dropped
        merged.notes += [f"{name}: {note}" for note in corpus.notes]
        for u in corpus.utterances:
            speaker = u.speaker and f"{name}/{u.speaker}"
            label = standard_name(u.label)
            merged.utterances.append(replace(u, corpus=name, label=label, speaker=speaker))
    return merged


def _read_folder(root: Path, layout: str | None, video: bool) -> SpeechCorpus:
    if not root.is_dir():
        raise InputError(f"{root}: not a folder; for a table pass --layout {TABLE}")
    listed = Corpus(root)
    files = {PurePosixPath(entry.name): entry.is_file for entry in listed.walk()}
    media = sorted(p for p in files if p.suffix.lower() in AUDIO_ENDINGS | MEDIA_ENDINGS)
    if not media:
        raise InputError(f"{root}: contains neither audio nor video")
    layout = layout or _detect(root, media)
    corpus = SpeechCorpus(layout, root, notes=list(listed.notes))
    form, labels = LABEL_FILES.get(layout), dict[str, dict[str, Any]]()
    label_files = {path for path in files if form and form.fullmatch(path.as_posix())}
    for path in label_files:
        labels |= read_labels(path, read_text(root / path, errors="replace"))
    others = sorted(root / path for path in files.keys() - media - label_files)
    corpus.skip("neither audio nor video", others)
    named: list[tuple[PurePosixPath, Name]] = []
    for path in media:
        if (name := PARSERS[layout](path)) is None:
            corpus.drop(root / path, "BadName", f"not a file name of {layout}")
        elif not files[path]:
            corpus.drop(root / path, "NotAFile", "is a folder, a broken link or a device")
        elif not (name := replace(name, **labels.get(name.recording, {}))).label + name.skipped:
            corpus.drop(root / path, "NoLabel", "not in the label files")
        else:
            named.append((path, name))
    for reason in sorted({name.skipped for _, name in named} - {""}):
        corpus.skip(reason, [root / path for path, name in named if name.skipped == reason])
    _choose(corpus, [(path, name) for path, name in named if not name.skipped], video)
    return corpus


def _choose(corpus: SpeechCorpus, named: list[tuple[PurePosixPath, Name]], video: bool) -> None:
    """Add one file of each recording: of the requested kind if possible, the first by name."""

    def rank(item: tuple[PurePosixPath, Name]) -> tuple[bool, PurePosixPath]:
        return (item[0].suffix.lower() in MEDIA_ENDINGS) != video, item[0]

    chosen: dict[str, Utterance] = {}
    copies = []
    for path, name in sorted(named, key=rank):
        file = corpus.root / path
        if name.recording in chosen:
            copies.append(file)
        else:
            facts = name.label, name.speaker, name.partition, name.session
            chosen[name.recording] = Utterance(file, *facts)
    corpus.utterances = sorted(chosen.values(), key=lambda utterance: utterance.path)
    corpus.skip("other copies of a recording", sorted(copies))


def _detect(root: Path, media: list[PurePosixPath]) -> str:
    """Return the only layout that matches enough of the media files, by their names."""
    counts = {layout: len([*filter(parse, media)]) for layout, parse in PARSERS.items()}
    matching = {layout: count for layout, count in counts.items() if count}
    if len(matching) == 1 and max(matching.values()) >= MIN_MATCHES * len(media):
        return next(iter(matching))
    shown = ", ".join(f"{count:,} {layout}" for layout, count in matching.items()) or "none"
    raise ConfigError(
        f"{root}: unknown corpus: of {len(media):,} media files these match a layout: {shown}; "
        f"pass --layout, one of {', '.join(PARSERS)}, or a table with path, label and speaker"
    )


def _read_table(path: Path) -> SpeechCorpus:
    """Read a table with `path` (absolute or below its folder), `label` and optional `speaker`."""
    corpus = SpeechCorpus(TABLE, path.absolute().parent)
    listed: set[Path] = set()
    copies = []
    for number, row in enumerate(read_table(path, ("path", "label")), start=2):
        texts = ((row.get(key) or "").strip() for key in ("path", "label", "speaker"))
        name, label, speaker = (text or None for text in texts)
        file = corpus.root / (name or f"row {number}")
        if not name or "\0" in name:
            corpus.drop(file, "BadPath", f"{path.name}, row {number}: no path")
        elif not label:
            corpus.drop(file, "NoLabel", f"{path.name}, row {number}: no label")
        elif file in listed:
            copies.append(file)
        else:
            listed.add(file)
            corpus.utterances.append(Utterance(file, label, speaker))
    corpus.skip("listed in an earlier row", copies)
    return corpus
