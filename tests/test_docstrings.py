"""Docstrings of what others import: examples that run, arguments that are all named."""

import ast
import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import pydoc
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch

import emovox
from emovox import checkpoints, errors
from emovox.corpus.splits import auto_split
from emovox.dataset import schema
from emovox.dataset.rows import Chunk, TrackRow
from emovox.dataset.writer import DatasetInfo, write_chunks
from emovox.demo import demo_build_config
from emovox.demo.demo_corpus import FPS, DemoConfig, DemoTrack, plan_demo
from emovox.emotions import EMOTIONS
from emovox.errors import InputError
from emovox.packages import software
from emovox.student.networks import StudentConfig, VGGVox

# What pages and cards name, beside the package itself: the modules that others build on.
PUBLIC = (
    *("emovox", "emovox.emotions", "emovox.errors", "emovox.testing", "emovox.checkpoints"),
    *("emovox.labelling.build_config", "emovox.labelling.run", "emovox.labelling.import_mat"),
    *("emovox.corpus.sound_files", "emovox.corpus.layouts", "emovox.corpus.splits"),
    *("emovox.corpus.track_table", "emovox.corpus.tracks", "emovox.corpus.voxceleb"),
    *("emovox.dataset.card", "emovox.dataset.reader", "emovox.dataset.schema"),
    *("emovox.dataset.takedown", "emovox.media.audio", "emovox.media.faces", "emovox.media.grid"),
    *("emovox.media.spectrogram", "emovox.comparison.difference", "emovox.publishing.hub"),
    *("emovox.publishing.publish", "emovox.validation.outcomes", "emovox.student"),
    *("emovox.student.networks", "emovox.probing.corpora", "emovox.student.evaluation"),
    *("emovox.probing.probes", "emovox.probing.filenames", "emovox.student.prediction"),
    *("emovox.student.student_config", "emovox.teacher", "emovox.teacher.evaluation"),
    *("emovox.teacher.ferplus", "emovox.checkpoints", "emovox.fusion.sequences"),
    *("emovox.fusion.fusion_training", "emovox.fusion.fusion_evaluation"),
    *("emovox.teacher.teacher_config", "emovox.teacher.teacher_checkpoint"),
)
# Methods without a docstring of their own: torch says what they are, and huggingface_hub.
EXEMPT = re.compile(r".*\.forward|Api\..*")
SECTION = re.compile(r"^(Args|Attributes|Raises|Args, Raises):\n((?:[ ]+.*\n|\n)*)", re.MULTILINE)


def all_modules() -> list[str]:
    walked = pkgutil.walk_packages(emovox.__path__, "emovox.")
    return ["emovox", *(m.name for m in walked if m.name != "emovox.__main__")]


def examples_of(name: str) -> list[doctest.DocTest]:
    module = importlib.import_module(name)
    found = doctest.DocTestFinder().find(module, name)
    return [test for test in found if test.examples]


# Modules that are loaded to be looked through; a textual look spares the others.
WITH_EXAMPLES = [
    name
    for name in all_modules()
    if (spec := importlib.util.find_spec(name))
    and spec.origin
    and ">>> " in Path(spec.origin).read_text()
]


def frames_of(tracks: Sequence[DemoTrack], split: str) -> Iterator[Chunk]:
    """Rows of the demo's tracks as the grid gives them, with logits from nowhere."""
    rng = np.random.default_rng(0)
    for track in tracks:
        count = (round(track.seconds * FPS) - 1) // 6 + 1
        key = track.key
        index = np.arange(count)
        columns = [
            pa.array([track.key.track_id] * count),
            pa.array(index.astype(np.int16)),
            pa.array((index * schema.STEP_MS).astype(np.int32)),
            *map(pa.array, rng.normal(size=(len(EMOTIONS), count)).astype(np.float32)),
        ]
        rows = pa.Table.from_arrays(columns, schema=schema.EIGHT.frames)
        yield Chunk(split, [TrackRow(key, count, count)], rows)


def write_demo(root: Path) -> None:
    """Write the files of `emovox demo` with random logits, which takes no half minute."""
    config = demo_build_config(root / "corpus", root / "dataset")
    by_split: dict[str, list[DemoTrack]] = {split: [] for split in schema.SPLITS}
    keys = [track.key for track in plan_demo(DemoConfig())]
    assigned = auto_split(keys, config.unheard_fraction, config.heard_fraction)
    for track in plan_demo(DemoConfig()):
        clip = config.root / f"mp4/{track.key.track_id}.mp4"
        clip.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(0).normal(0, 0.1, round(track.seconds * 16_000))
        soundfile.write(clip, noise, 16_000, format="WAV")  # readers go by the content
        by_split[assigned[track.key.track_id]].append(track)
    chunks = (chunk for split, tracks in by_split.items() for chunk in frames_of(tracks, split))
    teacher = {"name": "random", "sha256": None}
    source = {"file": "random", "sha256": "0" * 64}
    provenance = {**software(), "origin": "Random logits.", "imported_from": [source]}
    info = DatasetInfo(
        config.dataset_name, config.version, 240, teacher, provenance, ("frames", "tracks")
    )
    write_chunks(config.out, chunks, [], info, hdf5=False)
    (root / "student").mkdir()
    student = VGGVox(StudentConfig(width=0.125), torch.Generator().manual_seed(0))
    checkpoints.save(root / "student/best.safetensors", student, {"by": "nobody"})


def write_lists(folder: Path) -> None:
    """Lists of the official split, as long as the published ones."""
    folder.mkdir()
    names = {f"Person_{k}": f"id{10_001 + k}" for k in range(1251)}
    rows = [f"{identity}\t{name}\tm\tIreland\tdev" for name, identity in names.items()]
    header = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"
    (folder / "vox1_meta.csv").write_text("\n".join([header, *rows, ""]))
    sets = [1] * 901 + [2] * 100 + [4] * 250
    lines = (f"{name} {number}\n" for name, number in zip(names, sets, strict=True))
    (folder / "identity_splits.txt").write_text("".join(lines))
    voices = [f"{name}/video_{k:07d}.wav" for name in list(names)[:901] for k in range(1, 6)]
    path = folder / "veriflist_test_random_seenheard.txt"
    path.write_text("\n".join(["voice-path", *voices, ""]))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples take for granted."""
    root = tmp_path_factory.mktemp("examples")
    write_demo(root / "emovox-demo")
    write_lists(root / "lists")
    return root


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(
    name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, in_process: None
) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("EMOVOX_CACHE", str(workplace / "cache"))
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    for test in examples_of(name):
        runner.run(test, out=report.append)
    assert not report, "".join(report)


def test_the_names_of_the_package_have_examples() -> None:
    """Those that are called; and the packages around them are looked through."""
    called = [n for n in emovox.__all__ if inspect.isfunction(getattr(emovox, n))]
    for name in called:
        assert ">>> " in (inspect.getdoc(getattr(emovox, name)) or ""), name
    assert {"emovox", "emovox.testing", "emovox.dataset.reader"} <= set(WITH_EXAMPLES)


def test_pydoc_shows_what_there_is() -> None:
    text = pydoc.plain(pydoc.render_doc(emovox))
    for name in emovox.__all__:
        assert re.search(rf"^    (class )?{name}\b", text, re.MULTILINE), name
    assert "__getattr__" not in text
    head = text.split("PACKAGE CONTENTS")[0]
    for name in set(emovox.__all__) - {"Dataset", "Student", "Teacher", "BuildResult"}:
        assert name in head, name


def public_things(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Functions and classes that a module defines, and the methods of these classes."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing):
            yield name, thing
            for method, value in vars(thing).items():
                value = value.fget if isinstance(value, property) else value
                if inspect.isfunction(value) and not method.startswith("_"):
                    yield f"{name}.{method}", getattr(thing, method)


def sections(doc: str) -> dict[str, str]:
    return {match[1]: match[2] for match in SECTION.finditer(doc + "\n")}


def raised_in(thing: object) -> set[str]:
    """Errors of emovox that a function raises itself, by name."""
    if not inspect.isfunction(thing):
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    calls = [n.exc for n in ast.walk(tree) if isinstance(n, ast.Raise)]
    names = {c.func.id for c in calls if isinstance(c, ast.Call) and isinstance(c.func, ast.Name)}
    return names & set(vars(errors))


def faults(name: str, thing: object) -> Iterator[str]:
    """Yield the faults of a docstring."""
    doc = inspect.getdoc(thing) or ""
    if not doc:
        yield f"{name}: has no docstring"
        return
    found = sections(doc)
    if "Args" in found and inspect.isroutine(thing):
        for parameter in inspect.signature(thing).parameters:
            if parameter not in ("self", "cls") and not re.search(
                rf"\b{parameter}\b", found["Args"]
            ):
                yield f"{name}: Args lacks {parameter}"
    if "Attributes" in found and hasattr(thing, "__dataclass_fields__"):
        for field in thing.__dataclass_fields__:
            if not re.search(rf"\b{field}\b", found["Attributes"]):
                yield f"{name}: Attributes lacks {field}"
    for error in raised_in(thing):
        if error not in doc:
            yield f"{name}: raises {error}, and does not say so"


@pytest.mark.parametrize("name", PUBLIC)
def test_docstrings_are_complete(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    found = [
        fault
        for what, thing in public_things(module)
        if not EXEMPT.fullmatch(what)
        for fault in faults(what, thing)
    ]
    assert not found, "\n".join(found)


def test_the_check_sees_what_is_missing() -> None:
    def wrong(a: int, b: int) -> None:  # noqa: D417 - the fault to find
        """Does.

        Args:
            a: first.
        """
        raise InputError("x")

    missing = ["wrong: Args lacks b", "wrong: raises InputError, and does not say so"]
    assert list(faults("wrong", wrong)) == missing


# Docstrings open with an imperative verb or a noun phrase.
QUESTION_WORDS = {"What", "How", "Whether", "Where", "Which", "Who"}
FOLDERS = (Path(emovox.__file__).parent, Path(__file__).parent)


def openings(source: str) -> Iterator[str]:
    """Yield the first word of every docstring of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from (ast.get_docstring(node) or "").split()[:1]


@pytest.mark.parametrize("folder", FOLDERS, ids=["package", "tests"])
def test_no_docstring_opens_with_a_question_word(folder: Path) -> None:
    num_docstrings = 0
    for path in sorted(folder.rglob("*.py")):
        words = list(openings(path.read_text(encoding="utf-8")))
        num_docstrings += len(words)
        assert not QUESTION_WORDS & set(words), path
    assert num_docstrings > 100


def test_a_question_word_is_detected() -> None:
    assert list(openings('"""What it does."""\ndef f():\n    """Return 1."""\n')) == [
        "What",
        "Return",
    ]
