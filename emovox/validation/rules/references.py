"""Rules about what tables, containers and hashes say of each other."""

from collections.abc import Iterator

from emovox.dataset import schema
from emovox.emotions import EMOTIONS
from emovox.validation import hdf5
from emovox.validation.inspection import Inspection
from emovox.validation.rule import ERROR, Example, Family, NotApplicableError, UnavailableError

RULES = Family("references")

MAXIMA = ", ".join(schema.MAXIMA)
NAMES = ", ".join(f"'{emotion}'" for emotion in EMOTIONS)
LABEL = f"list_extract([{NAMES}], list_position([{MAXIMA}], greatest({MAXIMA})))"
OTHER_MAXIMA = " or ".join(
    f"max_{emotion} is distinct from logit_{emotion}" for emotion in EMOTIONS
)

RULES.query(
    "frames-have-tracks",
    ERROR,
    "Every track_id in frames is a row of tracks in the same split.",
    needs="frames per_track tracks",
    sql="""select split, track_id || ': ' || num_rows || ' frames' as text
        from per_track anti join tracks using (split, track_id)""",
)
RULES.query(
    "tracks-have-frames",
    ERROR,
    "Every row of tracks has frames in the same split.",
    needs="tracks per_track",
    sql="select split, track_id as text from tracks anti join per_track using (split, track_id)",
)
RULES.query(
    "frame-counts",
    ERROR,
    "n_frames is the number of a track's frames.",
    needs="tracks per_track",
    sql="""select split, track_id || ': n_frames is ' || n_frames || ', there are ' || num_rows
            as text
        from tracks join per_track using (split, track_id) where n_frames <> num_rows""",
)
RULES.query(
    "row-offsets",
    ERROR,
    "A track's frames are the rows from its row_offset on, without another's between them.",
    needs="tracks per_track",
    sql="""select split, track_id || ': row_offset is ' || row_offset || ', its ' || num_rows ||
            ' frames are rows ' || first_row || ' to ' || last_row as text
        from tracks join per_track using (split, track_id)
        where row_offset <> first_row or last_row - first_row + 1 <> num_rows""",
)
RULES.query(
    "maxima",
    ERROR,
    "max_* of a track is the largest logit over its frames.",
    needs="tracks per_track",
    sql=f"""select split, track_id || ': ' || concat_ws(', ', {MAXIMA}) || ' in tracks, ' ||
            concat_ws(', ', {", ".join(schema.LOGITS)}) || ' in frames' as text
        from tracks join per_track using (split, track_id) where {OTHER_MAXIMA}""",
)
RULES.rows(
    "labels",
    ERROR,
    "label is the emotion whose max_* is the largest.",
    table="tracks",
    where=f"label is distinct from {LABEL}",
    shows=f"track_id || ': ' || label || ', the largest is ' || {LABEL}",
)
RULES.rows(
    "track-ids",
    ERROR,
    "track_id is <identity_id>/<video_id>/<track_num>, the number with five digits.",
    table="tracks",
    where="track_num < 0 or track_id <> identity_id || '/' || video_id || '/' || "
    "lpad(track_num::varchar, greatest(5, length(track_num::varchar))::integer, '0')",
    shows="track_id || ': of ' || identity_id || ', ' || video_id || ', ' || track_num",
)
RULES.rows(
    "track-splits",
    ERROR,
    "The column split of tracks is the split that the file is of.",
    table="tracks",
    where="stated_split <> split",
    shows="track_id || ': ' || stated_split",
)


def _face_keys(dataset: Inspection) -> str:
    there = [name for table, _, name in dataset.tables() if table == "faces"]
    if not there:
        raise NotApplicableError("the dataset has no table of faces")
    return " union all ".join(
        f"""select '{split}' as split, concat('row ', row, ': ', track_id, ' frame ', frame_index,
            ' in frames, ', face_id, ' frame ', face_index, ' in faces') as text
        from (select row, track_id, frame_index from frames_{split}) positional join
            (select track_id as face_id, frame_index as face_index from faces_{split})
        where track_id is distinct from face_id or frame_index is distinct from face_index"""
        for split in dataset.splits
    )


RULES.query(
    "faces-match-frames",
    ERROR,
    "faces has the rows of frames: the same keys in the same order.",
    needs="faces frames",
    sql=_face_keys,
)
RULES.query(
    "dropped-apart",
    ERROR,
    "No track is both written and dropped, unless as another copy of one that was written.",
    needs="dropped tracks",
    sql="""select '' as split, track_id || ': ' || stage || ': ' || error as text
        from dropped semi join tracks using (track_id) where error <> 'DuplicateTrack'""",
)


@RULES.check(
    "content-hashes",
    ERROR,
    "The hash of the values is that of the file's metadata and of the manifest.",
    waits=True,
)
def content_hashes(dataset: Inspection) -> Iterator[Example]:
    entries = dataset.entries()
    for _, _, name in dataset.tables():
        try:
            found = dataset.content(name)
        except UnavailableError:
            continue  # `readable` says so
        stated = (dataset.footer(name).metadata or {}).get(b"emovox.content_sha256", b"none")
        listed = entries.get(name, {}).get("content_sha256")
        if found != stated.decode("utf-8", "replace"):
            yield Example(name, f"values hash to {found}, the metadata says {stated.decode()}")
        if found != listed:
            yield Example(name, f"values hash to {found}, the manifest says {listed}")


@RULES.check(
    "hdf5-content", ERROR, "HDF5 files hold the frames of the Parquet files, by hash.", waits=True
)
def hdf5_content(dataset: Inspection) -> Iterator[Example]:
    entries = dataset.entries()
    for split, name in _hdf5_files(dataset):
        found, wanted = dataset.content(name), dataset.content(schema.table_file("frames", split))
        listed = entries.get(name, {}).get("content_sha256")
        if found != wanted:
            yield Example(name, f"values hash to {found}, those in Parquet to {wanted}")
        elif found != listed:
            yield Example(name, f"values hash to {found}, the manifest says {listed}")


@RULES.check(
    "hdf5-tracks", ERROR, "HDF5 files list the tracks and attributes of the Parquet files."
)
def hdf5_tracks(dataset: Inspection) -> Iterator[Example]:
    for split, name in _hdf5_files(dataset):
        stored = hdf5.read_tracks(dataset.root / name)
        for column, values in stored.items():
            sql = f"select {column} from tracks_{split} order by row"
            if values != [value for (value,) in dataset.rows(sql, ["tracks"])]:
                yield Example(name, f"{column} of its tracks differ from those of the table tracks")
        metadata = dataset.footer(schema.table_file("frames", split)).metadata or {}
        attributes = hdf5.read_attributes(dataset.root / name)
        for key in schema.file_metadata("", split, ""):
            if attributes.get(key) != metadata.get(key.encode(), b"").decode("utf-8", "replace"):
                yield Example(name, f"attribute {key} is {attributes.get(key)!r}")


def _hdf5_files(dataset: Inspection) -> list[tuple[str, str]]:
    named = [(split, schema.hdf5_file(split)) for split in dataset.splits]
    there = [(split, name) for split, name in named if (dataset.root / name).is_file()]
    if not there:
        raise NotApplicableError("the dataset has no HDF5 files")
    return there
