"""A dataset during validation: its files, hashes and documents, and DuckDB over its tables.

Each item is read when a rule first needs it. Data that is missing or damaged raises
`UnavailableError` at every access, so that the rules that need it are skipped and the others run.
"""

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import json_schemas, schema
from emovox.dataset.card import front_matter
from emovox.dataset.store import ContentHash, open_table, read_hdf5_frames, read_pieces, reading
from emovox.errors import ConfigError, EmovoxError, first_line
from emovox.files import open_hdf5, parse_json, read_text, sha256_file
from emovox.validation import findings
from emovox.validation.findings import MAX_EXAMPLES, Breach, Example, RowTest, UnavailableError

Result = TypeVar("Result")

_reading = partial(reading, failure=UnavailableError)

MEMORY_LIMIT = "1GB"  # of DuckDB, which writes larger intermediate results to disk
NUM_HASHERS = 2  # threads in addition to those of DuckDB

TABLES_OF_QUERY = re.compile(rf"\b(?:from|join) ({'|'.join([*findings.SUMMARIES, *schema.ROWS])})")


class OtherColumnsError(UnavailableError):
    """A table does not have the columns of the contract and therefore no content hash."""


class Inspection:
    """A dataset during validation; use as a context manager.

    `meta` is the folder of vox1_meta.csv and the official lists, `takedown` a file of hashed
    identities that must not occur.
    """

    def __init__(
        self,
        root: Path,
        tests: Sequence[RowTest] = (),
        meta: Path | None = None,
        takedown: Path | None = None,
    ) -> None:
        self.root, self.meta, self.takedown = root, meta, takedown
        self.raw_manifest = json_schemas.read_header(root)
        self.manifest_faults = json_schemas.faults("manifest", self.raw_manifest)  # of the schema
        found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
        names = sorted(path.as_posix() for path in found if path.parts[0][0] != ".")
        # Links to files outside, and all other files, except hidden ones at the top.
        self.outside = [name for name in names if json_schemas.leads_outside(root, name)]
        self.files = [name for name in names if name not in self.outside]
        keys = [(table, split) for table in schema.TABLES for split in schema.SPLITS]
        tables = [(*key, schema.table_file(*key)) for key in [*keys, ("dropped", "")]]
        # Table, split and path of every existing Parquet file of the contract.
        self.tables = [entry for entry in tables if entry[2] in self.files]
        with_rows = {split for table, split, _ in self.tables if table in ("frames", "tracks")}
        self.splits = [split for split in schema.SPLITS if split in with_rows]
        self._tests = tests
        self._results: dict[str, Any] = {}
        self._hashes: dict[tuple[str, str], Future[str]] = {}

    def __enter__(self) -> "Inspection":
        self._spill = tempfile.TemporaryDirectory(prefix="emovox-")
        self._threads = ThreadPoolExecutor(NUM_HASHERS)
        self._database = duckdb.connect(
            config={"memory_limit": MEMORY_LIMIT, "temp_directory": self._spill.name}
        )
        for name in sorted(self.files, key=lambda name: -(self.root / name).stat().st_size):
            if name.endswith((".parquet", ".h5")):
                self._hashes["content", name] = self._threads.submit(self._hash_content, name)
            self._hashes["file", name] = self._threads.submit(sha256_file, self.root / name)
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._database.close()
        self._spill.cleanup()

    def _once(self, key: str, compute: Callable[[], Result]) -> Result:
        """Return the result of `compute`, or raise its `UnavailableError`; call it only once."""
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
        """The manifest; UnavailableError if it violates its schema, or two names are equal."""
        if self.manifest_faults:
            raise UnavailableError(f"{schema.MANIFEST}: violates its schema")
        _ = self.contract
        return self.raw_manifest

    @property
    def contract(self) -> schema.Columns:
        """The columns of the dataset; UnavailableError if the manifest does not declare them."""
        try:
            return schema.columns(json_schemas.outputs_of(self.raw_manifest))
        except (KeyError, TypeError, ConfigError) as error:
            raise UnavailableError(f"{schema.MANIFEST}: emotions or values: {error}") from error

    def expected(self, table: str, name: str) -> pa.Schema:
        """Return the columns that the file of a table should have."""
        return self.contract.of(table, schema.embedding_size(self.columns(name)))

    def sql(self, text: str) -> str:
        """Return SQL with the names in braces replaced by columns of the dataset, see `_terms`."""
        if "{step_ms}" in text:
            text = text.replace("{step_ms}", str(self.manifest["step_ms"]))
        if "{" not in text:
            return text
        return text.format(**self._once("terms", lambda: findings.terms(self.contract)))

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """Entries of the manifest's `files`, by path."""
        return {entry["path"]: entry for entry in self.manifest["files"]}

    @property
    def hdf5_files(self) -> list[tuple[str, str]]:
        """Split and path of every HDF5 file; NotApplicableError if the dataset has none."""
        named = [(split, schema.hdf5_file(split)) for split in schema.SPLITS]
        if not (found := [entry for entry in named if entry[1] in self.files]):
            raise findings.NotApplicableError("the dataset has no HDF5 files")
        return found

    def _path(self, name: str) -> Path:
        if json_schemas.leads_outside(self.root, name):
            raise UnavailableError(f"{name}: {json_schemas.LEADS_OUTSIDE}")
        return self.root / name

    @contextlib.contextmanager
    def hdf5(self, name: str) -> Iterator[Any]:
        """Open an HDF5 file."""
        with _reading(name, " as HDF5"), open_hdf5(self._path(name)) as file:
            yield file

    def text(self, name: str) -> str:
        """Return the text of a document."""
        with _reading(name):
            return read_text(self._path(name))

    def json(self, name: str) -> Any:
        """Return the content of a JSON document, which may violate its schema."""
        with _reading(name, " as JSON"):
            return parse_json(self.text(name))

    def card_header(self) -> Any:
        """Return the front matter of the card, which may violate its schema."""
        with _reading(schema.CARD):
            return front_matter(self.text(schema.CARD))

    def footer(self, name: str) -> pq.FileMetaData:
        """Return the metadata of a Parquet file."""
        with _reading(name, " as Parquet"):
            return self._once(f"footer {name}", lambda: open_table(self._path(name)).metadata)

    def columns(self, name: str) -> pa.Schema:
        """Return the columns of a Parquet file."""
        footer = self.footer(name)
        with _reading(name, " as Parquet"):
            return self._once(f"columns {name}", footer.schema.to_arrow_schema)

    def metadata(self, name: str) -> dict[str, str]:
        """Return the key-value metadata of a Parquet file."""
        stored = self.footer(name).metadata or {}
        return {key.decode(): value.decode("utf-8", "replace") for key, value in stored.items()}

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a file's bytes."""
        return self._hash("file", name)

    def content(self, name: str) -> str:
        """Return the content hash of a Parquet or HDF5 file; reads and checks all of its data."""
        return self._hash("content", name)

    def _hash(self, kind: str, name: str) -> str:
        if (kind, name) not in self._hashes:
            raise UnavailableError(f"{name}: missing")
        with _reading(name):
            return self._hashes[kind, name].result()

    def _hash_content(self, name: str) -> str:
        columns = self.contract.frames
        pieces = read_hdf5_frames(self.root / name, self.contract.outputs)
        if name.endswith(".parquet"):
            table = next((table for table, _, path in self.tables if path == name), None)
            if table is None or not self.columns(name).equals(self.expected(table, name)):
                raise OtherColumnsError(f"{name}: columns differ from the contract")
            columns, pieces = self.expected(table, name), read_pieces(self.root / name)
        content = ContentHash(columns)
        for rows in pieces:
            content.update(rows)
        return content.hexdigest()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query over tables, `<table>_<split>` for one split, and `SUMMARIES`.

        The column `split` is that of the file name; `stated_split` is the column of tracks.
        """
        for table in TABLES_OF_QUERY.findall(sql):
            self._once(f"table {table}", partial(self._make_table, table))
        return self._execute(sql)

    def query(self, sql: str) -> Breach:
        """Return what a query finds, as `split` and `text`, in the files of its first table."""
        sql = self.sql(sql)
        ((count,),) = self.rows(f"select count(*) from ({sql})")
        if not count:
            return Breach()
        found = self._execute(f"select split, text from ({sql}) order by all limit {MAX_EXAMPLES}")
        table = TABLES_OF_QUERY.findall(sql)[0].replace("per_track", "frames")
        return Breach(count, tuple(Example(schema.table_file(table, s), str(t)) for s, t in found))

    def failures(self, test: RowTest) -> Breach:
        """Return the rows that fail a test."""
        self.sql(test.where)  # unavailable if it needs a manifest that is invalid
        return self._once(f"scan {test.table}", partial(self._scan, test.table))[test]

    def _scan(self, table: str) -> dict[RowTest, Breach]:
        """Run all tests of a table in one pass over each of its files."""
        self._once(f"table {table}", partial(self._make_table, table))
        tests: dict[RowTest, str] = {}
        for test in (test for test in self._tests if test.table == table):
            with contextlib.suppress(UnavailableError):  # `failures` raises it again
                tests[test] = self.sql(test.where)
        counts = ", ".join(
            findings.count_failures(test.table, where, self.sql(test.shows))
            for test, where in tests.items()
        )
        # A window over the whole of one file streams: memory stays constant.
        previous = sorted(set(re.findall(r"\bprevious_(\w+)", counts)))
        lags = "".join(f", lag({name}) over () as previous_{name}" for name in previous)
        breaches = dict.fromkeys(tests, Breach())
        for split in (split for other, split, _ in self.tables if other == table):
            ((num_rows, *found),) = self._execute(
                f"select count(*), {counts} from (select *{lags} from {table}_{split})"
            )
            for test, count, texts in zip(tests, found[::2], found[1::2], strict=True):
                if count > test.share * num_rows:
                    examples = [Example(schema.table_file(table, split), text) for text in texts]
                    breaches[test] += Breach(count, tuple(examples))
        return breaches

    def _make_table(self, name: str) -> None:
        if name in findings.SUMMARIES:
            self._once("table frames", partial(self._make_table, "frames"))
            self._execute(f"create table {name} as {self.sql(findings.SUMMARIES[name])}")
            return
        files = {split: path for table, split, path in self.tables if table == name}
        splits = [""] if name == "dropped" else self.splits
        missing = [schema.table_file(name, split) for split in splits if split not in files]
        if missing and (files or name in ("frames", "tracks", "dropped")):
            raise UnavailableError(f"{missing[0]}: missing")
        expected = self.contract.of(name, 1)
        if name == "embeddings":
            expected = expected.remove(len(expected) - 1)  # rules about rows need only the keys
        for path in files.values():
            self._check_types(path, expected)
        self._database.register(f"no_{name}", expected.empty_table())
        columns = ", ".join("split as stated_split" if c == "split" else c for c in expected.names)
        parts = []
        for split in [""] if name == "dropped" else schema.SPLITS:
            row, source = "0::bigint", f"no_{name}"
            if split in files:
                path = escape(str(self.root / files[split])).replace("'", "''")
                row = "file_row_number"
                source = f"read_parquet('{path}', file_row_number=true, hive_partitioning=false)"
            self._execute(
                f"create view {name}_{split} as "
                f"select '{split}' as split, {row} as row, {columns} from {source}"
            )
            parts.append(f"select * from {name}_{split}")
        # Most rules query tracks, which are few and read once. Frames and faces stay on disk.
        kind = "table" if name in ("tracks", "dropped") else "view"
        self._execute(f"create {kind} {name} as {' union all '.join(parts)}")

    def _check_types(self, name: str, expected: pa.Schema) -> None:
        """Check for the contract's columns and types; order and nullability do not matter here."""
        found = self.columns(name)
        for column in expected:
            types = [field.type for field in found if field.name == column.name]
            if types != [column.type]:
                shown = " and ".join(map(str, types)) or "missing"
                raise UnavailableError(f"{name}: {column.name} is {shown}, expected {column.type}")

    def _execute(self, sql: str) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(sql).fetchall()
        except duckdb.OutOfMemoryException as error:
            raise EmovoxError(
                f"{self.root}: validation needs more memory: {first_line(error)}"
            ) from error
        except duckdb.Error as error:
            is_damage = isinstance(error, duckdb.InvalidInputException)
            if isinstance(error, duckdb.ProgrammingError) and not is_damage:
                raise  # the query is wrong
            raise UnavailableError(first_line(error)) from error
