"""Rules about numbers: what logits, faces and their rows may be."""

from collections import Counter
from collections.abc import Iterator

from emovox.dataset import schema
from emovox.emotions import EMOTIONS
from emovox.validation.inspection import Inspection
from emovox.validation.rule import ERROR, WARNING, Example, Family, file_of

RULES = Family("values")

MAX_LOGIT = 100
MAX_SHARE_OF_PROBABILITIES = 0.01
MAX_SHARE_OF_RARE = 0.2  # of disgust and contempt together

LARGEST = f"greatest({', '.join(schema.LOGITS)})"
SMALLEST = f"least({', '.join(schema.LOGITS)})"
FINITE = " and ".join(f"isfinite({name})" for name in schema.LOGITS)
SUM = " + ".join(schema.LOGITS)
REPEATED = " and ".join(f"{name} = previous_{name}" for name in schema.LOGITS)
FRAME = "track_id || ' frame ' || frame_index"
LOGITS = f"{FRAME} || ': ' || concat_ws(', ', {', '.join(schema.LOGITS)})"


@RULES.check("no-nulls", ERROR, "No value is null, apart from duration_ms and score.")
def no_nulls(dataset: Inspection) -> Iterator[Example]:
    for table, split, name in dataset.tables():
        found = dataset.footer(name).schema.to_arrow_schema()
        # A column that Parquet itself declares free of nulls cannot hold one.
        for field in schema.SCHEMAS[table]:
            if (
                field.nullable
                or field.name not in found.names
                or not found.field(field.name).nullable
            ):
                continue
            column = "stated_split" if field.name == "split" else field.name
            sql = f"select row from {table} where split = '{split}' and {column} is null"
            for (row,) in dataset.rows(sql, [table]):
                yield Example(file_of(table, split), f"row {row}: {field.name} is null")


RULES.rows(
    "finite-logits",
    ERROR,
    "No logit is NaN or infinite.",
    table="frames",
    where=f"not ({FINITE})",
    shows=LOGITS,
)
RULES.rows(
    "logit-range",
    ERROR,
    f"Every logit is within +-{MAX_LOGIT}.",
    table="frames",
    where=f"{FINITE} and ({LARGEST} > {MAX_LOGIT} or {SMALLEST} < -{MAX_LOGIT})",
    shows=LOGITS,
)
RULES.rows(
    "logits-not-probabilities",
    ERROR,
    "Logits are raw: not eight numbers from 0 to 1 whose sum is 1.",
    table="frames",
    where=f"{SMALLEST} >= 0 and abs({SUM} - 1) < 1e-3",
    shows=LOGITS,
    share=MAX_SHARE_OF_PROBABILITIES,
)
RULES.rows(
    "constant-rows",
    WARNING,
    "No frame has eight equal logits.",
    table="frames",
    where=f"{LARGEST} = {SMALLEST}",
    shows=LOGITS,
)
RULES.rows(
    "repeated-rows",
    WARNING,
    "No frame has exactly the logits of the one before it in the track.",
    table="frames",
    where=f"{REPEATED} and track_id = previous_track_id",
    shows=FRAME,
)


def frames_by_dominant(dataset: Inspection) -> dict[str, Counter[str]]:
    """Frames of each split by the emotion with the largest logit; of several, the first."""

    def count() -> dict[str, Counter[str]]:
        cases = " ".join(f"when logit_{e} = largest then '{e}'" for e in EMOTIONS)
        counts: dict[str, Counter[str]] = {}
        for split, emotion, num_frames in dataset.rows(
            f"select split, case {cases} end as dominant, count(*) "
            f"from (select *, {LARGEST} as largest from frames) group by split, dominant",
            ["frames"],
        ):
            counts.setdefault(split, Counter())[emotion] = num_frames
        return counts

    return dataset.once("frames by dominant", count)


@RULES.check(
    "emotion-order", WARNING, "Neutral is the most frequent argmax; disgust and contempt are rare."
)
def emotion_order(dataset: Inspection) -> Iterator[Example]:
    counts: Counter[str] = Counter()
    for dominant in frames_by_dominant(dataset).values():
        counts.update(dominant)
    shares = {e: counts[e] / max(counts.total(), 1) for e in EMOTIONS}
    shown = ", ".join(f"{emotion} {share:.1%}" for emotion, share in shares.items())
    if not counts:
        return
    if shares["neutral"] < max(shares.values()):
        yield Example(schema.MANIFEST, f"neutral is not the most frequent argmax: {shown}")
    if shares["disgust"] + shares["contempt"] > MAX_SHARE_OF_RARE:
        yield Example(schema.MANIFEST, f"disgust and contempt are frequent: {shown}")


RULES.rows(
    "face-values",
    ERROR,
    "Times, boxes, scores and sharpness of faces are finite, boxes have an area.",
    table="faces",
    where="not (isfinite(pts_ms) and isfinite(box_x) and isfinite(box_y) and isfinite(box_w) and "
    "isfinite(box_h) and box_w > 0 and box_h > 0 and isfinite(coalesce(score, 0)) and "
    "isfinite(sharpness) and sharpness >= 0)",
    shows=f"{FRAME} || ': ' || "
    "concat_ws(', ', pts_ms, box_x, box_y, box_w, box_h, score, sharpness)",
)
