"""The HTTP front door: Falcon resources, the Gunicorn application and its worker.

This page is the composition root's manual.

The caller's duties, in order
=============================

1. **Bind first**, and listen: an address that is in use is for the caller to report, before
   anything has been started.
2. **Serve.** ``return server.serve(Limits.of(settings), start_node, listener)``. It forks one
   worker and returns the exit status once all is over. Nothing that the node needs (gRPC, RocksDB,
   Falcon) may be imported, let alone made, before: the parent stays small, and no gRPC object may
   exist before the fork.
3. **start_node** is called once, in the worker, when the monkey-patching is done. It imports what
   it needs, starts the node, and returns it as a :class:`store.Store`. If it raises, ``str()`` of
   the exception is logged as one line and the process ends with status 1.
4. **fatal.** A node that must not go on calls ``server.fatal(message)``: one line, status 1, now.

For a test, or another WSGI server, ``app.create_app(store, limits)`` is all there is.

Theory of operation
===================

What an answer *is* gets decided in one place: :meth:`kv.KeyValues.handle` takes method, target,
what else is asked (:class:`asked.Asked`) and a way to read the body, and returns an
:class:`answers.Answer`. Two paths lead there, so they cannot differ:

- The **short path** (``conversation.py``, ``plain.py``) serves the plain request: HTTP/1.1, a
  ``/kv/`` target, a Content-Length body or none, no header that would change how the message is
  framed. Parsed in C, answered in one send. Clients send the same fields with each request, so what
  they mean is remembered, but for those that change each time: a sequence, a key, a tag.
- Everything else, the bytes unread, goes **Gunicorn's own way** into Falcon: chunked bodies,
  Expect, HTTP/1.0, other routes, whatever is malformed or merely odd. When in doubt, it is odd.

A write may come on terms (``terms.py``, ``etags.py``, ``sessions.py``): only if the key is as
expected, only once however often it is sent. They are read here, strictly, and judged by the state
machine when the write is applied; only the conditions of a read are judged here.

Time limits cost no timer per request: a connection has a deadline, and one greenlet looks at all of
them four times a second (``connection.py``).

The routes
==========

=====================================  ========================================================
``GET``, ``HEAD /kv/{key}``            200 with the value, or a document of it; 304, 404, 412
``PUT``, ``POST /kv/{key}``            200 ``OK``; the body is the value; 412
``DELETE /kv/{key}``                   200 ``OK``, also when the key was not there; 412
``POST /sessions``                     201, a JSON object
``POST /sessions/{id}/keepalive``      200, the same; 404, 410
``DELETE /sessions/{id}``              200 ``OK``, also when it has ended; 404
``GET``, ``HEAD /status``              200, a JSON object
``POST /join``, ``POST /remove``       200 ``OK`` once it is done
``GET``, ``HEAD /snapshot``            200, a backup in chunks (``snapshot.py``, ``pacing.py``)
``GET``, ``HEAD /livez``, ``/readyz``  200 ``OK``; ``/readyz`` 503 without a leader, or removed
=====================================  ========================================================

A target is taken as it was sent. Nothing is normalised: ``/kv/../x`` is the key ``../x``, and
``/%6bv/x`` is no route. A literal ``?`` or ``#`` after ``/kv/`` is refused (400) rather than cut
off, since ``PUT /kv/a?b`` would otherwise write ``a``; elsewhere a query is ignored. A write
with a condition by time (``If-Unmodified-Since``) is refused (501), not done unconditionally.
"""

from __future__ import annotations
