"""Rules about references between tables, containers and hashes."""

from collections.abc import Iterator
from functools import partial

from emovox.dataset import schema
from emovox.dataset.documents import listed_hash
from emovox.dataset.store import read_array
from emovox.validation.findings import Breach, Example, NotApplicableError, UnavailableError
from emovox.validation.inspection import Inspection
from emovox.validation.rule import Family

RULES = Family("references")

RULES.query(
    "frames-have-tracks",
    "Every track_id of frames has a row in tracks, in the same split.",
    """select split, track_id || ': ' || num_rows || ' frames' as text
        from per_track anti join tracks using (split, track_id)""",
)
RULES.query(
    "tracks-have-frames",
    "Every row of tracks has frames in the same split.",
    "select split, track_id as text from tracks anti join per_track using (split, track_id)",
)
RULES.query(
    "frame-counts",
    "n_frames equals the number of frames of the track.",
    """select split, track_id || ': n_frames is ' || n_frames || ', but ' || num_rows ||
            ' frames exist' as text
        from tracks join per_track using (split, track_id) where n_frames <> num_rows""",
)
RULES.query(
    "row-offsets",
    "The frames of a track are consecutive rows; the first is row_offset.",
    """select split, track_id || ': row_offset is ' || row_offset || ', its ' || num_rows ||
            ' frames are rows ' || first_row || ' to ' || last_row as text
        from tracks join per_track using (split, track_id)
        where row_offset <> first_row or last_row - first_row + 1 <> num_rows""",
)
RULES.query(
    "maxima",
    "max_* of a track is the largest logit over its frames.",
    """select split, track_id || ': ' || concat_ws(', ', {maxima}) || ' in tracks, ' ||
            concat_ws(', ', {logits}) || ' in frames' as text
        from tracks join per_track using (split, track_id) where {other_maxima}""",
)
RULES.query(
    "means",
    "mean_* of a track is the mean of the value over its frames.",
    """select split, track_id || ': ' || concat_ws(', ', {means}) || ' in tracks, ' ||
            concat_ws(', ', {values}) || ' in frames' as text
        from tracks join per_track using (split, track_id) where {other_means}""",
)
RULES.query(
    "majority",
    "majority is the emotion that is most often the largest logit of a frame; of several the "
    "first.",
    """select split, track_id || ': ' || majority || ', but most frames show ' ||
            {majority} as text
        from tracks join per_track using (split, track_id)
        where majority is distinct from {majority}""",
)
RULES.rows(
    "labels",
    "label is the emotion with the largest max_*.",
    "tracks",
    "label is distinct from {label}",
    "label || ', but the largest is ' || {label}",
)
RULES.rows(
    "track-ids",
    "track_id is <identity_id>/<video_id>/<track_num>, with track_num in five digits.",
    "tracks",
    "track_num < 0 or track_id <> identity_id || '/' || video_id || '/' || "
    "lpad(track_num::varchar, greatest(5, length(track_num::varchar))::integer, '0')",
    "'the columns are ' || identity_id || ', ' || video_id || ', ' || track_num",
)
RULES.rows(
    "track-splits",
    "The column split of tracks is the split in the file name.",
    "tracks",
    "stated_split <> split",
    "stated_split",
)


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


for _table in ("faces", "embeddings"):
    RULES.check(
        f"{_table}-match-frames", f"{_table} has the same keys as frames, in the same order."
    )(partial(_compare_keys, other=_table))
RULES.query(
    "dropped-apart",
    "No track is in both tracks and dropped, except as a duplicate of a written track.",
    """select '' as split, track_id || ': ' || stage || ': ' || error as text
        from dropped semi join tracks using (track_id) where error <> 'DuplicateTrack'""",
)


@RULES.check("content-hashes", "Content hashes equal those of metadata and manifest.", waits=True)
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


@RULES.check("hdf5-content", "HDF5 and Parquet have the same frames, by content hash.", waits=True)
def hdf5_content(dataset: Inspection) -> Iterator[Example]:
    for split, name in dataset.hdf5_files:
        frames = schema.table_file("frames", split)
        listed, found = listed_hash(dataset.manifest, name) or "missing", dataset.content(name)
        if found != (expected := dataset.content(frames)):
            yield Example(name, f"content hash is {found}, that of {frames} {expected}")
        elif found != listed:
            yield Example(name, f"content hash is {found}, in the manifest {listed}")


@RULES.check("hdf5-tracks", "HDF5 files have the same tracks and attributes as the Parquet files.")
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
