"""Rules about the values of logits and faces."""

from collections import Counter
from collections.abc import Iterator

from emovox.dataset import schema
from emovox.validation.findings import Example, NotApplicableError
from emovox.validation.inspection import Inspection
from emovox.validation.rule import WARNING, Family

RULES = Family("values")

MAX_LOGIT = 100
MAX_SHARE_OF_PROBABILITIES = 0.01
MAX_SHARE_OF_RARE = 0.2  # of disgust and contempt together

SHOW_LOGITS = "concat_ws(', ', {logits})"


@RULES.check("no-nulls", "No value is null, except in columns that may be.")
def no_nulls(dataset: Inspection) -> Iterator[Example]:
    for table, split, name in dataset.tables:
        # Only columns that Parquet declares nullable can contain a null.
        nullable = {field.name for field in dataset.columns(name) if field.nullable}
        for field in dataset.expected(table, name):
            if field.nullable or field.name not in nullable:
                continue
            column = "stated_split" if field.name == "split" else field.name
            sql = f"select row from {table} where split = '{split}' and {column} is null"
            for (row,) in dataset.rows(sql):
                yield Example(name, f"row {row}: {field.name} is null")


RULES.rows("finite-logits", "No logit is NaN or infinite.", "frames", "not ({finite})", SHOW_LOGITS)
RULES.rows(
    "finite-values",
    "No value is NaN or infinite.",
    "frames",
    "not ({finite_values})",
    "concat_ws(', ', {values})",
)
RULES.rows(
    "logit-range",
    f"Every logit is between -{MAX_LOGIT} and {MAX_LOGIT}.",
    "frames",
    f"{{finite}} and ({{largest}} > {MAX_LOGIT} or {{smallest}} < -{MAX_LOGIT})",
    SHOW_LOGITS,
)
RULES.rows(
    "logits-not-probabilities",
    "Logits are raw scores, not probabilities: numbers from 0 to 1 whose sum is 1.",
    "frames",
    "{smallest} >= 0 and abs({sum} - 1) < 1e-3",
    SHOW_LOGITS,
    share=MAX_SHARE_OF_PROBABILITIES,
)
RULES.rows(
    "constant-rows",
    "No frame has equal logits for all emotions.",
    "frames",
    "{largest} = {smallest}",
    SHOW_LOGITS,
    severity=WARNING,
)
RULES.rows(
    "repeated-rows",
    "No frame has exactly the logits of the previous frame of its track.",
    "frames",
    "{repeated} and track_id = previous_track_id",
    severity=WARNING,
)


@RULES.check(
    "emotion-order", "Neutral is the most frequent argmax, disgust and contempt are rare.", WARNING
)
def emotion_order(dataset: Inspection) -> Iterator[Example]:
    emotions = dataset.contract.outputs.emotions
    if not {"neutral", "disgust", "contempt"} <= {*emotions}:
        raise NotApplicableError("the dataset has other emotions")
    counts: Counter[str] = Counter()
    for emotion, num_frames in dataset.rows("select emotion, num_frames from argmax_counts"):
        counts[emotion] += num_frames
    if not counts:
        return
    shares = {emotion: counts[emotion] / counts.total() for emotion in emotions}
    shown = ", ".join(f"{emotion} {share:.1%}" for emotion, share in shares.items())
    if shares["neutral"] < max(shares.values()):
        yield Example(schema.MANIFEST, f"neutral is not the most frequent argmax: {shown}")
    if shares["disgust"] + shares["contempt"] > MAX_SHARE_OF_RARE:
        yield Example(schema.MANIFEST, f"disgust and contempt are frequent: {shown}")


RULES.rows(
    "face-values",
    "Times, boxes, scores and sharpness of faces are finite, boxes have an area, shots a number.",
    "faces",
    "not (isfinite(pts_ms) and isfinite(box_x) and isfinite(box_y) and isfinite(box_w) "
    "and isfinite(box_h) and box_w > 0 and box_h > 0 and isfinite(coalesce(score, 0)) and "
    "isfinite(sharpness) and sharpness >= 0 and shot >= 0)",
    "concat_ws(', ', pts_ms, box_x, box_y, box_w, box_h, score, sharpness, shot)",
)
RULES.query(
    "shots",
    "The faces of a track are of one shot, so probably of one person.",
    """select split, track_id || ': ' || count(distinct shot) || ' shots' as text
        from faces group by split, track_id having min(shot) <> max(shot)""",
    WARNING,
)
