"""Selections: some tracks of a dataset, as a dataset of their own."""

import os
from collections.abc import Sequence
from itertools import groupby, islice
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emovox.corpus.splits import fraction
from emovox.corpus.voxceleb import read_people
from emovox.dataset import schema
from emovox.dataset.card import read_fields
from emovox.dataset.json_schemas import tables_of
from emovox.dataset.reader import Dataset, load
from emovox.dataset.store import read_rows, reading
from emovox.dataset.takedown import Removal, view_of
from emovox.errors import CheckError, ConfigError, first_line
from emovox.files import check_vacant, new_folder
from emovox.publishing.publish import write_part


def select(
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    where: str | None = None,
    cap: int | None = None,
    seed: int = 0,
    meta: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Write some tracks of a dataset as a dataset of their own, and open it.

    Tracks keep their split; dropped tracks are left out. The dataset keeps its name and version,
    and its provenance names the one that it was selected from.

    Args:
        dataset: folder of the dataset.
        out: folder of the selection, new or empty. It appears when it is complete.
        where: condition in the SQL of DuckDB on the columns of `tracks`, on `shots`, the number of
            shots with a face, if the dataset has the table `faces`, and with `meta` on `gender`
            (m or f) and `nationality`. None: every track.
        cap: largest number of tracks per label, drawn at random; None for no limit.
        seed: random seed of that draw; a larger cap adds to the tracks of a smaller one.
        meta: folder of vox1_meta.csv.

    Raises:
        ConfigError: `where`, `cap`, `out` or card.toml is not valid, or the first two are missing.
        InputError: `dataset` is not a dataset, `out` is not empty, or vox1_meta.csv is unreadable.
        CheckError: no track fits.

    Example:
        >>> select("emovox-demo/dataset", "clear", where="n_frames >= 20 and max_happiness > 2")
        <Dataset emovox-demo 0.1.0: 22 tracks, 493 frames, train, heard_val, unheard_val>
    """
    data, out = load(dataset), Path(out)
    if where is None and cap is None:
        raise ConfigError("nothing to select by: pass a condition (--where), --cap or both")
    if cap is not None and cap < 1:
        raise ConfigError(f"cap {cap}: not above 0")
    check_vacant(out, data.path)
    read_fields(data.path)  # raises if it cannot be copied
    chosen = _find(data, where, None if meta is None else Path(meta)) if len(data) else {}
    if cap is not None:
        drawn = sorted(chosen, key=lambda name: (chosen[name], fraction(f"{seed} {name}")))
        by_label = groupby(drawn, chosen.__getitem__)
        chosen = {name: label for label, names in by_label for name in islice(names, cap)}
    if not chosen:
        raise CheckError(f"{data.path}: no track fits; change --where")
    ids, views = pa.array([*chosen], pa.string()), {}
    for split, counts in data.manifest["totals"]["by_split"].items():
        tracks = _read(data, "tracks", split, ["track_id", "identity_id", "row_offset"])
        remains = pc.is_in(tracks["track_id"], ids).to_numpy()
        if not remains.all():
            views[split] = view_of(tracks, counts["frames"], np.asarray(remains))
    removal = Removal(data.path, data.manifest, data.takedown, views, schema.DROPPED.empty_table())
    facts = {"where": where, "cap": cap, "seed": None if cap is None else seed}
    with new_folder(out.resolve(), "selecting") as building, reading(data.path):
        write_part(building, removal, data.version, "selected_from", **facts)
    return load(out)


def _read(data: Dataset, table: str, split: str, columns: Sequence[str]) -> pa.Table:
    path = data.path / schema.table_file(table, split)
    with reading(path):
        return read_rows(path, columns)


def _find(data: Dataset, where: str | None, meta: Path | None) -> dict[str, str]:
    """Return the labels of the tracks that fit, by track_id."""
    source, tables = "tracks", {"tracks": [data.tracks[split] for split in data.splits]}
    if "faces" in tables_of(data.manifest):
        tables["faces"] = [_read(data, "faces", s, ["track_id", "shot"]) for s in data.splits]
        count = "select track_id, count(distinct shot) as shots from faces group by track_id"
        source += f" left join ({count}) using (track_id)"
    if meta is not None:
        tables["people"] = [pa.Table.from_pylist(read_people(meta))]
        source += " left join people using (identity_id)"
    try:
        # The condition may come from elsewhere: it reads these tables, and no file.
        with duckdb.connect(config={"enable_external_access": "false"}) as database:
            for name, parts in tables.items():
                database.register(name, pa.concat_tables(parts))
            query = f"select track_id, label from {source} where ({where or 'true'})"
            if len(database.extract_statements(query)) > 1:
                raise ConfigError(f"--where {where!r}: more than one statement")
            return dict(database.execute(query).fetchall())
    except duckdb.Error as error:
        names = dict.fromkeys(name for parts in tables.values() for name in parts[0].column_names)
        shown = ", ".join("shots" if name == "shot" else name for name in names)
        raise ConfigError(
            f"--where {where!r}: {first_line(error)}; columns: {shown}; text stands in '...'"
        ) from error
