"""The stories in ``transcripts/``: each must unfold exactly as told.

After a change that is meant to change a story, ``ANCHOR_REWRITE_TRANSCRIPTS=1`` rewrites the
logs below the commands. Read the difference as you would read code.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.raft.transcript import play

STORIES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    """What happens is what the transcript says, line by line."""
    told = path.read_text()
    happened = play(told)
    if os.environ.get("ANCHOR_REWRITE_TRANSCRIPTS"):
        path.write_text(happened)
    else:
        assert happened.splitlines() == told.splitlines()


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_stories_are_the_same_in_every_process(hash_seed: str) -> None:
    """The order of a set of ids differs between processes: no message may depend on it."""
    script = (
        "from tests.raft.test_transcripts import STORIES\n"
        "from tests.raft.transcript import play\n"
        "for path in STORIES: assert play(path.read_text()) == path.read_text(), path\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_there_are_stories() -> None:
    """An empty directory would pass in silence."""
    assert len(STORIES) >= 10
