"""From a request's target to a key, byte for byte.

The target is taken raw, as it stood in the request line: a router that decodes or normalises it
first can no longer tell ``/`` from ``%2F``. RFC 9112 §3.2 names its forms; RFC 3986 §2.1 the
percent-encoding.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from anchor.api.answers import Problem, bad_request

KEY_PREFIX = b"/kv/"

# RFC 3986 §3.2.2's characters, and a port; not its grammar.
HOST = re.compile(rb"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]*")
_ABSOLUTE_FORM = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def origin_form(target: bytes) -> bytes:
    """Strip scheme and authority off a target in absolute form."""
    if target[:1] != b"/" and (absolute := _ABSOLUTE_FORM.match(target)):
        return target[absolute.end() :] or b"/"
    return target


def key_of(target: bytes, max_key_bytes: int) -> bytes:
    """Return the key that a target in origin form, below ``/kv/``, names. Raises a Problem."""
    encoded = target[len(KEY_PREFIX) :]
    if b"?" in encoded or b"#" in encoded:
        raise bad_request("a key ends with the target: write ? as %3F and # as %23")
    if b"%" not in encoded:
        key = encoded
    elif _BAD_ESCAPE.search(encoded):
        raise bad_request("a % in the key is not followed by two hexadecimal digits")
    else:
        key = unquote_to_bytes(encoded)
    if not key:
        raise bad_request("the key is empty")
    if len(key) > max_key_bytes:
        raise Problem(
            400, "key_too_large", f"the key has {len(key)} bytes; at most {max_key_bytes} are kept"
        )
    return key
