"""Tests of the consensus core, from the outside: whole clusters, the paper's claims, the traps."""
