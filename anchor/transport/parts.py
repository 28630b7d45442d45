"""What all pieces of one transport share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from anchor.transport.admission import Admission
    from anchor.transport.greenlets import Greenlets
    from anchor.transport.handler import TransportHandler
    from anchor.transport.options import TransportOptions
    from anchor.transport.rpc import Pump


@dataclass(frozen=True, slots=True)
class Parts:
    """One of each for a transport."""

    admission: Admission
    handler: TransportHandler
    options: TransportOptions
    greenlets: Greenlets
    rng: random.Random
    pump: Pump
