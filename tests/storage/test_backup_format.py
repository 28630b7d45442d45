"""The file format of backups: what goes in comes out, and nothing else does."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchor.storage import backup_format
from anchor.storage.backup_format import BackupError, BackupHeader, encode_backup
from anchor.storage.backup_reader import BackupReader
from tests.storage.building import configuration

HEADER = BackupHeader(
    cluster_id="c",
    node_id="node1",
    last_included_index=7,
    last_included_term=2,
    configuration=configuration("node1", "node2"),
    configuration_index=3,
    digest="00" * 16,
    created="2026-01-02T03:04:05Z",
    version="0.1.0",
)
RECORDS = [(b"k%d" % number, b"v" * number) for number in range(9)]


def written(records: list[tuple[bytes, bytes]], part_bytes: int = 20) -> bytes:
    """Make a whole backup."""
    return b"".join(encode_backup(HEADER, records, part_bytes))


def read(content: bytes) -> tuple[BackupHeader, list[tuple[bytes, bytes]]]:
    """Read a whole backup."""
    reader = BackupReader(io.BytesIO(content).read, "f")
    records = [record for batch in reader.batches() for record in batch]
    assert reader.record_count == len(records)
    assert reader.bytes_read == len(content)
    return reader.header, records


@given(
    st.dictionaries(st.binary(min_size=1, max_size=40), st.binary(max_size=200)),
    st.integers(1, 500),
    st.integers(1, 64),
)
def test_what_is_written_is_read(
    records: dict[bytes, bytes], part_bytes: int, most_at_once: int
) -> None:
    """Header and records, whatever the size of parts, and of what the source gives at once."""
    content = written(sorted(records.items()), part_bytes)
    source = io.BytesIO(content)
    reader = BackupReader(lambda size: source.read(min(size, most_at_once)), "f")
    found = [record for batch in reader.batches() for record in batch]
    assert (reader.header, found) == (HEADER, sorted(records.items()))


def test_every_flipped_byte_is_refused() -> None:
    """Wherever it is, and with whichever bits of it."""
    content = written(RECORDS)
    assert read(content) == (HEADER, RECORDS)
    rng = random.Random(1)
    for at in range(len(content)):
        for flip in (0x01, 0x80, rng.randrange(1, 256)):
            altered = bytearray(content)
            altered[at] ^= flip
            with pytest.raises(BackupError, match=r"^f: "):
                read(bytes(altered))


def test_a_truncation_at_every_length_is_refused() -> None:
    """Also in between parts, also to nothing."""
    content = written(RECORDS)
    for length in range(len(content)):
        with pytest.raises(BackupError, match=r"not all there|is no backup"):
            read(content[:length])


def test_nothing_may_follow_the_end() -> None:
    """Two backups in one file are none."""
    with pytest.raises(BackupError, match="something follows its end"):
        read(written(RECORDS) + b"\0")


def parts(content: bytes) -> list[bytes]:
    """Take a backup apart: preamble and header, then each part."""
    pieces, at = [], backup_format.PREAMBLE.size
    while at < len(content):
        _, length = backup_format.PART_HEAD.unpack_from(content, at)
        end = at + backup_format.PART_HEAD.size + length + backup_format.PART_CHECKSUM.size
        pieces.append(content[at:end])
        at = end
    pieces[0] = content[: backup_format.PREAMBLE.size] + pieces[0]
    return pieces


def test_parts_cannot_be_moved_doubled_or_left_out() -> None:
    """Each is whole by itself, and yet only in its place."""
    head, first, second, *rest = parts(written(RECORDS))
    for wrong in (
        [head, second, first, *rest],
        [head, first, first, second, *rest],
        [head, second, *rest],
        [first, second, *rest],
    ):
        with pytest.raises(BackupError):
            read(b"".join(wrong))


def test_a_newer_format_is_named_as_such() -> None:
    """It is not called damaged."""
    content = bytearray(written(RECORDS))
    content[9] = 9
    with pytest.raises(BackupError, match="is a backup of format 9, this version of anchor knows"):
        read(bytes(content))


def crafted(*made: tuple[bytes, bytes]) -> bytes:
    """Make a file of parts whose checksums are right."""
    framing = backup_format._Framing()
    return framing.preamble() + b"".join(framing.part(kind, content) for kind, content in made)


def record(key: bytes, value: bytes) -> bytes:
    """Encode one record."""
    return backup_format.RECORD_HEAD.pack(len(key), len(value)) + key + value


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        ([(b"R", b"")], "does not begin with a header"),
        ([(b"H", b"{}")], "no backup that this version can read"),
        ([(b"H", b"[" * 100_000)], "no backup that this version can read"),
        ([(b"H", HEADER.encode()), (b"X", b"")], "a part of unknown kind"),
        ([(b"H", HEADER.encode()), (b"R", b"abc")], "no list of records"),
        ([(b"H", HEADER.encode()), (b"R", record(b"k", b"v")[:-1])], "no list of records"),
        ([(b"H", HEADER.encode()), (b"R", record(b"b", b"") + record(b"a", b""))], "out of order"),
        ([(b"H", HEADER.encode()), (b"R", record(b"", b""))], "out of order"),
        ([(b"H", HEADER.encode()), (b"E", b"")], "is damaged"),
        ([(b"H", HEADER.encode()), (b"E", bytes(40))], "not what its end says"),
    ],
)
def test_what_makes_no_sense_is_refused(made: list[tuple[bytes, bytes]], complaint: str) -> None:
    """Even if its checksums are right."""
    with pytest.raises(BackupError, match=complaint):
        read(crafted(*made))


def test_a_length_beyond_reason_is_not_believed() -> None:
    """Nobody allocates what a damaged length asks for."""
    content = written(RECORDS)
    at = len(parts(content)[0])
    altered = content[: at + 1] + b"\xff\xff\xff\xff" + content[at + 5 :]
    asked: list[int] = []
    source = io.BytesIO(altered)

    def note(size: int) -> bytes:
        asked.append(size)
        return source.read(size)

    with pytest.raises(BackupError, match="is damaged"):
        BackupReader(note, "f").verify()
    assert max(asked) <= backup_format.MAX_PART_BYTES
