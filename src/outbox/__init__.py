"""Telling other services what is finished: at least once, persisted, without ever blocking what is fresh.

See :class:`Outbox`. For receivers that do not speak HTTP bring a :class:`Sender` of your own, for another place to keep
items in a :class:`Deliveries`.
"""

from __future__ import annotations

from .http import HttpSender
from .memory import MemoryDeliveries
from .outbox import Outbox
from .ports import Deliveries, DeliveryFailed, Kept, Reconciled, Sender
from .sqlite import SqliteDeliveries
from .values import Answer, Item, OutboxOptions, Reply, key_of

__all__ = [
    "Answer",
    "Deliveries",
    "DeliveryFailed",
    "HttpSender",
    "Item",
    "Kept",
    "MemoryDeliveries",
    "Outbox",
    "OutboxOptions",
    "Reconciled",
    "Reply",
    "Sender",
    "SqliteDeliveries",
    "key_of",
]
