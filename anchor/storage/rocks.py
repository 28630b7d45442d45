"""How anchor opens RocksDB.

The binding keeps the GIL inside ``write``, ``get`` and ``create_checkpoint`` and releases it inside
``flush_wal``, ``flush``, ``compact_range`` and ``close``. So a write is never synchronous: it goes
to the page cache (some µs, hub-safe), and a native thread makes it durable with ``flush_wal``.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteOptions,
)

from anchor.storage.errors import translate

if TYPE_CHECKING:
    from pathlib import Path

    from rocksdict import RdictIter

LOG_FAMILY = "log"
STABLE_FAMILY = "stable"

_MEBIBYTE = 1 << 20


def _database_options() -> Options:
    """Options both databases share: careful, small, and quiet."""
    options = Options(raw_mode=True)
    options.set_paranoid_checks(True)
    # The default, point in time, drops acknowledged writes after a flipped bit without a word.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_is_fd_close_on_exec(True)
    options.set_max_background_jobs(2)
    options.set_max_open_files(256)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(_MEBIBYTE)
    options.set_max_manifest_file_size(4 * _MEBIBYTE)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    options.set_bytes_per_sync(_MEBIBYTE)
    return options


def _log_tables(cache: Cache) -> BlockBasedOptions:
    """Tables that are read from end to end, if at all."""
    tables = BlockBasedOptions()
    tables.set_block_cache(cache)
    tables.set_block_size(16 << 10)
    tables.set_format_version(5)
    return tables


def _state_tables(cache: Cache) -> BlockBasedOptions:
    """Tables that are looked into.

    Indexes and filters are cut to pieces and cached like everything else, so that memory stays
    bounded however much there is. Whole, they push each other out of a cache of this size: a
    lookup among 3,000,000 keys then took 150 to 250 µs instead of 15 to 60.
    """
    tables = BlockBasedOptions()
    tables.set_block_cache(cache)
    tables.set_block_size(4 << 10)
    tables.set_format_version(5)
    tables.set_cache_index_and_filter_blocks(True)
    tables.set_index_type(BlockBasedIndexType.two_level_index_search())
    tables.set_partition_filters(True)
    tables.set_metadata_block_size(4 << 10)
    tables.set_pin_top_level_index_and_filter(True)
    tables.set_bloom_filter(10, False)
    return tables


def _buffers(options: Options, *, count: int, size_bytes: int) -> None:
    options.set_write_buffer_size(size_bytes)
    options.set_max_write_buffer_number(count)


def open_raft(path: Path, *, create: bool = False, read_only: bool = False) -> Rdict:
    """Open ``raft.db`` with its two column families. Blocking: replays the WAL."""
    cache = Cache(2 * _MEBIBYTE)
    families = {}
    for name, size_bytes in (
        ("default", _MEBIBYTE // 4),
        (STABLE_FAMILY, _MEBIBYTE // 4),
        (LOG_FAMILY, 4 * _MEBIBYTE),
    ):
        families[name] = family = Options(raw_mode=True)
        _buffers(family, count=3, size_bytes=size_bytes)
        family.set_block_based_table_factory(_log_tables(cache))
        family.set_compression_type(DBCompressionType.none())
        # Small, because the newest table of the log is merged again each time: the count of writes
        # (anchor.storage.raft_database) lies behind all entries.
        family.set_target_file_size_base(8 * _MEBIBYTE)
    options = _database_options()
    options.create_if_missing(create)
    options.create_missing_column_families(create)
    # Both families are flushed together, so that no table is ahead of a log that others need,
    # and a log that is missing is noticed (anchor.storage.write_ahead_log).
    options.set_atomic_flush(True)
    options.set_max_total_wal_size(12 * _MEBIBYTE)
    return _open(path, options, families, read_only=read_only)


def open_state(path: Path, *, create: bool = False, read_only: bool = False) -> Rdict:
    """Open a generation of the state. Blocking."""
    options = _database_options()
    options.create_if_missing(create)
    _buffers(options, count=3, size_bytes=8 * _MEBIBYTE)
    options.set_block_based_table_factory(_state_tables(Cache(16 * _MEBIBYTE)))
    options.set_compression_type(DBCompressionType.lz4())
    return _open(path, options, None, read_only=read_only)


def _open(
    path: Path, options: Options, families: dict[str, Options] | None, *, read_only: bool
) -> Rdict:
    access = AccessType.read_only(False) if read_only else AccessType.read_write()
    try:
        return Rdict(str(path), options, column_families=families, access_type=access)
    except Exception as error:  # noqa: BLE001 - the binding raises nothing narrower
        raise translate(error, path) from None


def measure(family: Rdict, *properties: str) -> int:
    """Give the sum of some of RocksDB's own figures about it. Hub-safe, some µs."""
    return sum(family.property_int_value(f"rocksdb.{name}") or 0 for name in properties)


def close(path: Path, parts: list[Rdict]) -> None:
    """Close all ``parts`` of a database; the caller may not refer to them any more. Blocking.

    Closing flushes. What cannot be flushed stays in the write-ahead log, if there is one, and the
    database is closed all the same; the last complaint is raised then.
    """
    complaint: Exception | None = None
    while parts:
        try:
            parts[0].close()
        except Exception as error:  # noqa: BLE001 - the binding raises nothing narrower
            complaint = error
        del parts[0]
    if complaint is not None:
        raise translate(complaint, path) from None


def read_on(family: Rdict, path: Path, start: bytes, seconds: float) -> bytes | None:
    """Read from ``start`` for so long, checksums and all; give where to go on, None at the end.

    Raises CorruptionError.
    """
    iterator = family.iter(passing_by())
    iterator.seek(start)
    deadline = perf_counter() + seconds
    while iterator.valid():
        if perf_counter() >= deadline:
            next_key: bytes = iterator.key()
            if next_key != start:
                return next_key
        iterator.next()
    check_status(iterator, path)
    return None


def check_status(iterator: RdictIter, path: Path) -> None:
    """Raise what ended an iteration, if it was not the last key: damage ends it too."""
    try:
        iterator.status()
    except Exception as error:  # noqa: BLE001 - the binding raises nothing narrower
        raise translate(error, path) from None


def without_wal() -> WriteOptions:
    """Write options for the state: its log is the raft log."""
    options = WriteOptions()
    options.disable_wal = True  # type: ignore[method-assign,assignment]  # so it really is
    return options


def passing_by() -> ReadOptions:
    """Read options for a scan that must not push what is in use out of the cache."""
    options = ReadOptions()
    options.set_verify_checksums(True)
    options.fill_cache(False)  # type: ignore[call-arg]  # the stub forgets the argument
    return options
