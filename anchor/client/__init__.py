"""A client for anchor's HTTP interface; standard library only.

::

    from anchor.client import Client

    with Client("host1:8001,host2:8001") as client:
        client.put("greeting", b"hello")
        client.get("greeting")        # b"hello", or None where there is no such key
        client.delete("greeting")

What it promises
================

- One deadline for each call (``timeout`` seconds), however many endpoints are tried in it.
- A read is tried again, at the next endpoint, after anything that may pass: an endpoint that
  cannot be reached, a cluster without a leader, an overloaded node. Between rounds it waits with
  full jitter, so that many clients do not come back at the same instant.
- A write is tried again only where it certainly had no effect: nothing could be sent, or the
  node says so. Where its fate is unknown the call raises :class:`CommitUnknown`, because sending
  it again could undo somebody else's later write.
- One tree of errors under :class:`ClientError`: :class:`NoLeader`, :class:`Unreachable`,
  :class:`CommitUnknown`, :class:`Refused`.
- A :class:`Client` may be shared by threads. It keeps connections open and reuses them.

Keys are bytes, or text that stands for its UTF-8; values are bytes, or text likewise.
"""

from anchor.client.client import Client
from anchor.client.errors import ClientError, CommitUnknown, NoLeader, Refused, Unreachable

__all__ = ["Client", "ClientError", "CommitUnknown", "NoLeader", "Refused", "Unreachable"]
