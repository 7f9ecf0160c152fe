"""Who takes which shard of a plan. An engine decides nothing else: parts are the same whoever makes them."""

from codeczoo.export.engines.base import Engine as Engine
from codeczoo.export.engines.local import Local as Local

__all__ = ["Engine", "Local"]
