"""Commands that make datasets, and fetch what they need."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from emovox.cli.options import FILE, FILE_OR_FOLDER, FOLDER, config_options, echo, given
from emovox.config import option_help
from emovox.downloads.download_config import TARGETS, DownloadConfig
from emovox.errors import CheckError
from emovox.labelling.build_config import BuildConfig, EmbedConfig

TOO_MANY_DROPPED = (
    "the dataset is complete, but more tracks were dropped than --max-dropped allows; "
    "dropped.parquet lists each with its reason"
)


@click.command("build-dataset")
@click.argument("recipe", required=False)
@config_options(BuildConfig)
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--dry-run", is_flag=True, help="Only print what would be labelled, and how long.")
def build_dataset(recipe: str | None, quiet: bool, dry_run: bool, **options: Any) -> None:
    """Build a dataset of emotion logits from talking faces.

    RECIPE is a TOML file, or the name of an installed one, that sets the same options; an option on
    the command line overrides it. Rerun the same command to resume, or to add new tracks.
    """
    from emovox.labelling.run import build_dataset, preview

    if dry_run:
        echo(preview(recipe, **given(options)))
        return
    result = build_dataset(recipe, show_progress=not quiet, **given(options))
    echo(result.summary())
    if result.too_many_dropped:
        raise CheckError(f"{TOO_MANY_DROPPED}; pass --retry-dropped to try them again")


@click.command()
@click.argument("dataset", type=FOLDER)
@config_options(EmbedConfig)
def embed(dataset: Path, **options: Any) -> None:
    """Add the teacher's embeddings to a dataset.

    Decodes the pictures of DATASET again and writes the table embeddings into it. `emovox
    build-dataset --embeddings` writes the table at once.
    """
    from emovox.labelling.embed import embed

    made = embed(dataset, **given(options))
    echo(f"{dataset}: wrote embeddings of {made.manifest['totals']['frames']:,} frames")


@click.command("import-mat")
@click.argument("files", type=FILE, nargs=-1, required=True, metavar="FILE...")
@click.option("--out", type=FOLDER, required=True, help="Folder of the dataset, new or empty.")
@click.option(
    "--meta",
    type=FOLDER,
    help="Folder of vox1_meta.csv and the official lists.  [default: that of FILE, else the "
    "downloaded lists]",
)
@click.option("--name", default="emovoxceleb", help="Name of the dataset.")
@click.option("--version", default="1.0.0", help="Version of the dataset.")
@click.option("--hdf5/--no-hdf5", default=False, help="Write HDF5 files in addition to Parquet.")
@click.option(
    "--max-dropped",
    type=click.FloatRange(0, 1),
    default=0.05,
    help="Largest fraction of dropped tracks; above it the exit code is 1.",
)
def import_mat(files: tuple[Path, ...], out: Path, max_dropped: float, **options: Any) -> None:
    """Convert the published annotations to a dataset.

    FILE is the MATLAB file of the annotations. Pass several files if wavLogits and images are in
    different ones. The counts found are printed next to the published counts.
    """
    from emovox.labelling.import_mat import import_mat

    result = import_mat(files, out, **options)
    echo(result.summary())
    totals = result.manifest["totals"]
    if totals["dropped"] > max_dropped * (totals["dropped"] + totals["tracks"]):
        raise CheckError(TOO_MANY_DROPPED)


@click.command()
@click.option(
    "--out",
    type=FOLDER,
    default=Path("emovox-demo"),
    help="Folder of the corpus, dataset, student and report.",
)
@click.option("--seed", default=0, help="Random seed.")
@click.option("--jobs", default=0, help="Number of worker processes; 0 for one per core.")
def demo(out: Path, seed: int, jobs: int) -> None:
    """Try everything once on a small synthetic corpus.

    Draws a corpus of talking faces, builds its dataset, trains a student and writes a report; no
    network is needed.
    """
    from emovox.demo import run_demo
    from emovox.demo.demo_corpus import DemoConfig

    echo(run_demo(out, DemoConfig(seed=seed), jobs).summary())


@click.command()
@click.argument("target", type=click.Choice(list(TARGETS)))
@click.argument("file_name", metavar="[NAME]", required=False)
@config_options(DownloadConfig, only=("name", "out", "url", "accept_new"))
@click.option("--list", "show", is_flag=True, help="Print names, licences and sizes and exit.")
@click.option("--from", "copy", type=FILE_OR_FOLDER, help=option_help(DownloadConfig)["copy"])
def download(target: str, file_name: str | None, show: bool, **options: Any) -> None:
    """Download published annotations, splits or models.

    NAME is one file of the target; without it, the teacher is senet50-ferplus for PyTorch. Prints
    the path of each file when all are complete; rerun to resume. The lists of the splits must match
    their published checksums. The other files have none: the first good download is pinned, and a
    later one that differs is refused.
    """
    from emovox.downloads import published_files

    if show:
        from emovox.teacher import published_accuracy

        for listed in TARGETS[target].files:
            size = f"{listed.size / 1e6:,.2f} MB" if listed.size else "size not published"
            accuracy = published_accuracy(listed.alias) if listed.alias else None
            facts = [listed.purpose, accuracy, size, f"licence: {listed.licence}"]
            echo(f"{listed.alias or listed.name}\n    {'; '.join(filter(None, facts))}")
        return
    if file_name is not None:
        options["name"] = file_name
    for file in published_files.download(target, say=partial(echo, err=True), **given(options)):
        echo(file.path)
