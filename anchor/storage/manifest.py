"""The one thing we ask RocksDB's manifest: up to which change the tables may hold everything.

A manifest is a file of records, each a version edit: numbered fields, a few of which are skipped
by their known shape, most of them by their length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchor.storage.errors import CorruptionError
from anchor.storage.record_file import records

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LAST_SEQUENCE = 4
_SAFE_TO_IGNORE = 1 << 13  # fields from here on have a length before them
_END_OF_FILE_FIELDS = 1


class _Reader:
    """Reads protobuf-like numbers and strings from a version edit; raises IndexError at its end."""

    def __init__(self, edit: bytes) -> None:
        self._edit = edit
        self._position = 0

    def at_end(self) -> bool:
        return self._position >= len(self._edit)

    def number(self) -> int:
        shift = number = 0
        while True:
            byte = self._edit[self._position]
            self._position += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7

    def string(self) -> None:
        length = self.number()
        self._position += length

    def file_fields(self) -> None:
        while self.number() != _END_OF_FILE_FIELDS:
            self.string()


_N, _S, _F = _Reader.number, _Reader.string, _Reader.file_fields

# How to skip the fields of an edit, by number.
_SHAPES: dict[int, tuple[Callable[[_Reader], object], ...]] = {
    1: (_S,),  # comparator
    2: (_N,),  # log number
    3: (_N,),  # next file number
    5: (_N, _S),  # compaction cursor
    6: (_N, _N),  # deleted file
    7: (_N, _N, _N, _S, _S),  # new file, four formats
    100: (_N, _N, _N, _S, _S, _N, _N),
    102: (_N, _N, _N, _N, _S, _S, _N, _N),
    103: (_N, _N, _N, _S, _S, _N, _N, _F),
    9: (_N,),  # previous log number
    10: (_N,),  # lowest log number to keep
    200: (_N,),  # column family
    201: (_S,),  # added
    202: (),  # dropped
    203: (_N,),  # highest column family
    300: (_N,),  # atomic group
}


def current_manifest(database: Path) -> Path:
    """Give the manifest that ``CURRENT`` names; raises CorruptionError."""
    current = database / "CURRENT"
    try:
        name = current.read_text("ascii")
    except FileNotFoundError:
        missing = current if database.is_dir() else database
        raise CorruptionError(missing, "is missing") from None
    except UnicodeDecodeError:
        name = ""
    manifest = database / name.removesuffix("\n")
    if not name.startswith("MANIFEST-") or not name.endswith("\n") or "/" in name:
        raise CorruptionError(current, "does not name a manifest")
    if not manifest.is_file():
        raise CorruptionError(manifest, "is missing")
    return manifest


def last_sequence(manifest: Path) -> int | None:
    """Give the newest last sequence number, None if it has a field unknown here. Blocking."""
    newest = 0
    for record in records(manifest):
        edit = _Reader(record)
        try:
            while not edit.at_end():
                field = edit.number()
                if field == _LAST_SEQUENCE:
                    newest = max(newest, edit.number())
                elif field & _SAFE_TO_IGNORE:
                    edit.string()
                elif field not in _SHAPES:
                    return None
                else:
                    for skip in _SHAPES[field]:
                        skip(edit)
        except IndexError:
            raise CorruptionError(manifest, "has an edit that ends too early") from None
    return newest
