"""A client for anchor's HTTP interface; standard library only.

::

    from anchor.client import Client

    with Client("host1:8001,host2:8001") as client:
        client.put("greeting", b"hello")
        client.get("greeting")        # b"hello", or None where there is no such key
        entry = client.entry("greeting")
        client.put_if("greeting", b"hi", mod_index=entry.mod_index)
        client.delete("greeting")

What it promises
================

- One deadline for each call (``timeout`` seconds), however many endpoints are tried in it.
- A read is tried again, at the next endpoint, after anything that may pass: an endpoint that
  cannot be reached, a cluster without a leader, an overloaded node. Between rounds it waits with
  full jitter, so that many clients do not come back at the same instant.
- So is a write, because the cluster recognizes it: it goes in a session, with a number, and is done
  once, however often it is sent. Each write in progress has a session of its own; they are opened
  when they are needed and deleted by ``close()``. With ``sessions=False``, for a program that does
  one write and ends, each write has a random key instead, remembered for ten minutes.
- :class:`CommitUnknown` is raised when the deadline passes and the fate of a write is still open,
  or when the cluster has forgotten the session meanwhile. Every other error of a write means that
  it had no effect.
- Members that were not named are found through those that were, and used when those fail.
- While not all members know sessions (a rolling upgrade) a write is tried again only where it
  certainly had no effect. So are changes of the members.
- One tree of errors under :class:`ClientError`: :class:`PreconditionFailed`, :class:`NoLeader`,
  :class:`Unreachable`, :class:`CommitUnknown`, :class:`Refused`.
- A :class:`Client` may be shared by threads and by greenlets, and be taken into a fork. It keeps
  connections open and reuses them.

Keys are bytes, or text that stands for its UTF-8; values are bytes, or text likewise.
"""

from anchor.client.client import Client
from anchor.client.entries import Entry
from anchor.client.errors import (
    ClientError,
    CommitUnknown,
    NoLeader,
    PreconditionFailed,
    Refused,
    Unreachable,
)

__all__ = [
    "Client",
    "ClientError",
    "CommitUnknown",
    "Entry",
    "NoLeader",
    "PreconditionFailed",
    "Refused",
    "Unreachable",
]
