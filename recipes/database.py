"""The registry's file: opened, made, migrated and written so that no crash and no neighbour harms it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from ..foundation.errors import TunewrightError, explain_os_error
from . import migrations
from .migrations import Tables, schema, statements

SCHEMA_VERSION = 2
"""The version that `registry.db.sql` makes, kept in the file's user_version."""
MIGRATIONS: dict[int, Callable[[Tables], None]] = {1: migrations.find_by_more_than_names}
"""The step from each version to the next; there is no way back, only the backup that is made first."""
APPLICATION_ID = 0x54554E45
BUSY_SECONDS = 20.0
"""How long a write waits for another process's write before it gives up."""


class Connection:
    """One connection to the registry's file, safe to use from several threads but not across a fork.

    Reads use the standard library; only writes pay for sqlite-utils' import.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`, made anew or migrated when needed; raises TunewrightError."""
        self.path = path
        self._lock = threading.RLock()
        self._tables: Tables = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_os_error(error, path.parent, "Making the folder") from error
        with self._explained():
            self._connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            with self._explained():
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the connection; a transaction that is open is rolled back."""
        with self._lock:
            self._connection.close()

    def read(self, sql: str, parameters: tuple[Any, ...] | dict[str, Any] = ()) -> list[sqlite3.Row]:
        """Return the rows that `sql` selects."""
        with self._lock, self._explained():
            return self._connection.execute(sql, parameters).fetchall()

    @contextlib.contextmanager
    def writing(self) -> Generator[Tables]:
        """Yield the tables inside one transaction that is on the disk when the block ends, or leaves no trace."""
        with self._lock, self._explained():
            if self._tables is None:
                self._tables = _wrap(self._connection)
            with self._transaction():
                yield self._tables

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None]:
        # Asking for the write lock at once is what makes the busy timeout work: a transaction that
        # begins as a reader and is overtaken by another writer fails without waiting.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite has rolled back by itself after a full disk
                self._connection.execute("ROLLBACK")
            raise

    def _prepare(self) -> None:
        connection = self._connection
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        # The rollback journal rather than WAL: writes are rare, it works on network file systems, and SQLite
        # before 3.51.3 can corrupt a WAL file that two connections write at once.
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "delete":
            connection.execute("PRAGMA journal_mode = DELETE")
        version = self._version()
        if version == 0:
            self._create()
        elif self._number("application_id") != APPLICATION_ID:
            raise _not_a_registry(self.path)
        elif version > SCHEMA_VERSION:
            raise TunewrightError(
                "Registry from a newer Tunewright",
                f"{self.path} has schema {version}; this version knows schemas up to {SCHEMA_VERSION}.",
                "Update with `pip install --upgrade tunewright`, or set TUNEWRIGHT_HOME to another folder.",
            )
        elif version < SCHEMA_VERSION:
            self._migrate(version)

    def _create(self) -> None:
        with self._transaction():
            if self._version() > 0:  # another process made it while this one waited for the lock
                return
            if self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise _not_a_registry(self.path)
            for statement in statements(schema()):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _migrate(self, version: int) -> None:
        """Back the file up, then take every step to the present version, each in a transaction with its stamp."""
        self._back_up(version)
        for start in range(version, SCHEMA_VERSION):
            with self.writing() as tables:
                if self._version() == start:  # otherwise another process took this step meanwhile
                    MIGRATIONS[start](tables)
                    tables.execute(f"PRAGMA user_version = {start + 1}")

    def _back_up(self, version: int) -> None:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        backup = self.path.with_name(f"{self.path.name}.v{version}-{stamp}-{os.getpid()}.backup")
        with contextlib.closing(sqlite3.connect(backup)) as copy:
            self._connection.backup(copy)

    def _version(self) -> int:
        return self._number("user_version")

    def _number(self, pragma: str) -> int:
        return int(self._connection.execute(f"PRAGMA {pragma}").fetchone()[0])

    @contextlib.contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            explained = explain_database_error(error, self.path)
            if explained is None:
                raise
            raise explained from error


def explain_database_error(error: sqlite3.Error, path: Path) -> TunewrightError | None:
    """Turn SQLite's `error` about the registry at `path` into one that says what to do; None for a mistake of ours."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return TunewrightError(
                "Registry busy",
                f"Another process has held {path} for more than {BUSY_SECONDS:.0f} s.",
                f"Wait until it is done and try again; `fuser {path}` names it.",
            )
        case sqlite3.SQLITE_FULL:
            return TunewrightError(
                "The disk is full",
                f"Writing {path} needs more space than is left on its disk. What was there before is unharmed.",
                "Free some space (`tunewright runs` lists what each run takes), or set TUNEWRIGHT_HOME to another disk.",
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return TunewrightError(
                "No permission",
                f"{path} cannot be opened for writing by this user: SQLite also writes a journal beside it.",
                f"Change the permissions (`ls -ld {path.parent} {path}` shows them), or set TUNEWRIGHT_HOME to a "
                "folder of your own.",
            )
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return _not_a_registry(path)
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_NOLFS | sqlite3.SQLITE_PROTOCOL:
            return TunewrightError(
                "The disk failed",
                f"SQLite could not read or write {path}: {error} ({error.sqlite_errorname}).",
                "Check the disk and try again; `sqlite3 FILE 'PRAGMA integrity_check'` tells whether the file is whole.",
            )
        case _:
            return None


def _not_a_registry(path: Path) -> TunewrightError:
    return TunewrightError(
        "Not a Tunewright registry",
        f"{path} is damaged, or belongs to another program.",
        f"Move it aside (`mv {path} {path}.aside`); a new one is made with the built-in recipes, "
        "and the runs are found again from their folders.",
    )


def _wrap(connection: sqlite3.Connection) -> Tables:
    """Return sqlite-utils' view of `connection`.

    sqlite-utils imports pandas and numpy when they are installed, to accept their types: half a second for nothing
    here. Python treats a module that is None as absent, so they are hidden while sqlite-utils is imported.
    """
    hidden = {"pandas", "numpy"} - sys.modules.keys() if "sqlite_utils" not in sys.modules else set[str]()
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(hidden))
    try:
        from sqlite_utils import Database
    finally:
        for name in hidden:
            del modules[name]
    return Database(connection, execute_plugins=False)
