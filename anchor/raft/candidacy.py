"""The votes of one campaign, pre-vote or vote (§5.2; thesis §9.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anchor.raft.configuration import Configuration


class Candidacy:
    """Who answered, and how."""

    def __init__(self) -> None:
        self._granted: set[str] = set()
        self._refused: set[str] = set()

    def count(self, voter: str, *, granted: bool) -> None:
        """One answer a voter; the first one counts."""
        if voter not in self._granted and voter not in self._refused:
            (self._granted if granted else self._refused).add(voter)

    def is_won(self, configuration: Configuration) -> bool:
        """A majority said yes."""
        return configuration.is_quorum(self._granted)

    def is_lost(self, configuration: Configuration) -> bool:
        """So many said no that no majority can say yes any more."""
        return not configuration.is_quorum(
            (configuration.voters | configuration.voters_outgoing) - self._refused
        )
