"""Time to import the published annotations, against `scipy.io.loadmat` alone.

    python tests/benchmarks/import_mat.py [--scale 1.0] [--keep FOLDER]

Writes a synthetic file of the true size and shape: 153,486 tracks of 1,251 people, 5,078,961 face
images with their paths, 134 tracks without frames, 1,217 images of no track; MAT level 5,
compressed. Then, each in a process of its own: `emovox import-mat`, and `loadmat`. Prints wall
seconds and peak memory of both, and compares every logit of the dataset with what was written.
"""

import argparse
import itertools
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq

NUM_TRACKS, NUM_IDENTITIES, NUM_IMAGES = 153_486, 1_251, 5_078_961
NUM_EMPTY, NUM_UNCLAIMED, MOST_FRAMES = 134, 1_217, 83
HEARD, UNHEARD = 4_505, 30_496
MI_INT8, MI_INT32, MI_UINT16, MI_UINT32, MI_SINGLE, MI_DOUBLE, MI_MATRIX = 1, 5, 4, 6, 7, 9, 14
MX_CELL, MX_STRUCT, MX_CHAR, MX_DOUBLE, MX_SINGLE = 1, 2, 4, 6, 7


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def head(kind: int, dims: tuple[int, int], name: str = "") -> bytes:
    flags = element(MI_UINT32, struct.pack("<II", kind, 0))
    return flags + element(MI_INT32, struct.pack("<ii", *dims)) + element(MI_INT8, name.encode())


def matrix(body: bytes) -> bytes:
    return struct.pack("<II", MI_MATRIX, len(body)) + body


def numbers(values: np.ndarray) -> bytes:
    """A numeric array; singles stay singles."""
    single = values.dtype == np.float32
    kind, stored = (MX_SINGLE, MI_SINGLE) if single else (MX_DOUBLE, MI_DOUBLE)
    data = element(stored, values.tobytes(order="F"))
    return matrix(head(kind, values.shape) + data)  # type: ignore[arg-type]


def texts(strings: np.ndarray) -> bytes:
    """Cells of strings that are all equally long, as MATLAB writes them: two bytes a character."""
    length = len(strings[0])
    empty = head(MX_CHAR, (1, length)) + element(MI_UINT16, b"\0" * 2 * length)
    record = np.frombuffer(matrix(empty), np.uint8)
    records = np.tile(record, (len(strings), 1))
    letters = np.frombuffer("".join(strings).encode("utf-16-le"), np.uint8)
    start = len(record) - len(element(MI_UINT16, b"\0" * 2 * length)) + 8
    records[:, start : start + 2 * length] = letters.reshape(len(strings), 2 * length)
    return records.tobytes()


def write_variable(
    path: Path, pieces: list[bytes] | Iterator[bytes], size: int, top: bytes
) -> None:
    """Append one compressed variable whose body has `size` bytes after `top`."""
    with path.open("ab") as file:
        start = file.tell()
        file.write(struct.pack("<II", 15, 0))
        packer = zlib.compressobj(1)
        file.write(packer.compress(struct.pack("<II", MI_MATRIX, len(top) + size) + top))
        for piece in pieces:
            file.write(packer.compress(piece))
        file.write(packer.flush())
        end = file.tell()
    with path.open("rb+") as file:
        file.seek(start + 4)
        file.write(struct.pack("<I", end - start - 8))


def write(folder: Path, scale: float) -> tuple[Path, np.ndarray, np.ndarray]:
    """Write the file and vox1_meta.csv; return the path, the logits and the frames per track."""
    rng = np.random.default_rng(0)
    num_tracks = int(NUM_TRACKS * scale)
    num_empty, unclaimed = int(NUM_EMPTY * scale), int(NUM_UNCLAIMED * scale)
    num_rows = int(NUM_IMAGES * scale) - unclaimed
    counts = np.clip(rng.normal(33, 12, num_tracks).astype(int), 16, MOST_FRAMES)
    counts[rng.choice(num_tracks, num_empty, replace=False)] = 0
    filled = np.flatnonzero(counts)
    while difference := num_rows - counts.sum():
        chosen = rng.choice(filled, min(abs(difference), len(filled)), replace=False)
        counts[chosen] += np.sign(difference)
        counts[filled] = np.clip(counts[filled], 1, MOST_FRAMES)
    logits = rng.normal(0, 3, (num_rows, 8)).astype(np.float32)
    people = np.sort(np.arange(num_tracks) % NUM_IDENTITIES)
    names = [f"Person_{i:04d}_Of_Many" for i in range(NUM_IDENTITIES)]
    meta = ["VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"]
    meta += [f"id{10001 + i}\t{name}\tm\tNowhere\tdev" for i, name in enumerate(names)]
    (folder / "vox1_meta.csv").write_text("\n".join(meta))

    path = folder / "senet50-ferplus-logits.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H2s", 0x0100, b"IM"))
    starts = np.concatenate([[0], counts.cumsum()])
    cells = [
        numbers(logits[a:b]) if a < b else matrix(head(MX_DOUBLE, (0, 0)) + element(MI_DOUBLE, b""))
        for a, b in itertools.pairwise(starts)
    ]
    write_variable(path, cells, sum(map(len, cells)), head(MX_CELL, (1, num_tracks), "wavLogits"))

    videos = [f"v{i:010d}" for i in range(num_tracks)]
    tracks = [f"{names[p]}/train/{v}_0000001.wav" for p, v in zip(people, videos, strict=True)]
    ids = np.arange(1.0, num_tracks + 1)[None]
    sets = np.ones((1, num_tracks))
    unheard = people >= NUM_IDENTITIES - 250
    sets[0, unheard] = 2
    sets[0, np.flatnonzero(~unheard)[:: max(1, (~unheard).sum() // int(HEARD * scale))]] = 3
    owners = np.repeat(np.arange(1, num_tracks + 1), counts)
    wav_ids = np.concatenate([owners, np.zeros(unclaimed)]).astype(np.float32)[:, None]
    track_of_image = np.concatenate([np.repeat(np.arange(num_tracks), counts), [0] * unclaimed])
    number = np.arange(num_rows) - np.repeat(starts[:-1], counts) + 1
    number = np.concatenate([number, np.ones(unclaimed, int)])
    folders = np.array(
        [f"{names[p]}/1.6/{v}/0000001/" for p, v in zip(people, videos, strict=True)]
    )
    endings = np.array([f"{i:02d}.jpg" for i in range(MOST_FRAMES + 1)])

    def paths() -> Iterator[bytes]:
        for start in range(0, len(number), 100_000):
            part = slice(start, start + 100_000)
            yield texts(np.char.add(folders[track_of_image[part]], endings[number[part]]))

    record = len(texts(np.array([folders[0] + endings[1]])))
    frames_top = head(MX_CELL, (len(number), 1))
    frames_size = len(frames_top) + record * len(number)
    name_cells = texts(np.array(tracks))
    fields = ["name", "id", "set", "denseFramesWavIds", "denseFrames"]
    top = head(MX_STRUCT, (1, 1), "images") + struct.pack("<HHi", MI_INT32, 4, 32)
    top += element(MI_INT8, b"".join(f.encode().ljust(32, b"\0") for f in fields))
    first = [
        matrix(head(MX_CELL, (1, num_tracks)) + name_cells),
        numbers(ids),
        numbers(sets),
        numbers(wav_ids),
        struct.pack("<II", MI_MATRIX, frames_size) + frames_top,
    ]

    def body() -> Iterator[bytes]:
        yield from first
        yield from paths()

    size = sum(map(len, first)) + record * len(number)
    write_variable(path, body(), size, top)
    return path, logits, counts


def measure(command: list[str]) -> tuple[float, float, str]:
    """Wall seconds, peak memory in MiB and output of a command."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
        except psutil.Error:
            break
        time.sleep(0.02)
    output = process.communicate()[0]
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return time.perf_counter() - started, peak / 2**20, output


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--keep", type=Path, help="write there instead of to a temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        path, logits, counts = write(folder, args.scale)
        print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB")
        out = folder / "dataset"
        emovox = [sys.executable, "-m", "emovox", "import-mat", str(path), "--out", str(out)]
        seconds, peak, output = measure([*emovox, "--meta", str(folder)])
        print(output)
        loading = f"import scipy.io; scipy.io.loadmat({str(path)!r})"
        other_seconds, other_peak, _ = measure([sys.executable, "-c", loading])
        print(f"emovox import-mat, tables written   {seconds:6.1f} s {peak:8.0f} MiB")
        print(f"scipy.io.loadmat alone              {other_seconds:6.1f} s {other_peak:8.0f} MiB")
        compare(out, logits, counts)


def compare(out: Path, logits: np.ndarray, counts: np.ndarray) -> None:
    """Exit with an error unless the dataset holds every logit, at the right track."""
    starts = np.concatenate([[0], counts.cumsum()])
    total = 0
    for table in sorted((out / "frames").glob("*.parquet")):
        frames = pq.read_table(table)
        columns = [frames[name].to_numpy() for name in frames.column_names[3:]]
        video = np.array([int(x.split("/")[1][1:]) for x in frames["track_id"].to_pylist()])
        rows = starts[video] + frames["frame_index"].to_numpy()
        if not np.array_equal(np.stack(columns, axis=1), logits[rows]):
            sys.exit(f"{table}: values differ")
        total += len(rows)
    if total != len(logits):
        sys.exit(f"{total:,} rows, of {len(logits):,} written")
    print(f"{total:,} rows equal to what was written, of {len(logits):,}")


if __name__ == "__main__":
    main()
