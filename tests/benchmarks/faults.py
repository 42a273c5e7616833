"""Real clips damaged in every way we could think of, built, and held against a strict decode.

    python tests/benchmarks/faults.py --clips VOXCELEB2_FOLDER [--files 1000] [--seed 7]

Copies of real clips are damaged (`KINDS`; half of them have their index moved to the front first),
and `emovox build-dataset` builds from all of them at once. Then the `ffmpeg` program decodes every
file with `-xerror -err_detect explode`, and a naive reading of its frames gives the rows that the
track should have. A violation is

- an exit code other than 0, or a track that is neither written nor dropped;
- a track that a worker had in hand for longer than twice the timeout;
- a written track that the strict decode complains of, however little;
- a row whose grid point, time, sharpness or logits are not those of the strict decode.

Tracks that were dropped although the strict decode says nothing are counted, but are no violation:
emovox is allowed to be the stricter one. H.264 has no checksum: where nothing can be seen of the
damage, the rows are right by definition. With `--keep` the files stay, to look at.
"""

import argparse
import collections
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.dataset.reader import load
from emovox.dataset.store import read_rows
from emovox.media import faces
from emovox.teacher import Teacher, load_teacher

STEP = 0.24  # seconds
POLL = 0.05  # seconds between looks at what the workers have in hand
NESTED = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta")
ABSURD = (0, 1, 2, 7, 8, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
CRITICAL = {  # 4-byte fields of an atom, as offsets from its start: what most depends on
    b"mvhd": (8, 20, 24),
    b"tkhd": (8, 20, 28, 84, 88),
    b"mdhd": (8, 20, 24),
    b"elst": (8, 12, 16, 20, 24),
    b"stsd": (12, 16, 24, 48, 50, 94, 102, 104, 108, 112, 120),
    b"stts": (12, 16, 20),
    b"ctts": (12, 16, 20, 28, 36),
    b"stss": (12, 16),
    b"stsc": (12, 16, 20, 24),
    b"stsz": (12, 16, 20, 24, 60),
    b"stco": (12, 16, 20, 60),
}


# Damage


@dataclass(frozen=True)
class Atom:
    """A box of an MP4 file: where it is, header included."""

    kind: bytes
    start: int
    end: int
    children: tuple["Atom", ...] = ()


def read_atoms(data: bytes, start: int, end: int) -> Iterator[Atom]:
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        assert 8 <= size <= end - start, "the clips themselves are whole"
        inside = tuple(read_atoms(data, start + 8, start + size)) if kind in NESTED else ()
        yield Atom(kind, start, start + size, inside)
        start += size


def families(data: bytes) -> list[tuple[Atom, ...]]:
    """Every group of atoms that lie side by side."""
    groups = [tuple(read_atoms(data, 0, len(data)))]
    for group in groups:
        groups += [atom.children for atom in group if atom.children]
    return groups


def find(data: bytes, kind: bytes) -> list[Atom]:
    return [atom for group in families(data) for atom in group if atom.kind == kind]


def index_first(data: bytes) -> bytes:
    """The same clip with its `moov` before its `mdat`."""
    (moov,), (mdat,) = find(data, b"moov"), find(data, b"mdat")
    assert moov.start > mdat.start
    moved = bytearray(data[moov.start : moov.end])
    for table in find(data, b"stco"):
        place = table.start - moov.start + 16
        count = (table.end - table.start - 16) // 4
        offsets = struct.unpack_from(f">{count}I", moved, place)
        struct.pack_into(f">{count}I", moved, place, *(o + len(moved) for o in offsets))
    return data[: mdat.start] + moved + data[mdat.start : moov.start] + data[moov.end :]


def flip_bits(data: bytes, kind: bytes, most: int, draw: random.Random) -> bytes:
    (atom,) = find(data, kind)
    flipped = bytearray(data)
    for _ in range(round(most ** draw.random())):
        flipped[draw.randrange(atom.start + 8, atom.end)] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def flip_media(data: bytes, draw: random.Random) -> bytes:
    return flip_bits(data, b"mdat", 200, draw)


def flip_index(data: bytes, draw: random.Random) -> bytes:
    return flip_bits(data, b"moov", 20, draw)


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.choice((draw.randrange(len(data)), len(data) - draw.randrange(1, 5000)))]


def overwrite(data: bytes, draw: random.Random) -> bytes:
    size = round(20_000 ** draw.random())
    start = draw.randrange(len(data) - size)
    filler = draw.choice((b"\0" * size, b"\xff" * size, draw.randbytes(size)))
    return data[:start] + filler + data[start + size :]


def lose(data: bytes, draw: random.Random) -> bytes:
    """Leave out a range, so that what follows moves up."""
    size = round(5_000 ** draw.random())
    start = draw.randrange(len(data) - size)
    return data[:start] + data[start + size :]


def swap_ranges(data: bytes, draw: random.Random) -> bytes:
    """Two ranges of the media change places, as blocks of a failing disk do."""
    (mdat,) = find(data, b"mdat")
    size = min(512 * draw.randrange(1, 9), (mdat.end - mdat.start) // 3)
    first = draw.randrange(mdat.start + 8, mdat.end - 2 * size)
    second = draw.randrange(first + size, mdat.end - size)
    a, b = data[first : first + size], data[second : second + size]
    return data[:first] + b + data[first + size : second] + a + data[second + size :]


def swap_atoms(data: bytes, draw: random.Random) -> bytes:
    group = draw.choice([group for group in families(data) if len(group) > 1])
    one, other = sorted(draw.sample(group, 2), key=lambda atom: atom.start)
    between = data[one.end : other.start]
    swapped = data[other.start : other.end] + between + data[one.start : one.end]
    return data[: one.start] + swapped + data[other.end :]


def resized(data: bytes, start: int, end: int, content: bytes) -> bytes:
    """Replace a range by `content`, and correct the sizes of the atoms around it."""
    changed = bytearray(data)
    for group in families(data):
        for atom in group:
            if atom.start < start and end <= atom.end:
                size = atom.end - atom.start + len(content) - (end - start)
                struct.pack_into(">I", changed, atom.start, size)
    return bytes(changed[:start]) + content + bytes(changed[end:])


def repeat_atom(data: bytes, draw: random.Random) -> bytes:
    atom = draw.choice(draw.choice(families(data)))
    return resized(data, atom.end, atom.end, data[atom.start : atom.end])


def remove_atom(data: bytes, draw: random.Random) -> bytes:
    atom = draw.choice(draw.choice(families(data)))
    return resized(data, atom.start, atom.end, b"")


def absurd_header(data: bytes, draw: random.Random) -> bytes:
    """A few fields with values that no file has: sizes, time scales, dimensions, counts."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        if draw.random() < 0.2:
            atom = draw.choice(draw.choice(families(data)))
            place = atom.start
        else:
            kind = draw.choice(tuple(CRITICAL))
            atom = draw.choice(find(data, kind))
            place = atom.start + draw.choice(CRITICAL[kind])
        value = draw.choice((*ABSURD, draw.randrange(2**32), draw.randrange(2**12)))
        if place + 4 <= len(changed):
            struct.pack_into(">I", changed, place, value)
    return bytes(changed)


def concatenate(data: bytes, draw: random.Random) -> bytes:
    first = data[: draw.choice((len(data), draw.randrange(len(data))))]
    second = data[draw.choice((0, draw.randrange(len(data)))) :]
    return first + second


def no_video(data: bytes, draw: random.Random) -> bytes:
    size = round(100_000 ** draw.random())
    garbage = draw.randbytes(size)
    return draw.choice((b"", garbage, b"\0" * size, data[:40] + garbage, b"<html></html>" * 50))


KINDS: dict[Callable[[bytes, random.Random], bytes], int] = {  # and how often
    flip_media: 20,
    flip_index: 15,
    cut: 8,
    overwrite: 12,
    lose: 6,
    swap_ranges: 6,
    swap_atoms: 7,
    repeat_atom: 6,
    remove_atom: 6,
    absurd_header: 18,
    concatenate: 4,
    no_video: 3,
}


def write_corpus(clips: Path, root: Path, count: int, seed: int) -> dict[str, str]:
    """Write damaged clips in VoxCeleb2's layout; return the kind of damage by `track_id`."""
    draw = random.Random(seed)
    sources = [path.read_bytes() for path in sorted(clips.glob("mp4/*/*/*.mp4"))]
    if not sources:
        raise SystemExit(f"{clips}: no mp4/<id>/<video>/<n>.mp4")
    kinds: dict[str, str] = {}
    for number in range(count):
        (damage,) = draw.choices(tuple(KINDS), weights=tuple(KINDS.values()))
        source = draw.randrange(len(sources))
        data = sources[source]
        if draw.random() < 0.5:
            data = index_first(data)
        name = damage.__name__.replace("_", "-")
        track_id = f"{name}/clip{source:02d}/{number:05d}"
        path = root / "mp4" / f"{track_id}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(damage(data, draw))
        kinds[track_id] = name
    return kinds


# The build


def build(root: Path, out: Path, timeout: float) -> tuple[int, float, dict[str, float]]:
    """Build as a user does.

    Returns:
        Exit code, seconds, and for how long each track was seen in the hands of a worker.
    """
    command = [sys.executable, "-m", "emovox", "build-dataset", "--layout", "voxceleb2"]
    command += ["--root", str(root), "--out", str(out), "--timeout", str(timeout)]
    command += ["--max-dropped", "1", "--precision", "fp32"]
    started = time.monotonic()
    folder = out.parent / "temporary"  # where the workers write down what they have in hand
    folder.mkdir()
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(folder)})
    in_hand: dict[Path, tuple[str, float]] = {}
    longest: dict[str, float] = collections.defaultdict(float)
    while process.poll() is None:
        for journal in folder.glob("emovox-*/track-*"):
            try:
                track_id = journal.read_text("utf-8").rpartition("\0")[2]
            except OSError:
                continue
            if journal not in in_hand or in_hand[journal][0] != track_id:
                in_hand[journal] = track_id, time.monotonic()
            spent = time.monotonic() - in_hand[journal][1]
            longest[track_id] = max(longest[track_id], spent)
        time.sleep(POLL)
    return process.returncode, time.monotonic() - started, longest


# What the rows should be

# What ffmpeg says of the second stream, which is the sound, and its decoder.
OF_SOUND = r"\[aac @|\[(mov|in#).*?\] stream 1, "


@dataclass(frozen=True)
class Decoded:
    """Result of the program ffmpeg for a file.

    Attributes:
        complaint: the first line of its errors; empty if there are none.
        times: seconds of the frames, as the file has them.
        frames: the file of the frames, one PPM after the other.
    """

    complaint: str
    times: tuple[float, ...] = ()
    frames: bytes = b""


def decode_strictly(path: Path, program: str, limit: float) -> Decoded:
    """Every frame of a file with the ffmpeg program, which is to stop at the first error."""
    with tempfile.NamedTemporaryFile("r") as times_file:
        # The last filter prints the times of frames that have metadata, so they are given some.
        filters = "settb=1/1000000,metadata=add:key=a:value=b,scale=flags=bilinear,"
        # Then they get other times, for the writer of the pictures would mind if some were equal.
        filters += f"format=rgb24,metadata=print:file={times_file.name},settb=1/25,setpts=N"
        command = [program, "-v", "error", "-nostdin", "-xerror", "-err_detect", "explode"]
        # Without decoding times, lest it puts them in the place of presentation times it distrusts.
        command += ["-noautorotate", "-copyts", "-fflags", "+igndts", "-threads", "1"]
        command += ["-i", str(path), "-map", "0:v:0"]
        command += ["-vf", filters, "-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm"]
        command += ["-enc_time_base", "1:25"]
        try:
            done = subprocess.run(
                [*command, "-fs", "1G", "-"], capture_output=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            return Decoded("took too long")
        lines = [
            line
            for line in done.stderr.decode(errors="replace").splitlines()
            if not re.match(OF_SOUND, line)
        ]
        if done.returncode or lines:
            complaint = lines[0] if lines else f"exit code {done.returncode}"
            return Decoded(re.sub(r"^\[.*?\] ", "", complaint).replace(str(path), "FILE"))
        words = [line.split() for line in times_file if "pts_time:" in line]
    return Decoded("", tuple(int(w[1].removeprefix("pts:")) / 1e6 for w in words), done.stdout)


def read_pictures(ppm: bytes) -> Iterator[np.ndarray]:
    place = 0
    while place < len(ppm):
        magic, width, height, depth = ppm[place : place + 40].split(maxsplit=4)[:4]
        place += len(b" ".join((magic, width, height, depth))) + 1
        shape = (int(height), int(width), 3)
        yield np.frombuffer(ppm, np.uint8, int(np.prod(shape)), place).reshape(shape)
        place += int(np.prod(shape))


def nearest_frames(times: Sequence[float]) -> Iterator[tuple[int, int]]:
    """For every grid point look at every frame: `(grid index, frame)`."""
    shown = [i for i, t in enumerate(times) if all(t > earlier for earlier in times[:i])]
    moments = np.array([times[i] - times[0] for i in shown])
    last = moments[-1] + (moments[-1] - moments[-2]) / 2 if len(moments) > 1 else 0.0
    for index in range(int(last / STEP + 1e-6) + 1):
        distances = np.abs(moments - index * STEP)
        best = int(np.argmax(distances <= distances.min() + 1e-6 * STEP))
        away = (moments[best] - index * STEP) / STEP
        if -0.5 + 1e-6 < away <= 0.5 + 1e-6:
            yield index, shown[best]


def expected_rows(decoded: Decoded, teacher: Teacher) -> list[tuple[float, ...]]:
    """Grid index, time in milliseconds, sharpness and eight logits of every row of a track."""
    rows: list[tuple[float, ...]] = []
    crops: list[np.ndarray] = []
    pictures = list(read_pictures(decoded.frames))
    assert len(pictures) == len(decoded.times)
    for index, number in nearest_frames(decoded.times):
        height, width = pictures[number].shape[:2]
        box = faces.voxceleb2_box(width, height)
        if faces.is_visible(box, width, height):
            face = faces.cut(pictures[number], faces.square(box))
            crops.append(faces.resize(face, teacher.input_size))
            rows.append((index, 1000 * decoded.times[number], faces.sharpness(face)))
    logits = teacher(np.stack(crops)).tolist() if crops else []
    return [(*row, *values) for row, values in zip(rows, logits, strict=True)]


def written_rows(out: Path) -> dict[str, list[tuple[float, ...]]]:
    """The same of every track of the dataset."""
    rows: dict[str, list[tuple[float, ...]]] = collections.defaultdict(list)
    for split in load(out).splits:
        where, what = (read_rows(out / schema.table_file(t, split)) for t in ("faces", "frames"))
        columns = [where["track_id"], where["frame_index"], where["pts_ms"], where["sharpness"]]
        for values in zip(*(c.to_pylist() for c in columns), *logit_lists(what), strict=True):
            rows[values[0]].append(values[1:])
    return rows


def logit_lists(frames: pa.Table) -> list[list[float]]:
    return [frames[name].to_pylist() for name in schema.EIGHT.logits]


def difference(rows: list[tuple[float, ...]], expected: list[tuple[float, ...]]) -> str:
    """Return the fault of the rows of a track; empty if there is none."""
    if [row[0] for row in rows] != [row[0] for row in expected]:
        return f"{len(rows)} rows at other grid points than the {len(expected)} expected"
    mine, right = np.array(rows), np.array(expected)
    for name, columns, relative, absolute in (
        ("time", slice(1, 2), 0.0, 2e-3),
        ("sharpness", slice(2, 3), 1e-5, 1e-6),
        ("logits", slice(3, None), 0.0, 1e-3),
    ):
        if not np.allclose(mine[:, columns], right[:, columns], relative, absolute):
            worst = np.abs(mine[:, columns] - right[:, columns]).max()
            return f"{name} differs by up to {worst:g}"
    return ""


# The report


@dataclass
class Tally:
    """Outcomes of the files of one kind of damage."""

    files: int = 0
    written: int = 0
    overstrict: int = 0
    violations: int = 0
    reasons: collections.Counter[str] = field(default_factory=collections.Counter)


def check(
    root: Path, out: Path, kinds: Mapping[str, str], program: str, limit: float
) -> tuple[dict[str, Tally], list[str]]:
    """Hold a finished build against the strict decode of every file."""
    teacher = load_teacher("compact", "cpu", "fp32")
    rows = written_rows(out)
    dropped = {row["track_id"]: row for row in pq.read_table(out / schema.DROPPED_FILE).to_pylist()}
    tallies: dict[str, Tally] = collections.defaultdict(Tally)
    violations = [f"{track_id}: not a track of the corpus" for track_id in rows.keys() - kinds]

    def decode(track_id: str) -> Decoded:
        return decode_strictly(root / "mp4" / f"{track_id}.mp4", program, limit)

    with ThreadPoolExecutor(2) as pool:
        for track_id, decoded in zip(kinds, pool.map(decode, kinds), strict=True):
            tally = tallies[kinds[track_id]]
            tally.files += 1
            wrong = ""
            if track_id in rows:
                tally.written += 1
                wrong = decoded.complaint or difference(
                    rows[track_id], expected_rows(decoded, teacher)
                )
            if track_id in dropped:
                reason = dropped[track_id]
                tally.reasons[f"{reason['stage']}: {reason['error']}"] += 1
                if not decoded.complaint:
                    tally.overstrict += 1
                    print("stricter:", track_id, reason["error"], reason["message"], flush=True)
            if (track_id in rows) + (track_id in dropped) != 1:
                wrong = "not exactly one of written and dropped"
            if wrong:
                tally.violations += 1
                violations.append(f"{track_id}: {wrong}")
    return tallies, violations


def show(tallies: Mapping[str, Tally]) -> None:
    print("\n| damage | files | written | dropped | stricter than ffmpeg | violations |")
    print("|---|---:|---:|---|---:|---:|")
    total = Tally()
    for tally in tallies.values():
        for name in ("files", "written", "overstrict", "violations"):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
        total.reasons += tally.reasons
    for name, tally in [*sorted(tallies.items()), ("all", total)]:
        reasons = ", ".join(f"{n} {why}" for why, n in tally.reasons.most_common())
        counts = f"{tally.overstrict} | {tally.violations}"
        print(f"| {name} | {tally.files} | {tally.written} | {reasons} | {counts} |")


def run(arguments: argparse.Namespace, folder: Path) -> int:
    root, out = folder / "corpus", folder / "out"
    kinds = write_corpus(arguments.clips, root, arguments.files, arguments.seed)
    code, seconds, longest = build(root, out, arguments.timeout)
    slowest = max(longest.values(), default=0.0)
    print(f"exit code {code} after {seconds:.0f} s; longest track: {slowest:.1f} s")
    if code:
        return 1
    started = time.monotonic()
    program = arguments.ffmpeg or imageio_ffmpeg.get_ffmpeg_exe()
    tallies, violations = check(root, out, kinds, program, 10 * arguments.timeout)
    limit = 2 * arguments.timeout + 2 * POLL
    violations += [f"{t}: took {s:.1f} s" for t, s in longest.items() if s > limit]
    show(tallies)
    print(f"\n{len(violations)} violations; checked in {time.monotonic() - started:.0f} s")
    print("\n".join(violations))
    return 1 if violations else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="folder with mp4/<id>/<video>/")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds per track")
    parser.add_argument("--ffmpeg", help="the strict decoder; by default that of imageio-ffmpeg")
    parser.add_argument("--keep", type=Path, help="folder for the damaged files and the dataset")
    arguments = parser.parse_args()
    if arguments.keep:
        raise SystemExit(run(arguments, arguments.keep))
    with tempfile.TemporaryDirectory() as folder:
        raise SystemExit(run(arguments, Path(folder)))


if __name__ == "__main__":
    main()
