"""A dataset while it is checked: its files, hashes and documents, and DuckDB over its tables.

Each thing is read when a rule first asks for it. What cannot be had raises `UnavailableError`,
every time it is asked for, so that the rules that need it are skipped and the others go on.
"""

import json
import re
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.dataset.json_schemas import faults
from emovox.dataset.store import ContentHash, read_hdf5_frames
from emovox.errors import EmovoxError, InputError
from emovox.files import sha256_file
from emovox.validation.rule import MAX_EXAMPLES, Breach, Example, Rule, UnavailableError, file_of

Result = TypeVar("Result")

MEMORY_LIMIT = "1GB"  # of DuckDB, which spills what is more
NUM_HASHERS = 2  # threads beside DuckDB's
MAXIMA = ", ".join(f"max({name}) as {name}" for name in schema.LOGITS)
PER_TRACK = f"""
    select split, track_id, count(*) as num_rows, min(row) as first_row, max(row) as last_row,
        max(frame_index) as last_index, {MAXIMA}
    from frames group by split, track_id"""


@dataclass(frozen=True)
class Options:
    """What validation is told besides the folder.

    Attributes:
        meta: folder of vox1_meta.csv and the official lists.
        takedown: file of hashed identities that must not occur.
    """

    meta: Path | None = None
    takedown: Path | None = None


class OtherColumnsError(UnavailableError):
    """A table does not have the columns of the contract, so that it has no content hash."""


class Inspection:
    """One dataset under inspection; use as a context manager.

    Attributes:
        root: its folder.
        options: see `Options`.
        raw_manifest: content of manifest.json, which may not follow its schema.
        splits: those with a file of frames or tracks.
    """

    def __init__(self, root: Path, options: Options, rules: Sequence[Rule]) -> None:
        self.root, self.options = Path(root), options
        self.raw_manifest = _read_manifest(self.root)
        self.splits = tuple(
            split
            for split in schema.SPLITS
            if any(
                (self.root / schema.table_file(t, split)).is_file() for t in ("frames", "tracks")
            )
        )
        self._row_rules = [rule for rule in rules if rule.rows]
        self._results: dict[str, Any] = {}
        self._hashes: dict[tuple[str, str], Future[str]] = {}

    def __enter__(self) -> "Inspection":
        self._spill = tempfile.TemporaryDirectory(prefix="emovox-")
        self._threads = ThreadPoolExecutor(NUM_HASHERS)
        self._database = duckdb.connect(
            config={"memory_limit": MEMORY_LIMIT, "temp_directory": self._spill.name}
        )
        files = sorted(self.existing(), key=lambda name: -(self.root / name).stat().st_size)
        for name in files:
            if name.endswith((".parquet", ".h5")):
                self._hashes["content", name] = self._threads.submit(self._content, name)
            self._hashes["file", name] = self._threads.submit(sha256_file, self.root / name)
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._database.close()
        self._spill.cleanup()

    def once(self, key: str, compute: Callable[[], Result]) -> Result:
        """The result of `compute`, or the reason why there is none, computed at the first call."""
        if key not in self._results:
            try:
                self._results[key] = compute()
            except UnavailableError as error:
                self._results[key] = error
        if isinstance(result := self._results[key], UnavailableError):
            raise result
        return result

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest, if it follows its schema."""
        if self.once("manifest faults", lambda: faults("manifest", self.raw_manifest)):
            raise UnavailableError(f"{schema.MANIFEST} does not follow its schema")
        return self.raw_manifest

    def entries(self) -> dict[str, dict[str, Any]]:
        """What the manifest says of each file, by path."""
        return {entry["path"]: entry for entry in self.manifest["files"]}

    def existing(self) -> list[str]:
        """Files below the folder, sorted; hidden ones at its top are no part of the dataset."""
        relative = (p.relative_to(self.root) for p in self.root.rglob("*") if p.is_file())
        return sorted(p.as_posix() for p in relative if not p.parts[0].startswith("."))

    def tables(self) -> list[tuple[str, str, str]]:
        """Table, split and path of every Parquet file of the contract that is there."""
        named = [(t, s, schema.table_file(t, s)) for t in schema.TABLES for s in schema.SPLITS]
        named.append(("dropped", "", schema.DROPPED_FILE))
        return [entry for entry in named if (self.root / entry[2]).is_file()]

    def text(self, name: str) -> str:
        """A document as text."""
        try:
            return (self.root / name).read_text(encoding="utf-8")
        except OSError as error:
            raise UnavailableError(f"{name}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UnavailableError(f"{name}: is not UTF-8") from error

    def provenance(self) -> Any:
        """Content of provenance.json, which may not follow its schema."""
        try:
            return json.loads(self.text(schema.PROVENANCE))
        except ValueError as error:
            raise UnavailableError(f"{schema.PROVENANCE}: is not JSON ({error})") from error

    def footer(self, name: str) -> pq.FileMetaData:
        """Metadata of a Parquet file."""
        return self.once(f"footer {name}", lambda: _footer(self.root, name))

    def sha256(self, name: str) -> str:
        """Hash of a file's bytes."""
        return self._hash("file", name)

    def content(self, name: str) -> str:
        """Content hash of the values in a Parquet or HDF5 file, every page and chunk checked."""
        return self._hash("content", name)

    def _hash(self, kind: str, name: str) -> str:
        if (kind, name) not in self._hashes:
            raise UnavailableError(f"{name}: no such file")
        try:
            return self._hashes[kind, name].result()
        except OSError as error:
            raise UnavailableError(f"{name}: {_one_line(error)}") from error

    def _content(self, name: str) -> str:
        if name.endswith(".h5"):
            return _hdf5_content(self.root / name, name)
        table = next((t for t, _, path in self.tables() if path == name), None)
        if table is None or not self.footer(name).schema.to_arrow_schema().equals(
            schema.SCHEMAS[table]
        ):
            raise OtherColumnsError(f"{name}: its columns are not those of the contract")
        content = ContentHash(schema.SCHEMAS[table])
        try:
            path = self.root / name
            with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
                for batch in file.iter_batches(schema.ROW_GROUP_ROWS // 2):
                    content.update(pa.Table.from_batches([batch]))
        except (OSError, pa.ArrowException) as error:
            raise UnavailableError(f"{name}: {_one_line(error)}") from error
        return content.hexdigest()

    def rows(self, sql: str, needs: Sequence[str]) -> list[tuple[Any, ...]]:
        """Answer of a query over the views `needs`: tables by name, or `per_track`."""
        for table in needs:
            self.once(f"view {table}", lambda table=table: self._make_view(table))  # type: ignore[misc]
        return self._execute(sql)

    def query(self, sql: str, needs: Sequence[str]) -> Breach:
        """Run a query that returns `split` and `text` of everything that breaks a rule."""
        ((count,),) = self.rows(f"select count(*) from ({sql})", needs)
        if not count:
            return Breach()
        found = self._execute(f"select split, text from ({sql}) order by all limit {MAX_EXAMPLES}")
        return Breach(count, tuple(Example(file_of(needs[0], s), str(t)) for s, t in found))

    def rows_breaking(self, name: str, table: str) -> Breach:
        """What the pass over a table found against one of its row rules."""
        rule = next(rule for rule in self._row_rules if rule.name == name)
        assert rule.rows is not None
        where = self._where(rule)
        counts = self.once(f"scan {table}", lambda: self._scan(table))
        total, examples = 0, list[Example]()
        for split, (num_rows, found) in counts.items():
            if found[name] <= rule.rows.share * num_rows:
                continue
            total += found[name]
            source = self._neighbours(table, split, [where])
            sql = f"select {rule.rows.shows} from ({source}) where {where}"
            shown = self._execute(f"{sql} limit {MAX_EXAMPLES - len(examples)}")
            examples += [Example(file_of(table, split), str(text)) for (text,) in shown]
        return Breach(total, tuple(examples))

    def _scan(self, table: str) -> dict[str, tuple[int, dict[str, int]]]:
        """Rows of each split of a table, and how many break each of its row rules."""
        self.once(f"view {table}", lambda: self._make_view(table))
        tests = {}
        for rule in self._row_rules:
            if rule.rows and rule.rows.table == table:
                try:
                    tests[rule.name] = self._where(rule)
                except UnavailableError:
                    continue  # says so when that rule asks
        counts = ", ".join(f"count(*) filter ({where})" for where in tests.values())
        scanned = {}
        for split in self._splits_of(table):
            source = self._neighbours(table, split, list(tests.values()))
            ((num_rows, *found),) = self._execute(f"select count(*), {counts} from ({source})")
            scanned[split] = num_rows, dict(zip(tests, found, strict=True))
        return scanned

    def _where(self, rule: Rule) -> str:
        assert rule.rows is not None
        if "{step_ms}" not in rule.rows.where:
            return rule.rows.where
        return rule.rows.where.replace("{step_ms}", str(self.manifest["step_ms"]))

    def _neighbours(self, table: str, split: str, tests: Sequence[str]) -> str:
        """A split's rows in the order of the file, each with what `tests` name of the one before.

        A window over everything, of a single file, streams: memory stays flat.
        """
        names = sorted(set(re.findall(r"\bprevious_(\w+)", " ".join(tests))))
        lags = "".join(f", lag({name}) over () as previous_{name}" for name in names)
        return f"select *{lags} from {table}_{split}"

    def _splits_of(self, table: str) -> list[str]:
        return [split for t, split, _ in self.tables() if t == table]

    def _make_view(self, table: str) -> None:
        if table == "per_track":
            self.once("view frames", lambda: self._make_view("frames"))
            self._execute(f"create table per_track as {PER_TRACK}")
            return
        files = [(split, name) for t, split, name in self.tables() if t == table]
        if files or table != "faces":  # which imported datasets do without
            there = {split for split, _ in files}
            for split in [""] if table == "dropped" else self.splits:
                if split not in there:
                    raise UnavailableError(f"{file_of(table, split)}: no such file")
        for _, name in files:
            self._check_types(table, name)
        for split in {s for s, _ in files} | set(self.splits):
            if table in ("frames", "tracks") and split not in {s for s, _ in files}:
                raise UnavailableError(f"{schema.table_file(table, split)}: no such file")
        self._database.register(f"no_{table}", schema.SCHEMAS[table].empty_table())
        columns = schema.SCHEMAS[table].names
        shown = ", ".join("split as stated_split" if c == "split" else c for c in columns)
        parts = [f"select '' as split, 0::bigint as row, {shown} from no_{table}"]
        for split, name in files:
            path = escape(str(self.root / name)).replace("'", "''")
            view = f"{table}_{split}" if split else f"{table}_rows"
            self._execute(
                f"create view {view} as select '{split}' as split, file_row_number as row, "
                f"{shown} from read_parquet('{path}', file_row_number=true, "
                "hive_partitioning=false)"
            )
            parts.append(f"select * from {view}")
        # Most rules ask about tracks: these few rows are read once. Frames stay where they are.
        kind = "view" if table in ("frames", "faces") else "table"
        self._execute(f"create {kind} {table} as {' union all '.join(parts)}")

    def _check_types(self, table: str, name: str) -> None:
        """Queries need the contract's columns and types, in whatever order, nullable or not."""
        found = self.footer(name).schema.to_arrow_schema()
        for column in schema.SCHEMAS[table]:
            if found.names.count(column.name) != 1:
                raise UnavailableError(f"{name}: no column {column.name}, or several")
            if found.field(column.name).type != column.type:
                kind = found.field(column.name).type
                raise UnavailableError(f"{name}: {column.name} is {kind}, expected {column.type}")

    def _execute(self, sql: str) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(sql).fetchall()
        except duckdb.OutOfMemoryException as error:
            raise EmovoxError(f"{self.root}: cannot be checked: {_one_line(error)}") from error
        except duckdb.Error as error:
            is_damage = isinstance(error, duckdb.InvalidInputException)
            if isinstance(error, duckdb.ProgrammingError) and not is_damage:
                raise  # the query is wrong
            raise UnavailableError(_one_line(error)) from error


def _read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of a dataset of this version of the contract, whatever else is wrong with it."""
    path = root / schema.MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version, _ = manifest["schema_version"], (manifest["name"], manifest["version"])
    except OSError as error:
        what = "is no dataset" if root.is_dir() else "no such folder"
        raise InputError(f"{root}: {what}: {schema.MANIFEST}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no manifest of a dataset ({_one_line(error)})") from error
    if version != schema.SCHEMA_VERSION:
        raise InputError(
            f"{path}: version {version} of the contract; this emovox checks {schema.SCHEMA_VERSION}"
        )
    return dict(manifest)


def _footer(root: Path, name: str) -> pq.FileMetaData:
    try:
        return pq.read_metadata(root / name)
    except (OSError, pa.ArrowException) as error:
        raise UnavailableError(f"{name}: cannot be read as Parquet: {_one_line(error)}") from error


def _hdf5_content(path: Path, name: str) -> str:
    content = ContentHash(schema.FRAMES)
    try:
        for rows in read_hdf5_frames(path):
            content.update(rows)
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise UnavailableError(f"{name}: cannot be read as frames: {_one_line(error)}") from error
    return content.hexdigest()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."
