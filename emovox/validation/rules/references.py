"""Rules about references between tables, containers and hashes."""

from collections.abc import Iterator
from functools import partial

from emovox.dataset import schema
from emovox.dataset.documents import listed_hash
from emovox.dataset.store import read_array
from emovox.validation.findings import Breach, Example, NotApplicableError, UnavailableError
from emovox.validation.inspection import Inspection


def _compare_keys(dataset: Inspection, other: str) -> Breach:
    """Return the rows of a table with other keys than the same row of `frames`."""
    splits = [split for table, split, _ in dataset.tables if table == other]
    if not splits:
        raise NotApplicableError(f"the dataset has no table {other}")
    queries = [
        f"""select '{split}' as split, concat('row ', row, ': ', track_id, ' frame ', frame_index,
            ' in frames, ', face_id, ' frame ', face_index, ' in {other}') as text
        from (select track_id as face_id, frame_index as face_index from {other}_{split})
            positional join (select row, track_id, frame_index from frames_{split})
        where track_id is distinct from face_id or frame_index is distinct from face_index"""
        for split in splits
    ]
    return dataset.query(" union all ".join(queries))


faces_match_frames = partial(_compare_keys, other="faces")
embeddings_match_frames = partial(_compare_keys, other="embeddings")


def content_hashes(dataset: Inspection) -> Iterator[Example]:
    for _, _, name in dataset.tables:
        listed = listed_hash(dataset.manifest, name) or "missing"
        try:
            found = dataset.content(name)
        except UnavailableError:
            continue  # reported by `readable`
        stated = dataset.metadata(name).get("emovox.content_sha256", "missing")
        if found != stated:
            yield Example(name, f"content hash is {found}, in the metadata {stated}")
        if found != listed:
            yield Example(name, f"content hash is {found}, in the manifest {listed}")


def hdf5_content(dataset: Inspection) -> Iterator[Example]:
    for split, name in dataset.hdf5_files:
        frames = schema.table_file("frames", split)
        listed, found = listed_hash(dataset.manifest, name) or "missing", dataset.content(name)
        if found != (expected := dataset.content(frames)):
            yield Example(name, f"content hash is {found}, that of {frames} {expected}")
        elif found != listed:
            yield Example(name, f"content hash is {found}, in the manifest {listed}")


def hdf5_tracks(dataset: Inspection) -> Iterator[Example]:
    for split, name in dataset.hdf5_files:
        with dataset.hdf5(name) as file:
            arrays = {c: read_array(file, path) for path, c in schema.HDF5_TRACKS.items()}
            attributes = {key: str(value) for key, value in file.attrs.items()}
        for column, values in arrays.items():
            rows = dataset.rows(f"select {column} from tracks_{split} order by row")
            if values.tolist() != [value for (value,) in rows]:
                yield Example(name, f"{column} differs from the table tracks")
        metadata = dataset.metadata(schema.table_file("frames", split))
        for key in schema.file_metadata("", split, dataset.contract.outputs, ""):
            if attributes.get(key) != metadata.get(key, ""):
                yield Example(name, f"attribute {key} is {attributes.get(key)!r}")
