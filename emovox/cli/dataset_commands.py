"""Commands that compare, check, show and release datasets."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from emovox.cli.options import FILE, FOLDER, FORMAT, Command, config_options, echo, finish, given
from emovox.errors import ConfigError
from emovox.reporting.report_config import ReportConfig


def _format_option(*formats: str) -> Callable[[Command], Command]:
    return click.option(
        "--format", "form", type=click.Choice(formats), default="text", help="Output format."
    )


CORPORA = ("voxceleb2", "voxceleb1")
EXPORTS = ("csv", "audiofolder", "webdataset", "lhotse")
META = click.option("--meta", type=FOLDER, help="Folder of vox1_meta.csv and the official lists.")
CARD_HELP = "TOML file with licence, contact and more, in place of card.toml of the dataset."
CARD = click.option("--card", type=FILE, help=CARD_HELP)


@click.command()
@click.argument("old", type=FOLDER)
@click.argument("new", type=FOLDER)
@_format_option("text", "json")
def diff(old: Path, new: Path, form: str) -> None:
    """Compare two datasets.

    Prints the differences between OLD and NEW and the version bump that they require. JSON lists
    all added and removed tracks and frames, text the first few.
    """
    from emovox.comparison.difference import diff as compare

    found = compare(old, new)
    echo(found.json() if form == "json" else found.text())


@click.command()
@click.argument("dataset", type=FOLDER)
@click.option(
    "--check", is_flag=True, help="Compare DATASET/README.md with it; exit 1 if they differ."
)
@CARD
def card(dataset: Path, check: bool, card: Path | None) -> None:
    """Print the card of a dataset, made from its data.

    The card is computed from the rows, the manifest and the provenance of DATASET. Its card.toml
    adds licence, contact, citation, description and languages.
    """
    from emovox.dataset.card import card_of, check_card

    if check:
        check_card(dataset, card)
        echo(f"{dataset}: the card agrees with the data")
    else:
        echo(card_of(dataset, card), nl=False)


@click.command()
@click.argument("dataset", type=FOLDER)
@click.argument("track", required=False)
@FORMAT
def show(dataset: Path, track: str | None, form: str) -> None:
    """Print what a dataset contains.

    Prints the splits of DATASET, its labels and why tracks were dropped; with TRACK, a track_id,
    the rows of this track.
    """
    from emovox.reporting.show import show

    finish(show(dataset, track), None, form)


@click.command()
@click.argument("dataset", type=FOLDER)
@click.option("--where", metavar="SQL", help="Condition on the columns of tracks.")
@click.option("--cap", type=int, help="Largest number of tracks per label, drawn at random.")
@click.option("--seed", default=0, help="Random seed of --cap.")
@click.option("--meta", type=FOLDER, help="Folder of vox1_meta.csv.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the selection, new or empty.")
def select(dataset: Path, out: Path, **options: Any) -> None:
    """Write some tracks of a dataset as a dataset.

    For example: emovox select DATASET --where "n_frames >= 20 and label <> 'neutral'" --out OUT.
    The columns are those of the table tracks (`emovox schema`), shots, the number of shots, and
    with --meta gender and nationality. Tracks keep their split.
    """
    from emovox.publishing.selection import select

    echo(f"{out}: {select(dataset, out, **options)!r}")


@click.command()
@click.argument("dataset", type=FOLDER)
@click.option("--to", type=click.Choice(EXPORTS), default="csv", help="Form of the export.")
@click.option("--audio", type=FOLDER, required=True, help="Folder with the audio of the tracks.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the export, new or empty.")
@click.option("--seconds", type=float, help="Length of segments.  [default: whole tracks]")
@click.option("--collapse", type=FILE, help="TOML file that maps classes to lists of emotions.")
@click.option(
    "--max-dropped", type=click.FloatRange(0, 1), default=0.05, help="Largest share without sound."
)
def export(dataset: Path, audio: Path, out: Path, **options: Any) -> None:
    """Write the labels of a dataset beside their sound.

    csv lists labels, probabilities and the parts of the audio files that they belong to. The other
    forms copy the sound: audiofolder of Hugging Face datasets, tar files for webdataset, or
    manifests for lhotse.
    """
    from emovox.student.export import export

    echo(export(dataset, out, audio, **options).summary())


@click.command()
@click.argument("dataset", type=FOLDER, metavar="DIR")
@click.option("--out", type=FILE, help="Output file: a self-contained HTML page.")
@config_options(ReportConfig)
def report(dataset: Path, out: Path | None, **options: Any) -> None:
    """Show a dataset as a web page or as figures.

    The page shows splits, emotions, coverage, logits, skew, students and tracks of the dataset in
    DIR. It is one file that loads nothing from the network. Faces and sound are included only with
    --media, and are personal data. --figures writes PNG, SVG and CSV files.
    """
    from emovox.reporting.report import report

    if out is None and options["figures"] is None:
        raise ConfigError("nothing to write: pass --out FILE.html, --figures FOLDER or both")
    echo(report(dataset, out, **given(options)).summary())


@click.command()
@click.argument("dataset", type=FOLDER, metavar="DIR")
@_format_option("text", "json", "junit", "github")
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@META
@click.option("--takedown", type=FILE, help="List of SHA-256 of identities that must be absent.")
def validate(dataset: Path, form: str, **options: Any) -> None:
    """Check a dataset against the contract.

    Checks every row and every file of the dataset in DIR. Exit code 0: valid, possibly with
    warnings; 1: a rule failed; 2: DIR is not a dataset.
    """
    from emovox.validation.outcomes import FORMATS, validate

    validation = validate(dataset, **options)
    echo(FORMATS[form](validation), has_commands=form == "github")
    if not validation.valid:
        sys.exit(1)


@click.command()
@click.argument("root", type=FOLDER)
@click.option("--layout", type=click.Choice(CORPORA), default=CORPORA[0], help="Corpus in ROOT.")
@META
@FORMAT
def check_corpus(root: Path, layout: str, meta: Path | None, form: str) -> None:
    """Compare a copy of VoxCeleb with its lists.

    Prints the identities and tracks that ROOT lacks, damaged files and unknown names, without
    decoding: the first few as text, all as JSON or CSV. Exit code 0: complete and clean; 1: not.
    """
    from emovox.reporting.corpus_check import check_corpus

    finish(checked := check_corpus(root, layout, meta), None, form)
    if checked.rows:
        sys.exit(1)


@click.command()
@click.argument("dataset", type=FOLDER, metavar="DIR")
@click.option("--version", required=True, help="Version of the release: MAJOR.MINOR.PATCH.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the release; must not exist.")
@click.option("--takedown", type=FILE, help="List of SHA-256 of identities to remove.")
@click.option(
    "--allow-unknown", is_flag=True, help="Accept hashes that match no identity of the dataset."
)
@CARD
@click.option(
    "--anonymise",
    type=FILE,
    metavar="MAP",
    help="Give identities and videos random ids, kept in this CSV file; do not publish it.",
)
@META
@click.option("--push", metavar="ORG/NAME", help="Upload to this repository on Hugging Face.")
@click.option(
    "--private/--public", default=True, help="Visibility of the repository, if it is new."
)
def release(
    dataset: Path, version: str, out: Path, push: str | None, private: bool, **options: Any
) -> None:
    """Make an immutable version of a dataset.

    The release of the dataset in DIR is validated, has checksums and is read-only. OUT appears once
    it is complete and valid. With --push it is also uploaded, tagged with its version; rerun the
    same command if only the upload failed.
    """
    from emovox.publishing.hub import open_repository
    from emovox.publishing.publish import NotValidError, release
    from emovox.validation.outcomes import as_text

    repository = open_repository(push, version, private=private) if push else None
    options |= {"resume": bool(push), "say": partial(echo, err=True)}
    try:
        released = release(dataset, out, version=version, **options)
    except NotValidError as error:
        echo(as_text(error.validation))
        raise
    echo(released.summary())
    if repository:
        echo(f"pushed    {repository.upload(out)}, tag {version}")


@click.command()
@click.argument("identities", nargs=-1, required=True, metavar="ID...")
def hash_identity(identities: tuple[str, ...]) -> None:
    """Print the line of a takedown list for each identity_id.

    Write the lines to a file and pass it to `emovox release --takedown`.
    """
    from emovox.dataset.takedown import hash_identity

    for identity in identities:
        echo(hash_identity(identity))


@click.command()
@click.option("--out", type=FOLDER, help="Folder to write one JSON file per table to.")
def schema(out: Path | None) -> None:
    """Print the dataset contract as JSON.

    That is the columns of the tables, and a JSON Schema of each document.
    """
    from emovox.dataset.json_schemas import describe_documents
    from emovox.dataset.schema import DESCRIBED

    contract = DESCRIBED | describe_documents()
    if out is None:
        echo(json.dumps(contract, indent=2))
        return
    out.mkdir(parents=True, exist_ok=True)
    for name, description in contract.items():
        path = out / f"{name}.json"
        path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        echo(path)
