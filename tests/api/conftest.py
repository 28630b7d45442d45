"""One server for all tests of a module that do not change how it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api.serving import Client, Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a server as patient as it is by default."""
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def impatient_server() -> Iterator[Server]:
    """Return a server whose patience is short."""
    with serving(head_timeout=0.8, body_timeout=0.8, idle_timeout=1.5) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """Return a fresh connection to the patient one."""
    with server.client() as connected:
        yield connected


@pytest.fixture
def hurried_client(impatient_server: Server) -> Iterator[Client]:
    """Return a fresh connection to the impatient one."""
    with impatient_server.client() as connected:
        yield connected
