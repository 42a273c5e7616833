"""Rules about keys and time: order, uniqueness, the grid."""

from emovox.validation.rule import ERROR, Family

RULES = Family("keys")

FRAME = "track_id || ' frame ' || frame_index"

RULES.rows(
    "unique-frames",
    ERROR,
    "No two rows of frames have the same track_id and frame_index.",
    table="frames",  # which `sorted-frames` asserts to be sorted: twins stand side by side
    where="track_id = previous_track_id and frame_index = previous_frame_index",
    shows=FRAME,
)
RULES.rows(
    "sorted-frames",
    ERROR,
    "Frames are sorted by track_id and frame_index.",
    table="frames",
    where="track_id < previous_track_id or (track_id = previous_track_id and "
    "frame_index < previous_frame_index)",
    shows=f"{FRAME} || ' comes after ' || previous_track_id || ' frame ' || previous_frame_index",
)
RULES.rows(
    "frame-index",
    ERROR,
    "Frame indices count from 0.",
    table="frames",
    where="frame_index < 0",
    shows=FRAME,
)
RULES.rows(
    "timestamps",
    ERROR,
    "timestamp_ms is step_ms of the manifest times frame_index.",
    table="frames",
    where="timestamp_ms <> {step_ms}::bigint * frame_index",
    shows=f"{FRAME} || ' is at ' || timestamp_ms || ' ms'",
)
RULES.rows(
    "face-times",
    ERROR,
    "Faces of a track are as far apart in time as their grid points, give or take one step.",
    table="faces",
    where="track_id = previous_track_id and abs(pts_ms - previous_pts_ms - {step_ms}::double * "
    "(frame_index::integer - previous_frame_index)) > {step_ms} * 1.001",
    shows=f"{FRAME} || ' is at ' || pts_ms || ' ms, the one before at ' || previous_pts_ms",
)
RULES.query(
    "known-gaps",
    ERROR,
    "No track has more frames, or a later one, than the grid points it has.",
    needs="tracks per_track",
    sql="""select split, track_id || ': ' || n_frames || ' frames up to index ' || last_index ||
            ', ' || n_expected || ' grid points' as text
        from tracks join per_track using (split, track_id)
        where n_frames > n_expected or last_index >= n_expected""",
)
RULES.rows(
    "durations",
    ERROR,
    "Where a track's duration is known, its grid points are those that fit, give or take one.",
    table="tracks",
    where="abs(n_expected - (duration_ms // {step_ms} + 1)) > 1",
    shows="track_id || ': ' || n_expected || ' grid points in ' || duration_ms || ' ms'",
)
RULES.query(
    "unique-tracks",
    ERROR,
    "No two rows of tracks, in any split, have the same track_id.",
    needs="tracks",
    sql="""select max(split) as split, track_id || ': ' || count(*) || ' rows in ' ||
            string_agg(distinct split, ', ' order by split) as text
        from tracks group by track_id having count(*) > 1""",
)
RULES.rows(
    "sorted-tracks",
    ERROR,
    "Tracks are sorted by track_id.",
    table="tracks",
    where="track_id < previous_track_id",
    shows="track_id || ' comes after ' || previous_track_id",
)
