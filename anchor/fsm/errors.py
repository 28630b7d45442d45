"""Why a state machine cannot go on."""

from __future__ import annotations


class FsmError(Exception):
    """This member cannot follow the log; its node must stop."""


class OutOfOrderError(FsmError):
    """An entry that does not follow the last applied one."""


class MalformedPayloadError(FsmError):
    """A payload that is damaged, or of a newer version than this one."""


class MalformedStateError(FsmError):
    """A record of the store that is damaged, or of a newer version than this one."""
