"""The answers of a study: an SQLite file, one transaction an answer."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from latentdrift.errors import DataError

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    reader TEXT NOT NULL,
    position INTEGER NOT NULL,
    image TEXT NOT NULL,
    rating INTEGER NOT NULL,
    diagnosis TEXT,
    quality INTEGER NOT NULL,
    comment TEXT NOT NULL,
    seconds REAL NOT NULL,
    revision INTEGER NOT NULL,
    answered_at REAL NOT NULL,
    PRIMARY KEY (reader, position)
);
CREATE TABLE IF NOT EXISTS showings (
    reader TEXT NOT NULL,
    position INTEGER NOT NULL,
    shown_at REAL NOT NULL,
    PRIMARY KEY (reader, position)
);
CREATE TABLE IF NOT EXISTS sessions (token TEXT PRIMARY KEY, reader TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Answer:
    """What a reader said to the image at a position of their order, from 0."""

    reader: str
    position: int
    image: str
    rating: int
    """1 surely real to 6 surely synthetic."""
    diagnosis: str | None
    quality: int
    """1 unusable to 5 excellent."""
    comment: str = ""
    seconds: float = 0.0
    revision: int = 1
    """1 when first given; one more with each change."""
    answered_at: float = 0.0
    """Seconds since 1970."""


COLUMNS = "reader, position, image, rating, diagnosis, quality, comment, seconds, revision, answered_at"


class Answers:
    """The answers in a file. Every call opens it anew, so that any thread may call.

    Args:
        path: the file; made where it is not there, unless `reading`.
        reading: only read; there must be a file.

    Raises:
        DataError: the file cannot be made or read, or is no file of answers.
    """

    def __init__(self, path: str | Path, *, reading: bool = False) -> None:
        self.path = Path(path)
        if reading and not self.path.is_file():
            raise DataError(
                f"There are no answers in {self.path}; readers give them with `latentdrift reader-study serve`."
            )
        if not reading:
            with self._open() as connection:
                # A reader of the file does not stop the writer.
                connection.execute("PRAGMA journal_mode=WAL")
                connection.executescript(SCHEMA)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self.path, timeout=30)
            try:
                with connection:  # one transaction: committed at the end, or rolled back
                    yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise DataError(
                f"{self.path}: {error}. Check that the folder is writable and the file is one of answers."
            ) from error

    def save(self, answer: Answer) -> bool:
        """Keep an answer; return False, keeping nothing, where it is not the next revision of what is there.

        A form that is sent twice, or from two windows, is so kept once; changing an answer later is a revision.
        """
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            row = connection.execute(
                "SELECT revision, seconds FROM answers WHERE reader = ? AND position = ?",
                (answer.reader, answer.position),
            ).fetchone()
            before, spent = row or (0, 0.0)
            if answer.revision != before + 1:
                return False
            connection.execute(
                f"INSERT OR REPLACE INTO answers ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    answer.reader,
                    answer.position,
                    answer.image,
                    answer.rating,
                    answer.diagnosis,
                    answer.quality,
                    answer.comment,
                    spent + answer.seconds,
                    answer.revision,
                    time.time(),
                ),
            )
        return True

    def of(self, reader: str) -> dict[int, Answer]:
        """Return a reader's answers by position."""
        return {one.position: one for one in self.all() if one.reader == reader}

    def all(self) -> list[Answer]:
        """Return every answer, by reader and position."""
        with self._open() as connection:
            rows = connection.execute(f"SELECT {COLUMNS} FROM answers ORDER BY reader, position").fetchall()
        return [Answer(*row) for row in rows]

    def shown(self, reader: str, position: int) -> None:
        """Remember that an image is being shown."""
        with self._open() as connection:
            connection.execute("INSERT OR REPLACE INTO showings VALUES (?, ?, ?)", (reader, position, time.time()))

    def since_shown(self, reader: str, position: int) -> float:
        """Return for how many seconds an image has been shown; 0 where that is not known."""
        with self._open() as connection:
            row = connection.execute(
                "SELECT shown_at FROM showings WHERE reader = ? AND position = ?", (reader, position)
            ).fetchone()
        return max(0.0, time.time() - row[0]) if row else 0.0

    def log_in(self, reader: str) -> str:
        """Return the token of a new session."""
        token = secrets.token_urlsafe(24)
        with self._open() as connection:
            connection.execute("INSERT INTO sessions VALUES (?, ?)", (token, reader))
        return token

    def who(self, token: str | None) -> str | None:
        """Return whose session it is, or None."""
        if not token:
            return None
        with self._open() as connection:
            row = connection.execute("SELECT reader FROM sessions WHERE token = ?", (token,)).fetchone()
        return str(row[0]) if row else None

    def log_out(self, token: str | None) -> None:
        """End a session."""
        with self._open() as connection:
            connection.execute("DELETE FROM sessions WHERE token = ?", (token or "",))
