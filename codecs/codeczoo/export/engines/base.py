"""What an engine is."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from codeczoo.export.shard import Facts


class Engine(ABC):
    """Has parts made."""

    @abstractmethod
    def run(self) -> Iterator[Facts]:
        """Has the parts made that are not there yet.

        Gives what became of the inputs of a shard so far, now and then, and in the end what became of all of them.
        Raises InputError when parts cannot be written; those that are there stay.
        """
