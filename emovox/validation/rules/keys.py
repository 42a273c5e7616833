"""Rules about keys and time: order, uniqueness, the grid."""

from emovox.validation.rule import Family

RULES = Family("keys")

RULES.rows(
    "unique-frames",
    "No two rows of frames have the same track_id and frame_index.",
    # Equal rows are neighbours: `sorted-frames` checks the order.
    "frames",
    "track_id = previous_track_id and frame_index = previous_frame_index",
)
RULES.rows(
    "sorted-frames",
    "Frames are sorted by track_id and frame_index.",
    "frames",
    "track_id < previous_track_id or (track_id = previous_track_id and "
    "frame_index < previous_frame_index)",
    "'follows ' || previous_track_id || ' frame ' || previous_frame_index",
)
RULES.rows("frame-index", "frame_index is not negative.", "frames", "frame_index < 0")
RULES.rows(
    "timestamps",
    "timestamp_ms equals frame_index times step_ms of the manifest.",
    "frames",
    "timestamp_ms <> {step_ms}::bigint * frame_index",
    "timestamp_ms || ' ms'",
)
RULES.rows(
    "face-times",
    "Consecutive faces of a track are as far apart as their grid points, within one step.",
    "faces",
    "track_id = previous_track_id and abs(pts_ms - previous_pts_ms - {step_ms}::double * "
    "(frame_index::integer - previous_frame_index)) > {step_ms} * 1.001",
    "pts_ms || ' ms, previous face at ' || previous_pts_ms || ' ms'",
)
RULES.query(
    "known-gaps",
    "No track has more frames than grid points, or a frame after its last grid point.",
    """select split, track_id || ': ' || n_frames || ' frames, last index ' || last_index ||
            ', ' || n_expected || ' grid points' as text
        from tracks join per_track using (split, track_id)
        where n_frames > n_expected or last_index >= n_expected""",
)
RULES.rows(
    "durations",
    "If duration_ms is known, n_expected matches it within one grid point.",
    "tracks",
    "abs(n_expected - (duration_ms // {step_ms} + 1)) > 1",
    "n_expected || ' grid points in ' || duration_ms || ' ms'",
)
RULES.rows(
    "intervals",
    "start_ms and end_ms are both known or neither, and end_ms - start_ms is duration_ms.",
    "tracks",
    "(start_ms is null) <> (end_ms is null) or end_ms < start_ms or "
    "abs(end_ms - start_ms - duration_ms) > 1",
    "concat('from ', start_ms, ' to ', end_ms, ' ms, ', duration_ms, ' ms long')",
)
RULES.query(
    "unique-tracks",
    "No two rows of tracks, in any split, have the same track_id.",
    """select max(split) as split, track_id || ': ' || count(*) || ' rows in ' ||
            string_agg(distinct split, ', ' order by split) as text
        from tracks group by track_id having count(*) > 1""",
)
RULES.rows(
    "sorted-tracks",
    "Tracks are sorted by track_id.",
    "tracks",
    "track_id < previous_track_id",
    "'follows ' || previous_track_id",
)
