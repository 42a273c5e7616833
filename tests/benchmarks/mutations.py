"""Mutated copies of a dataset, each given to a command: no traceback, no hang, bounded memory.

    python tests/benchmarks/mutations.py DATASET [--number 300] [--seed 7] [--command validate]

DATASET is a dataset with pictures and HDF5 files (`emovox build-dataset --hdf5`). Each copy has one
mutation (`MUTATIONS`) of one of its files. In every second copy the manifest and SHA256SUMS are
then made to fit the mutated file, as an attacker would do, so that the damage is met behind the
checksums; such a copy may be valid. A violation is

- a traceback, a signal, or an exit code other than 1 and 2 (0 is allowed where the hashes fit, and
  for `report`, which does not compare them);
- more than 60 s, or more than 1 GB of resident memory;
- in the output, an escape character or a line that a CI service would take for a command;
- content of a file outside the dataset in the output.

With `--keep` the copies with violations stay, to look at.
"""

import argparse
import collections
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MAX_SECONDS = 60
MAX_MEMORY = 10**9  # bytes
MAX_ADDRESSES = 8 * 10**9  # bytes; keeps a fault from taking the machine's memory
SECRET = "content-of-a-file-outside-the-dataset"
DEEP = 100_000  # levels of nesting
ABSURD: tuple[Any, ...] = (
    *(None, True, -1, 0, 0.5, 2**31, 2**63, 10**400, float("nan"), float("inf"), "", [], {}, [[]]),
    *(
        "../../secret",
        "/etc/passwd",
        "s3://bucket/x",
        "a\x1b[31mb",
        "a\n::error::b",
        "\ud800",
        "\0",
    ),
    *("a" * 10**6, ["a"] * 10**5, {"a": {"b": {}}}),
)

Mutation = Callable[[Path, random.Random], None]


# Bytes of any file


def flip_bits(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(round(200 ** draw.random())):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def flip_end(path: Path, draw: random.Random) -> None:
    """Flip bits of the last kilobyte, in which Parquet has its footer."""
    data = bytearray(path.read_bytes())
    for _ in range(round(20 ** draw.random())):
        data[-1 - draw.randrange(min(len(data), 1024))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def absurd_number(path: Path, draw: random.Random) -> None:
    """Replace four or eight bytes by an absurd number."""
    data = bytearray(path.read_bytes())
    number = draw.choice((0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1))
    size = 8 if number >= 2**32 else draw.choice((4, 8))
    place = draw.randrange(max(1, len(data) - size))
    data[place : place + size] = number.to_bytes(size, draw.choice(("little", "big")))
    path.write_bytes(data)


def cut(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])


def insert(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    place = draw.randrange(len(data))
    path.write_bytes(data[:place] + draw.randbytes(draw.randrange(1, 5000)) + data[place:])


def repeat(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    start = draw.randrange(len(data))
    path.write_bytes(data + data[start : start + 10**5])


def empty(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


def zeros(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    start = draw.randrange(len(data))
    path.write_bytes(data[:start] + bytes(len(data) - start))


# The file itself


def remove(path: Path, draw: random.Random) -> None:
    path.unlink()


def other_file(path: Path, draw: random.Random) -> None:
    root = next(parent for parent in path.parents if (parent / "secret").exists())
    others = sorted(p for p in (root / "dataset").rglob("*") if p.is_file() and p != path)
    shutil.copyfile(draw.choice(others), path)


def folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path, draw: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path, draw: random.Random) -> None:
    root = next(parent for parent in path.parents if (parent / "secret").exists())
    path.unlink()
    places = ("/dev/zero", "/dev/random", "/proc/self/mem", path, root / "secret", root / "missing")
    path.symlink_to(draw.choice(places))


# JSON, YAML and text


def json_value(path: Path, draw: random.Random) -> None:
    """Replace, remove or add a value at a random place."""
    document = json.loads(path.read_text())
    places: list[tuple[Any, Any]] = []
    nodes: list[Any] = [document]
    for node in nodes:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        places += [(node, key) for key in keys]
        nodes += [node[key] for key in keys if isinstance(node[key], dict | list)]
    node, key = draw.choice(places)
    kind = draw.randrange(5)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[draw.choice([v for v in ABSURD if isinstance(v, str)])] = node.pop(key)
    else:
        node[key] = draw.choice(ABSURD)
    path.write_text(json.dumps(document))


def json_nesting(path: Path, draw: random.Random) -> None:
    path.write_text(draw.choice(("[", '{"a":')) * DEEP)


def json_digits(path: Path, draw: random.Random) -> None:
    path.write_text(path.read_text().replace(": 2,", ": " + "9" * 10_000 + ",", 1) + " ")


def yaml_aliases(path: Path, draw: random.Random) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    body = path.read_text().removeprefix("---\n")
    path.write_text("---\n" + "\n".join(lines) + "\n" + body)


def yaml_nesting(path: Path, draw: random.Random) -> None:
    body = path.read_text().removeprefix("---\n")
    path.write_text(f"---\ndeep: {'[' * 5000}\n{body}")


def yaml_tag(path: Path, draw: random.Random) -> None:
    body = path.read_text().removeprefix("---\n")
    tag = draw.choice(("python/object/apply:os.system [id]", "binary x", "timestamp 99"))
    path.write_text(f"---\nlicense: !!{tag}\n{body}")


def controls(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    place = draw.randrange(len(data))
    text = draw.choice((b"\x1b]0;x\x07", b"\n::error::x\n", b"\xff\xfe", "\u202e".encode()))
    path.write_bytes(data[:place] + text + data[place:])


def sums_path(path: Path, draw: random.Random) -> None:
    name = draw.choice(("../secret", "/etc/passwd", "frames", "x" * 5000, "a\x1b[31m", "\0"))
    path.write_text(path.read_text() + f"{'0' * 64}  {name}\n")


# Tables


def column(path: Path, draw: random.Random) -> None:
    """Give one column other values, another type, another name, or no place at all."""
    table = pq.read_table(path)
    index = draw.randrange(table.num_columns)
    name, n = table.column_names[index], table.num_rows
    replacements: list[Any] = [
        pa.nulls(n, table.schema.field(index).type),
        pa.array(np.full(n, np.nan, np.float32)),
        pa.array(np.full(n, -(2**31), np.int32)),
        pa.array(np.full(n, 2**62, np.int64)),
        pa.array(["../../secret\x1b[31m\n::error::x"] * n),
        pa.array(["x" * 10_000] * n).dictionary_encode(),
        pa.array([b"\xff\xfe"] * n),
        pa.array([[]] * n, pa.list_(pa.list_(pa.int8()))),
    ]
    kind = draw.randrange(len(replacements) + 3)
    if kind < len(replacements):
        table = table.set_column(index, name, replacements[kind])
    elif kind == len(replacements):
        table = table.drop_columns([name])
    else:
        new = draw.choice((table.column_names[index - 1], "", "a\x1b[31m", "x" * 10**5))
        table = table.rename_columns([new if c == name else c for c in table.column_names])
    pq.write_table(table, path)


def rows(path: Path, draw: random.Random) -> None:
    """Repeat, shuffle, drop or multiply the rows."""
    table = pq.read_table(path)
    order = list(range(table.num_rows))
    kind = draw.randrange(4)
    if kind == 0:
        draw.shuffle(order)
    elif kind == 1:
        order = order[1:]
    elif kind == 2:
        order = order + order[:1]
    else:
        order = order * max(1, 10**6 // max(1, len(order)))
    pq.write_table(table.take(pa.array(order, pa.int64())), path)


def long_column(path: Path, draw: random.Random) -> None:
    """Compress 50 million equal values into a few kilobytes."""
    table = pq.read_table(path).schema.empty_table()
    name = table.column_names[0]
    values = pa.DictionaryArray.from_arrays(np.zeros(50_000_000, np.int8), ["id00001/a/00001"])
    pq.write_table(pa.table({name: values}), path, compression="zstd")


def metadata(path: Path, draw: random.Random) -> None:
    table = pq.read_table(path)
    kept = dict(table.schema.metadata or {})
    key = draw.choice([*sorted(kept), b"ARROW:schema"])
    kept[key] = draw.choice((b"", b"\xff\xfe", b"[" * DEEP, b"x\x1b[31m\n::error::", b"9" * 10_000))
    pq.write_table(table.replace_schema_metadata(kept), path)


# HDF5


def hdf5_link(path: Path, draw: random.Random) -> None:
    """Put a reference to a file outside the dataset in place of a dataset of the file."""
    root = next(parent for parent in path.parents if (parent / "secret").exists())
    with h5py.File(path, "r+") as file:
        name = draw.choice(("frames/logits", "frames/frame_index", "tracks/offset", "tracks"))
        del file[name]
        kind = draw.randrange(5)
        if kind == 0:
            file[name] = h5py.ExternalLink(str(root / "outside.h5"), name)
        elif kind == 1:
            file[name] = h5py.SoftLink(f"/{name}")
        elif kind == 2:
            file.create_dataset(name, (8,), "f4", external=[(str(root / "secret"), 0, 32)])
        elif kind == 3:
            layout = h5py.VirtualLayout((4, 8), "f4")
            layout[:] = h5py.VirtualSource(str(root / "outside.h5"), "frames/logits", (4, 8))
            file.create_virtual_dataset(name, layout)
        else:
            file[name] = file["/"]


def hdf5_shape(path: Path, draw: random.Random) -> None:
    """Claim many values without having any."""
    with h5py.File(path, "r+") as file:
        name = draw.choice(("frames/logits", "frames/timestamp_ms", "tracks/n_frames"))
        del file[name]
        shape = draw.choice(((2**40, 8), (2**40,), (0,), (), (3, 3, 3), (2**20, 2**20)))
        chunks = tuple(min(side, 1024) for side in shape) if shape and shape[0] else None
        kinds = ("f4", "i8", "S10", h5py.string_dtype())
        file.create_dataset(name, shape, draw.choice(kinds), chunks=chunks)


def hdf5_attribute(path: Path, draw: random.Random) -> None:
    with h5py.File(path, "r+") as file:
        key = draw.choice(sorted(file.attrs))
        value = draw.choice(("", "x\x1b[31m", "[" * 10_000, 7, [1.5]))
        file.attrs[key] = value


BYTES = (flip_bits, absurd_number, cut, insert, repeat, empty, zeros)
ANY = (*BYTES, remove, other_file, folder, fifo, link)
JSON = (json_value, json_value, json_value, json_nesting, json_digits, controls)
MUTATIONS: dict[str, tuple[Mutation, ...]] = {
    "README.md": (*ANY, yaml_aliases, yaml_nesting, yaml_tag, controls),
    "SHA256SUMS": (*ANY, sums_path, controls),
    ".json": (*ANY, *JSON, *JSON),
    ".parquet": (*ANY, flip_end, column, column, column, rows, long_column, metadata),
    ".h5": (*ANY, hdf5_link, hdf5_link, hdf5_shape, hdf5_attribute),
}


# The run


def reseal(dataset: Path, path: Path) -> None:
    """Make the manifest and SHA256SUMS fit a mutated file, where they can be read."""
    name = path.relative_to(dataset).as_posix()
    if not path.is_file() or path.is_symlink():
        return
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    try:
        document = json.loads((dataset / "manifest.json").read_text())
        for entry in document["files"]:
            if entry["path"] == name:
                entry |= {"bytes": len(data), "sha256": digest}
        if name != "manifest.json":
            (dataset / "manifest.json").write_text(json.dumps(document))
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    if name == "SHA256SUMS":
        return
    sums = []
    for line in (dataset / "SHA256SUMS").read_text().splitlines():
        listed = line[66:]
        if listed in (name, "manifest.json"):
            line = hashlib.sha256((dataset / listed).read_bytes()).hexdigest() + "  " + listed
        sums.append(line + "\n")
    (dataset / "SHA256SUMS").write_text("".join(sums))


@dataclass
class Outcome:
    """Outcome of a command on one copy."""

    kind: str
    mutation: str
    sealed: bool
    code: int = 0
    seconds: float = 0
    memory: int = 0  # bytes
    faults: list[str] = field(default_factory=list)


def mutate(root: Path, number: int, seed: int) -> Outcome:
    """Mutate the copy in `root/dataset`."""
    draw = random.Random(f"{seed}:{number}")
    dataset = root / "dataset"
    files = sorted(p for p in dataset.rglob("*") if p.is_file())
    groups = collections.defaultdict(list)
    for path in files:
        groups[path.name if path.name in MUTATIONS else path.suffix].append(path)
    kind = list(MUTATIONS)[number % len(MUTATIONS)]
    path = draw.choice(groups[kind])
    mutation = draw.choice(MUTATIONS[kind])
    before = path.read_bytes()
    mutation(path, draw)
    outcome = Outcome(kind, mutation.__name__, sealed=draw.random() < 0.5)
    if path.is_file() and not path.is_symlink() and path.read_bytes() == before:
        path.write_bytes(before + b"\n")
    if outcome.sealed:
        reseal(dataset, path)
    return outcome


def watch(command: Sequence[str], outcome: Outcome, *, checks_hashes: bool) -> None:
    """Run the command; note its exit code, time and memory, and every violation."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESSES,) * 2),
        )
        peak, done = 0, 0
        while not done:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            outcome.seconds = time.monotonic() - start
            if not done and outcome.seconds > MAX_SECONDS:
                process.kill()
                outcome.faults.append(f"longer than {MAX_SECONDS} s")
                done, status, usage = os.wait4(process.pid, 0)
            time.sleep(0.02)
        peak = usage.ru_maxrss * 1024
        process.returncode = outcome.code = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    outcome.memory = peak
    allowed = (1, 2) if checks_hashes and not outcome.sealed else (0, 1, 2)
    checks = {
        f"exit code {outcome.code}": outcome.code not in allowed,
        "traceback": "Traceback" in text,
        f"{peak / 1e6:.0f} MB": peak > MAX_MEMORY,
        "escape character": "\x1b" in text or "\u202e" in text,
        "line for a CI service": any(line.startswith("::") for line in text.splitlines()),
        "content from outside": SECRET in text,
    }
    outcome.faults += [name for name, found in checks.items() if found]
    if outcome.faults:
        outcome.faults.append(text[-300:])


def run(arguments: argparse.Namespace, folder: Path, number: int) -> Outcome:
    root = folder / f"{number:05d}"
    root.mkdir()
    (root / "secret").write_text(SECRET)
    shutil.copytree(arguments.dataset, root / "dataset", ignore=shutil.ignore_patterns(".*"))
    first = next((root / "dataset" / "hdf5").iterdir())
    shutil.copyfile(first, root / "outside.h5")
    outcome = mutate(root, number, arguments.seed)
    command = [sys.executable, "-m", "emovox", arguments.command, str(root / "dataset")]
    if arguments.command == "diff":
        command.append(str(arguments.dataset))
    if arguments.command == "report":
        command += ["--out", str(root / "page.html")]
    watch(command, outcome, checks_hashes=arguments.command != "report")
    if not (outcome.faults and arguments.keep):
        shutil.rmtree(root)
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--number", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first copy")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--command", choices=("validate", "diff", "report"), default="validate")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the copies with violations")
    arguments = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(arguments.jobs) as pool:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        numbers = range(arguments.first, arguments.first + arguments.number)
        for number, outcome in zip(
            numbers, pool.map(lambda n: run(arguments, folder, n), numbers), strict=True
        ):
            outcomes.append(outcome)
            if outcome.faults:
                sealed = ", hashes fit" if outcome.sealed else ""
                print(f"{number}: {outcome.kind}, {outcome.mutation}{sealed}:", *outcome.faults)
    print(f"{'files':12} {'copies':>7} {'exit 0':>7} {'exit 1':>7} {'exit 2':>7} {'faults':>7}")
    for kind in MUTATIONS:
        mine = [outcome for outcome in outcomes if outcome.kind == kind]
        codes = collections.Counter(outcome.code for outcome in mine)
        faulty = sum(bool(outcome.faults) for outcome in mine)
        print(f"{kind:12} {len(mine):7} {codes[0]:7} {codes[1]:7} {codes[2]:7} {faulty:7}")
    longest = max(outcome.seconds for outcome in outcomes)
    print(f"longest {longest:.1f} s, most memory {max(o.memory for o in outcomes) / 1e6:.0f} MB")
    return int(any(outcome.faults for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
