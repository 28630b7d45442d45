"""What an operator may ask of the leader beside a join or a removal, as it is passed on to it.

An order travels as JSON in a ``JoinRequest``, so that what the wire knows need not grow with each.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from anchor.node.replacing import TargetMember

_FIELDS = {"id": str, "address": str, "http_address": str, "voter": bool}


@dataclass(frozen=True, slots=True)
class Promote:
    """Give a learner a vote, once it has caught up."""

    member_id: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """Let this voter lead; empty: any other."""

    member_id: str = ""


@dataclass(frozen=True, slots=True)
class Replace:
    """Make these the members."""

    targets: tuple[TargetMember, ...]
    force: bool = False


Order = Promote | Transfer | Replace


def encode(order: Order) -> bytes:
    """Write an order."""
    return json.dumps({"order": type(order).__name__, **asdict(order)}).encode()


def decode(encoded: bytes) -> Order:
    """Read an order; raises ValueError for what is none."""
    try:
        content = json.loads(encoded)
        match content["order"]:
            case "Promote":
                return Promote(_text(content["member_id"]))
            case "Transfer":
                return Transfer(_text(content["member_id"]))
            case "Replace":
                targets = tuple(_target(each) for each in content["targets"])
                return Replace(targets, force=content["force"] is True)
            case other:
                raise ValueError(f"an order that is not known here: {other!a:.40}")
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not an order: {error}") from None


def _target(fields: dict[str, object]) -> TargetMember:
    if {name: type(value) for name, value in fields.items()} != _FIELDS:
        raise TypeError("not a member")
    return TargetMember(**fields)  # type: ignore[arg-type]  # checked on the line before


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value
