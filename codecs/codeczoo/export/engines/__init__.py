"""Who makes which part of a plan. An engine decides nothing else: parts are the same whoever makes them."""

from codeczoo.export.engines.base import Engine as Engine
from codeczoo.export.engines.local import Local as Local
from codeczoo.export.engines.ranks import Ranks as Ranks

__all__ = ["Engine", "Local", "Ranks"]
