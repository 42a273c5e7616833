"""README and guide: their commands run or are at least valid, and their links lead somewhere."""

import ast
import glob
import importlib.util
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from guide_fixtures import (
    PAGES,
    REPOSITORY,
    Block,
    Workplace,
    blocks,
    commands,
    documents,
    prose,
)
from hub_fixtures import FakeHub

from emovox.cli import main
from emovox.corpus.layouts import LAYOUTS
from emovox.corpus.tracks import AUDIO_ENDINGS, MEDIA_ENDINGS
from emovox.dataset import schema
from emovox.emotions import EMOTIONS
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.import_mat import SETS
from emovox.probing.filenames import PARSERS
from emovox.student.student_config import StudentTrainConfig
from emovox.teacher.teacher_checkpoint import ARCHITECTURES
from emovox.validation.outcomes import RULES

README = REPOSITORY / "README.md"
LANGUAGES = {"sh", "python", "csv", "yaml", "text", "bibtex"}
MOST_LINES = 220  # of the README

# Commands that are only parsed, by their beginning, with the reason.
NOT_RUN = {
    "sha256sum": "not a command of emovox",
    "pip install": "needs the network",
    "pytest": "runs this test",
    "hf auth login": "needs an account",
    "ray start": "tests/test_cluster.py starts one",
    "torchrun": "tests/test_student_training.py has several processes",
    "emovox demo": "takes a minute; .ci/run runs it, and tests/test_demo.py a smaller one",
    "emovox download splits": "needs the network; tests/test_download.py",
    "emovox download teacher": "needs the network; tests/test_download.py",
    "emovox download student": "needs the network; tests/test_download.py",
    "emovox check-corpus": "fails on a part of a corpus; tests/test_corpus_check.py",
    "emovox train-teacher": "takes long; tests/test_training.py",
    "emovox evaluate-teacher runs/inception": "needs AffectNet; tests/test_triplets.py",
    "emovox train-student emovox-demo/dataset": "the demo, which .ci/run runs, does the same",
    "emovox evaluate emovoxceleb": "needs the published weights; tests/test_student.py",
    "emovox build-dataset --layout voxceleb2 --root sample": "takes long",
}
# The same, by a part of the command.
NOT_RUN_WITH = {
    ".onnx": "needs weights that others published; tests/test_foreign.py",
    "hf:": "needs weights that others published; tests/test_foreign.py",
    "s3://": "needs a store, as in tests/test_remote.py and tests/test_cluster.py",
}
# The same, if a module is not installed.
EXTRAS = {"probe egemaps": "opensmile", "--push": "huggingface_hub"}
# Options that make a command fast enough for a test.
SMALL = {
    "train-student": "--width 0.0625 --epochs 1 --batch-size 4 --workers 0 --device cpu",
    "probe": "--folds 2 --jobs 1",
    "predict": "--jobs 1",
}
# The words after these options are not inputs.
OUTPUTS = {"--out", "--figures", "--state", "--push", "--version", "--write-folds"}
FETCHED = {"emovox download annotations": "published"}  # not downloaded again if it exists
FOREIGN_OPTIONS = {"--nproc-per-node", "--head", "--port", "--address"}


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


@pytest.fixture
def registries() -> Iterator[None]:
    """Remove the entries of the examples from the registries after the test."""
    known: list[dict[str, Any]] = [LAYOUTS, PARSERS, cast(dict[str, Any], ARCHITECTURES)]
    before = [dict(registry) for registry in known]
    yield
    for registry, entries in zip(known, before, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.fixture
def work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_thread: None,
    registries: None,
    in_process: None,
    request: pytest.FixtureRequest,
) -> Workplace:
    """An empty working folder with its own cache."""
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "cache"))
    if importlib.util.find_spec("huggingface_hub"):
        hub = FakeHub()
        monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    if importlib.util.find_spec("datasets"):
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "huggingface")
    root = tmp_path / "work"
    root.mkdir()
    monkeypatch.chdir(root)
    return Workplace(root, request.node.callspec.params["page"])


def reason_not_to_run(command: str) -> str | None:
    """Return the reason why a command is only parsed; None if it runs."""
    for part, module in EXTRAS.items():
        if part in command and not importlib.util.find_spec(module):
            return f"{module} is not installed"
    beginnings = (why for start, why in NOT_RUN.items() if command.startswith(start))
    return next(beginnings, None) or next(
        (why for part, why in NOT_RUN_WITH.items() if part in command), None
    )


def words_of(command: str) -> list[str]:
    """The words of a command, with the names of files for patterns as in a shell."""
    words = []
    for word in shlex.split(command):
        words += sorted(glob.glob(word)) if "*" in word else [word]  # noqa: PTH207 (as a shell)
    return words


def inputs_of(words: list[str]) -> Iterator[str]:
    for before, word in zip(["", *words], words, strict=False):
        if before not in OUTPUTS:
            yield word


def run(command: str, work: Workplace) -> None:
    work.provide(inputs_of(shlex.split(command)[2:]))
    work.provide(given for start, given in FETCHED.items() if command.startswith(start))
    work.provide([word.split("/")[0] for word in shlex.split(command) if "*" in word])
    if not command.startswith("emovox "):
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True, timeout=60)
        return
    _, name, *arguments = words_of(command)
    arguments += shlex.split(SMALL.get(name, ""))
    result = CliRunner().invoke(main, [name, *arguments])
    assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"


def run_python(block: Block, work: Workplace) -> dict[str, Any]:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            work.provide(re.findall(r"[\w./-]+", node.value))
    namespace: dict[str, Any] = {"__name__": "page"}
    exec(compile(block.text, "page", "exec", dont_inherit=True), namespace)
    return namespace


def ran_on_pages() -> set[str]:
    pages = (page for page in documents() if page != README)
    return {c for page in pages for b in blocks(page) if b.language == "sh" for c in commands(b)}


@pytest.mark.filterwarnings("ignore:Cannot")  # dill, of a package that is installed editable
@pytest.mark.parametrize("page", documents(), ids=name_of)
def test_what_a_page_shows_runs(page: Path, work: Workplace) -> None:
    """All of a page in its order; what the README takes from a page runs with that page."""
    elsewhere = ran_on_pages() if page == README else set()
    for block in blocks(page):
        if block.language == "python":
            run_python(block, work)
        elif block.language == "sh":
            for command in commands(block):
                if command not in elsewhere and reason_not_to_run(command) is None:
                    run(command, work)


@pytest.mark.parametrize("page", [PAGES / "extending.md"], ids=name_of)
def test_what_is_added_works(page: Path, work: Workplace) -> None:
    teacher, layout, parser, tests = (b for b in blocks(page) if b.language == "python")
    found = run_python(teacher, work)["teacher"]
    assert found(np.zeros((3, 32, 32, 3), np.uint8)).shape == (3, len(EMOTIONS))
    corpus = run_python(layout, work)["corpus"]
    assert [t.track_id for t in corpus.tracks] == ["ann/talk/00001", "ben/talk/00002"]
    assert len(corpus.notes) == 1
    corpus = run_python(parser, work)["corpus"]
    assert corpus.layout == "emovo"
    assert [(u.label, u.speaker) for u in corpus.utterances] == [
        ("anger", "f1"),
        ("surprise", "m2"),
    ]
    assert run_python(tests, work)["result"].manifest["totals"]["tracks"] == 1


ALL_COMMANDS = sorted(
    {c for page in documents() for b in blocks(page) if b.language == "sh" for c in commands(b)}
)


def emovox_words(command: str) -> list[str] | None:
    """Return the arguments of emovox in a command; None if the command does not call it."""
    words = shlex.split(command)
    if words[0] == "emovox":
        return words[1:]
    return words[words.index("emovox") + 1 :] if "emovox" in words[1:] else None


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_a_command_is_one(command: str) -> None:
    """Check that a command, its options and its arguments exist, and that it has a help."""
    words = emovox_words(command)
    if words is None:
        program = shlex.split(command)[0]
        assert program in {"pip", "pytest", "hf", "ray", "printf", "sha256sum"}, "who has that?"
        return
    found = main.commands[words[0]]
    parser = found.make_parser(click.Context(found))
    options, rest, _ = parser.parse_args(args=words[1:])  # raises for unknown options
    assert not rest
    for parameter in found.params:
        given = options.get(parameter.name or "")
        assert not parameter.required or given not in (None, ()), f"needs {parameter.name}"
        if isinstance(parameter.type, click.Choice) and isinstance(given, str):
            assert given in parameter.type.choices
    assert CliRunner().invoke(main, [words[0], "--help"]).exit_code == 0
    pipelines = [word for word in words if word.startswith("pipelines/")]
    assert all((REPOSITORY / pipeline).is_file() for pipeline in pipelines)


def test_commands_that_do_not_run_are_on_a_page() -> None:
    for start in NOT_RUN:
        assert any(command.startswith(start) for command in ALL_COMMANDS), start
    for part in NOT_RUN_WITH:
        assert any(part in command for command in ALL_COMMANDS), part
    for reason in (*NOT_RUN.values(), *NOT_RUN_WITH.values()):
        for test in re.findall(r"tests/\w+\.py", reason):
            assert (REPOSITORY / test).is_file(), test


@pytest.mark.parametrize("page", documents(), ids=name_of)
def test_blocks_are_fenced_and_of_a_known_kind(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= LANGUAGES
    assert not re.search(r"^(    |\t)", prose(page), re.MULTILINE), "an indented block hides"
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page))


def test_extras_exist() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    text = "".join(page.read_text(encoding="utf-8") for page in documents())
    found = {e for group in re.findall(r"'\.\[([\w,]+)\]'", text) for e in group.split(",")}
    found |= set(re.findall(r"extra `(\w+)`", text))
    assert found and found <= set(project["optional-dependencies"])
    described = re.search(r"Extras, as in .*?\.$", README.read_text(), re.DOTALL | re.MULTILINE)
    assert described is not None
    for extra in set(project["optional-dependencies"]) - {"test"}:
        assert f"`{extra}`" in described[0], f"{extra} is not in the README"


def slug(heading: str) -> str:
    """Return GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def linking_text(page: Path) -> str:
    """Return a page without its fenced blocks, or what the cells of a notebook say."""
    if page.suffix != ".ipynb":
        return prose(page)
    cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


@pytest.mark.parametrize("page", [*documents(), *sorted(PAGES.glob("*.ipynb"))], ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", linking_text(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
            assert anchor in map(slug, headings), target


def test_every_page_is_linked_from_the_readme() -> None:
    text = prose(README)
    for page in (*PAGES.glob("*.md"), *PAGES.glob("*.ipynb")):
        assert f"(emovox/guide/{page.name}" in text


def test_the_readme_lists_every_command_and_is_short() -> None:
    listed = re.findall(r"^\| `emovox ([\w-]+)` \|", prose(README), re.MULTILINE)
    assert sorted(listed) == sorted(main.commands)
    assert len(README.read_text(encoding="utf-8").splitlines()) < MOST_LINES


def spans(page: Path) -> list[str]:
    """Yield the text between backticks of a page."""
    return re.findall(r"`([^`\n]+)`", prose(page).replace("\n", " "))


def test_options_and_commands_in_the_text_exist() -> None:
    known = {o for c in main.commands.values() for p in c.params for o in (*p.opts, "--help")}
    known |= {o for c in main.commands.values() for p in c.params for o in p.secondary_opts}
    for page in documents():
        text = " ".join(spans(page))
        unknown = set(re.findall(r"--[a-z][a-z0-9-]*", text)) - known - FOREIGN_OPTIONS
        assert not unknown, f"{page.name}: {unknown}"
        for span in spans(page):
            if match := re.match(r"emovox ([a-z][\w-]*)", span):
                assert match[1] in main.commands, f"{page.name}: {span}"


def test_keys_of_recipes_in_the_text_exist() -> None:
    found = [s for page in documents() for s in spans(page) if re.match(r"\w+ = \S+$", s)]
    assert "conv3 = 256" in found
    for text in found:
        StudentTrainConfig(**tomllib.loads(text))  # raises for an invalid key or value


def test_snippets_of_yaml_fit() -> None:
    action = yaml.safe_load((REPOSITORY / ".github/actions/validate/action.yml").read_text())
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-hooks.yaml").read_text())
    found = [b for page in documents() for b in blocks(page) if b.language == "yaml"]
    steps = [entry for block in found for entry in yaml.safe_load(block.text)]
    given = [step["with"] for step in steps if "actions/validate" in step.get("uses", "")]
    assert given and all(set(each) <= set(action["inputs"]) for each in given)
    used = [hook["id"] for step in steps for hook in step.get("hooks", ())]
    assert used and set(used) <= {hook["id"] for hook in hooks}


def test_figures_of_the_readme_are_measured() -> None:
    """Every figure is in RESULTS.md, and its script exists."""
    results = (REPOSITORY / "tests/benchmarks/RESULTS.md").read_text(encoding="utf-8")
    measured = set(re.findall(r"\d[\d,.]*\d|\d", results))
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `(\w+\.py)` \|$", prose(README), re.MULTILINE)
    assert len(rows) == 5  # the rest stands in RESULTS.md only
    for what, figures, script in rows:
        numbers = set(re.findall(r"\d[\d,.]*\d|\d", figures))
        assert numbers <= measured, f"{what}: {numbers - measured} is not in RESULTS.md"
        assert (REPOSITORY / "tests/benchmarks" / script).is_file()


def test_figures_of_the_teacher_equal_those_of_its_card() -> None:
    card = (REPOSITORY / "data_cards/teacher-compact.md").read_text(encoding="utf-8")
    stated = re.findall(
        r"^\| (\w+) \| ([\d.]+ %) \| ([\d,]+) \|$", prose(PAGES / "limits.md"), re.M
    )
    assert len(stated) == 9
    for emotion, recall, count in stated:
        name = "accuracy" if emotion == "all" else emotion
        assert f"| {name} | {recall} | {count} |" in card


def test_lists_are_complete() -> None:
    own = prose(PAGES / "own-videos.md")
    assert set(re.findall(r"^\| `(\w[\w-]*)` \|", own, re.MULTILINE)) == set(LAYOUTS)
    student = prose(PAGES / "student.md")
    assert all(f"`{layout}`" in student for layout in PARSERS)
    assert f"{len(RULES)} rules" in prose(PAGES / "release.md")


def table_of(page: str, heading: str) -> dict[str, str]:
    """Return the cells of the first two columns below a heading of a page, without its head."""
    section = prose(PAGES / page).split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|", section, re.MULTILINE)
    return dict(rows[1:])


def test_endings_of_media_are_listed() -> None:
    for kind, endings in (("video", MEDIA_ENDINGS), ("sound", AUDIO_ENDINGS)):
        listed = table_of("files.md", "Media")[kind].split(", ")
        assert listed == sorted(ending.removeprefix(".") for ending in endings)


def test_every_command_states_what_it_does_with_an_existing_out() -> None:
    stated = " ".join(table_of("files.md", "If OUT exists"))
    for name, command in main.commands.items():
        if any("--out" in parameter.opts for parameter in command.params):
            assert re.search(rf"`{name}\b", stated), name


def test_stages_of_dropped_tracks_are_listed() -> None:
    code = "".join(p.read_text(encoding="utf-8") for p in REPOSITORY.glob("emovox/**/*.py"))
    stages = set(re.findall(r'TrackError\(\s*"([a-z]+)"', code))
    listed = set(table_of("dataset.md", "Read dropped.parquet"))
    assert {f"`{stage}`" for stage in stages} <= listed
    assert {f"`{name}`" for name in schema.DROPPED.names} <= listed


def test_the_sets_of_the_published_file_are_those_of_the_import() -> None:
    stated = table_of("annotations.md", "Fields of the .mat files")["`images.set`"]
    found = re.findall(r"\*\*(\d)\*\* is `(\w+)`", stated)
    assert {float(number): split for number, split in found} == SETS


def test_defaults_on_pages_are_correct() -> None:
    cluster = prose(PAGES / "cluster.md").replace("\n", " ")
    assert "at the default of 16 " in cluster  # as the help says, see `BuildConfig.shard_tracks`
    built = prose(PAGES / "voxceleb2.md").replace("\n", " ")
    assert f"`--timeout` ({BuildConfig.timeout:.0f} s)" in built
    assert f"`--max-dropped` ({BuildConfig.max_dropped:.0%})".replace("%", " %") in built
