"""Rules about the values of logits and faces, beyond those in SQL."""

from collections import Counter
from collections.abc import Iterator

from emovox.dataset import schema
from emovox.validation.findings import Example, NotApplicableError
from emovox.validation.inspection import Inspection

MAX_SHARE_OF_RARE = 0.2  # of disgust and contempt together


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
