"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine makes a test slow, never wrong; a failure prints what replays it.
settings.register_profile("anchor", deadline=None, print_blob=True)
settings.load_profile("anchor")
