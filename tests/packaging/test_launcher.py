"""Where anchor.pyz unpacks itself: each rule of ``.build/launcher.py`` on its own."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import sys
import threading
import zipfile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.packaging.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import ModuleType

NAME = "anchor.pyz_0123"


def load_launcher() -> ModuleType:
    """Import the launcher, which is in no package."""
    spec = importlib.util.spec_from_file_location("launcher", ROOT / ".build" / "launcher.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


launcher: Any = load_launcher()


@pytest.fixture(name="archive")
def small_archive(tmp_path: Path) -> Path:
    """An archive with one module, and one file that is not to be unpacked."""
    path = tmp_path / "anchor.pyz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__main__.py", "")
        archive.writestr("site-packages/anchor/__init__.py", "whole = True\n")
        archive.writestr("site-packages/native.so", b"\x7fELF")
    return path


def provide(archive: Path, root: Path, *, temporary: bool = False) -> Path:
    """Unpack below ``root``; the unpacked module."""
    launcher.provide(str(archive), str(root), NAME, temporary=temporary)
    return root / NAME / "site-packages" / "anchor" / "__init__.py"


def roots(environment: Mapping[str, str]) -> list[str]:
    """The candidates that an environment gives."""
    return [root for root, _ in launcher.candidates(environment)]


def test_directories_are_tried_in_the_documented_order() -> None:
    """What was asked for first, then the caches, then the temporary directories."""
    environment = {
        "SHIV_ROOT": "/asked",
        "XDG_CACHE_HOME": "/xdg",
        "HOME": "/home/me",
        "CACHE_DIRECTORY": "/var/cache/anchor:/second",
        "TMPDIR": "/mine",
    }
    own = f"anchor-{os.geteuid()}"
    persistent = ["/asked", "/xdg/anchor", "/home/me/.cache/anchor", "/var/cache/anchor"]
    temporary = [f"/mine/{own}", f"/tmp/{own}", f"/var/tmp/{own}"]  # noqa: S108 - expected
    assert roots(environment) == persistent + temporary


def test_empty_and_relative_paths_are_ignored() -> None:
    """An unset HOME, or one set to nonsense, leaves the others to be tried."""
    environment = {"XDG_CACHE_HOME": "cache", "HOME": "", "CACHE_DIRECTORY": ""}
    assert roots(environment) == roots({})


def test_unpacks_only_what_is_to_be_imported(archive: Path, tmp_path: Path) -> None:
    """The start's own modules stay in the archive; the directory is this user's alone."""
    module = provide(archive, tmp_path / "root")
    assert module.read_text() == "whole = True\n"
    assert not (tmp_path / "root" / NAME / "__main__.py").exists()
    assert (tmp_path / "root").stat().st_mode & 0o777 == 0o700


def test_whatever_the_umask_nobody_else_can_write(archive: Path, tmp_path: Path) -> None:
    """An image may be prepared for all to read; what is unpacked stays as it is."""
    root = tmp_path / "root"
    root.mkdir(mode=0o755)
    before = os.umask(0)
    try:
        provide(archive, root)
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert not any(path.stat().st_mode & 0o022 for path in (root / NAME).rglob("*"))


def test_a_finished_copy_is_not_looked_at_again(archive: Path, tmp_path: Path) -> None:
    """A warm start reads one small file, however large the archive is."""
    module = provide(archive, tmp_path / "root")
    module.write_text("changed")
    assert provide(archive, tmp_path / "root").read_text() == "changed"


def test_an_interrupted_copy_is_completed(archive: Path, tmp_path: Path) -> None:
    """Without the mark of completion every file is compared and mended."""
    module = provide(archive, tmp_path / "root")
    (tmp_path / "root" / NAME / ".unpacked").unlink()
    module.write_text("who")
    native = module.parent.parent / "native.so"
    unchanged = native.stat().st_ino
    assert provide(archive, tmp_path / "root").read_text() == "whole = True\n"
    assert native.stat().st_ino == unchanged


def test_after_a_restart_of_the_machine_the_copy_is_checked(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may leave a file empty though the mark was written after it."""
    module = provide(archive, tmp_path / "root")
    module.write_text("")
    monkeypatch.setattr(launcher, "boot_id", lambda: "another")
    assert provide(archive, tmp_path / "root").read_text() == "whole = True\n"


def test_a_temporary_copy_is_checked_at_each_start(archive: Path, tmp_path: Path) -> None:
    """What cleans up /tmp takes single files away."""
    module = provide(archive, tmp_path / "root", temporary=True)
    module.unlink()
    assert provide(archive, tmp_path / "root", temporary=True).exists()


def test_a_running_program_keeps_the_file_it_has_open(archive: Path, tmp_path: Path) -> None:
    """Mending replaces a file; it never writes into one that may be mapped."""
    native = provide(archive, tmp_path / "root", temporary=True).parent.parent / "native.so"
    native.write_bytes(b"old!")
    with native.open("rb") as opened:
        provide(archive, tmp_path / "root", temporary=True)
        assert opened.read() == b"old!"
    assert native.read_bytes() == b"\x7fELF"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_directory_others_can_write_to_is_refused(
    archive: Path, tmp_path: Path, mode: int
) -> None:
    """Whoever can write there could have us run what they like."""
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(mode)
    with pytest.raises(launcher.Unusable, match="others can write to it"):
        provide(archive, root)


def test_a_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory planted in /tmp under the name we would use is not used."""
    (tmp_path / "root").mkdir()
    status = SimpleNamespace(st_uid=os.geteuid() + 1, st_mode=0o40700)
    monkeypatch.setattr(launcher.os, "stat", lambda _: status)
    with pytest.raises(launcher.Unusable, match="belongs to another user"):
        launcher.check_safe(str(tmp_path / "root"))


def test_a_noexec_file_system_is_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled modules could be written there, but not loaded."""
    flags = SimpleNamespace(f_flag=os.ST_NOEXEC)
    monkeypatch.setattr(launcher.os, "statvfs", lambda _: flags)
    with pytest.raises(launcher.Unusable, match="noexec"):
        provide(archive, tmp_path / "root")


def test_a_finished_copy_that_cannot_be_written_is_used(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container image may bring the unpacked copy along, read-only."""
    module = provide(archive, tmp_path / "root")
    monkeypatch.setattr(launcher, "boot_id", lambda: "another")
    monkeypatch.setattr(launcher.os, "access", lambda *_: False)
    before = module.stat()
    assert provide(archive, tmp_path / "root").stat() == before


def test_an_unwritable_directory_without_a_copy_is_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing there and no way to put it there: try the next."""
    (tmp_path / "root").mkdir(mode=0o700)
    monkeypatch.setattr(launcher.os, "access", lambda *_: False)
    with pytest.raises(launcher.Unusable, match="not writable"):
        provide(archive, tmp_path / "root")


def test_the_second_of_two_first_starts_waits_for_the_first(archive: Path, tmp_path: Path) -> None:
    """While one unpacks, others hold still, then find all done."""
    root = tmp_path / "root"
    root.mkdir(mode=0o700)
    done = threading.Event()

    def second() -> None:
        provide(archive, root)
        done.set()

    with (root / f".{NAME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=second)
        waiting.start()
        assert not done.wait(0.2)
        assert not (root / NAME).exists()
    waiting.join(10)
    assert done.is_set()
    assert (root / NAME / ".unpacked").exists()


def test_with_nowhere_to_go_it_says_so_in_one_line(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names each place that was tried, why not, and what to do."""
    places = [(str(archive), False), (str(tmp_path / "shared"), True)]
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    monkeypatch.setattr(launcher, "candidates", lambda _: iter(places))
    monkeypatch.setattr(launcher, "directory_name", lambda _: NAME)
    with pytest.raises(SystemExit) as stopped:
        launcher.launch(str(archive))
    message = str(stopped.value)
    assert message.count("\n") == 0
    assert f"{tmp_path}/shared (others can write to it)" in message
    assert message.endswith("set SHIV_ROOT to one")


def test_what_is_set_for_other_archives_of_shiv_does_not_reach_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SHIV_INTERPRETER would start a Python prompt instead of anchor."""
    left: dict[str, str] = {}
    bootstrap = SimpleNamespace(bootstrap=lambda: left.update(os.environ))
    monkeypatch.setitem(sys.modules, "_bootstrap", cast("ModuleType", bootstrap))
    for name in ("SHIV_INTERPRETER", "SHIV_ENTRY_POINT", "SHIV_CONSOLE_SCRIPT", "SHIV_ROOT"):
        monkeypatch.setenv(name, "another")
    launcher.run(str(tmp_path))
    assert {name for name in left if name.startswith("SHIV_")} == {"SHIV_ROOT"}
    assert left["SHIV_ROOT"] == str(tmp_path)
