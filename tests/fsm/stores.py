"""State stores that live in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass
class DictStore:
    """The simplest ``StateStore``. ``refuse_writes`` makes it a full disk."""

    records: dict[bytes, bytes] = field(default_factory=dict)
    writes: int = 0
    refuse_writes: bool = False

    def get(self, key: bytes) -> bytes | None:
        """Give the record at ``key``."""
        return self.records.get(key)

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Make all changes, or none."""
        if self.refuse_writes:
            raise OSError("no space left")
        self.writes += 1
        for key, record in changes.items():
            if record is None:
                self.records.pop(key, None)
            else:
                self.records[key] = record

    def iterate(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Give all keys that start with ``prefix``, from ``start`` on, in order."""
        found = [item for item in self.records.items() if item[0].startswith(prefix)]
        return iter(sorted(item for item in found if item[0] >= start))
