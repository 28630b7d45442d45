"""How fresh a read has to be."""

from __future__ import annotations

from enum import Enum


class Consistency(Enum):
    """The values of ``X-Consistency``."""

    LINEARIZABLE = (
        "linearizable"  # sees every write answered before it was asked, whatever clocks do
    )
    LEASE = "lease"  # the same, as long as clocks drift from each other within bounds
    STALE = "stale"  # what this node happens to have
