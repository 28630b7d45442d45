"""Unpacks anchor.pyz where it can be run from, and hands over to shiv's bootstrap.

An interpreter cannot load compiled modules out of a zip file, so the first start of a build
unpacks it, into ``anchor.pyz_<build id>/`` below the first of these directories that will do:

1. ``$SHIV_ROOT``, 2. ``$XDG_CACHE_HOME/anchor``, 3. ``$HOME/.cache/anchor``,
4. ``$CACHE_DIRECTORY`` (systemd), 5. ``anchor-<user id>`` in ``$TMPDIR``, /tmp, /var/tmp.

One will do if it is this user's, others cannot write to it, it is not mounted ``noexec``, and
there is room. One that somebody else has planted is passed over. A directory that is unpacked
already will do too if it belongs to root and cannot be written, as in a container image.

What was unpacked is believed for as long as the machine stays up: a power cut may have left
files empty. After that, and in the temporary directories, which get cleaned up file by file,
every file is compared with the archive once more, and only what differs is written. An
interrupted first start is mended in the same way. A lock makes the second of two first starts
wait for the first. Unpacked builds are never removed: an older anchor may be running from one.
"""

from __future__ import annotations

import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import zipfile
    from collections.abc import Iterator, Mapping
    from typing import IO

PIECE_BYTES = 1 << 16
BOOT_ID_PATH = "/proc/sys/kernel/random/boot_id"


class Unusable(Exception):  # noqa: N818 - it is an answer, not an error
    """This directory will not do; the message says why."""


def launch(archive_path: str) -> None:
    """Unpack the archive unless that has been done, and run it. Does not return."""
    # Children are started as [sys.executable, sys.argv[0], …], maybe from another directory.
    sys.argv[0] = archive_path = os.path.abspath(archive_path)
    name = directory_name(archive_path)
    passed_over = []
    for root, temporary in candidates(os.environ):
        try:
            provide(archive_path, root, name, temporary=temporary)
        except (Unusable, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            passed_over.append(f"{root} ({reason})")
            continue
        run(root)
    refuse(archive_path, passed_over)


def run(root: str) -> None:
    """Let shiv's bootstrap find what is unpacked and call the program."""
    # SHIV_ENTRY_POINT and its like, set for another archive of shiv's, would start another program.
    for variable in [name for name in os.environ if name.startswith("SHIV_")]:
        del os.environ[variable]
    os.environ["SHIV_ROOT"] = root
    import _bootstrap  # type: ignore[import-not-found]  # only in the archive

    _bootstrap.bootstrap()


def refuse(archive_path: str, passed_over: list[str]) -> None:
    """Say in one line what was tried and what to do about it."""
    tried = ", ".join(passed_over)
    sys.exit(
        f"{os.path.basename(archive_path)}: found no directory to unpack to and run from: {tried}; "
        f"set SHIV_ROOT to one"
    )


def directory_name(archive_path: str) -> str:
    """Tell the name shiv's bootstrap looks for: the archive's own name and its build id."""
    import json
    import zipimport

    settings = json.loads(zipimport.zipimporter(archive_path).get_data("environment.json"))
    return f"{os.path.basename(os.path.realpath(archive_path))}_{settings['build_id']}"


def candidates(environment: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    """Where to unpack to, best first, and whether the place is a temporary one."""

    def given(name: str) -> str:
        # An empty or relative path in these is to be ignored (XDG base directories, 0.8).
        value = environment.get(name, "").partition(":")[0]
        return value if os.path.isabs(value) else ""

    if environment.get("SHIV_ROOT"):
        yield os.path.abspath(os.path.expanduser(environment["SHIV_ROOT"])), False
    if given("XDG_CACHE_HOME"):
        yield os.path.join(given("XDG_CACHE_HOME"), "anchor"), False
    if given("HOME"):
        yield os.path.join(given("HOME"), ".cache", "anchor"), False
    if given("CACHE_DIRECTORY"):
        yield given("CACHE_DIRECTORY"), False
    for directory in (given("TMPDIR"), "/tmp", "/var/tmp"):
        if directory:
            yield os.path.join(directory, f"anchor-{os.geteuid()}"), True


def provide(archive_path: str, root: str, name: str, *, temporary: bool) -> None:
    """Make sure that the archive is unpacked below ``root``, or raise Unusable or OSError."""
    target = os.path.join(root, name)
    marker = os.path.join(target, ".unpacked")
    if not os.path.isdir(root):
        os.makedirs(root, mode=0o700)
    check_safe(root)
    check_executable(root)
    ready = is_marked(marker) and not temporary
    if ready or (os.path.exists(marker) and not os.access(root, os.W_OK)):
        return
    if not os.access(root, os.W_OK | os.X_OK):
        raise Unusable("not writable")
    unpack_once(archive_path, root, target, marker, temporary=temporary)


def check_safe(root: str) -> None:
    """Refuse a directory in which anybody else could plant what we are about to run."""
    status = os.stat(root)
    if status.st_uid not in (os.geteuid(), 0):
        raise Unusable("belongs to another user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Unusable("others can write to it")


def check_executable(root: str) -> None:
    """Refuse a file system that compiled modules cannot be loaded from."""
    if os.statvfs(root).f_flag & getattr(os, "ST_NOEXEC", 0):
        raise Unusable("mounted noexec")


def boot_id() -> str:
    """Tells this run of the machine from any other; empty where nothing does."""
    try:
        with open(BOOT_ID_PATH, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def is_marked(marker: str) -> bool:
    """Whether unpacking was finished, or checked again, since the machine started."""
    try:
        with open(marker, encoding="ascii", errors="replace") as file:
            return file.read() == boot_id()
    except OSError:
        return False


def unpack_once(archive_path: str, root: str, target: str, marker: str, *, temporary: bool) -> None:
    """Unpack under a lock, unless somebody else has done so meanwhile."""
    import fcntl
    import zipfile

    with open(os.path.join(root, f".{os.path.basename(target)}.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_marked(marker) and not temporary:
            return
        umask = os.umask(0o022)  # readable for all if root is, writable for nobody else
        try:
            with zipfile.ZipFile(archive_path) as archive:
                unpack(archive, target)
            with open(marker, "w", encoding="ascii") as file:
                file.write(boot_id())
        finally:
            os.umask(umask)


def unpack(archive: zipfile.ZipFile, target: str) -> None:
    """Make ``target`` hold what the archive does, writing only what is not there already."""
    for entry in archive.infolist():
        if not entry.filename.startswith("site-packages/"):
            continue
        path = os.path.join(target, entry.filename)
        if not is_intact(path, entry):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with archive.open(entry) as content:
                write(path, content, entry.external_attr >> 16)


def is_intact(path: str, entry: zipfile.ZipInfo) -> bool:
    """Whether a file is there with the size and the CRC that the archive tells."""
    import zlib

    try:
        if os.stat(path).st_size != entry.file_size:
            return False
        crc = 0
        with open(path, "rb") as file:
            for piece in pieces(file):
                crc = zlib.crc32(piece, crc)
    except OSError:
        return False
    return crc == entry.CRC


def pieces(file: IO[bytes]) -> Iterator[bytes]:
    """Read a file piece by piece: the largest would stay in this process's memory for good."""
    return iter(lambda: file.read(PIECE_BYTES), b"")


def write(path: str, content: IO[bytes], mode: int) -> None:
    """Write a file in one piece: a running program keeps the old one, never sees half."""
    beside = f"{path}.partial"
    with open(beside, "wb") as file:
        file.writelines(pieces(content))
    os.chmod(beside, mode & 0o777)
    os.replace(beside, path)
