"""What an engine is."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from codeczoo.export.shard import Facts


class Engine(ABC):
    """Has parts made."""

    @abstractmethod
    def run(self) -> Iterator[Facts]:
        """Has all parts made that are not there yet, and ends when all are there.

        Gives what became of the inputs of a shard so far, as often as it likes, and once more when its part is there.
        Raises InputError when parts cannot be made; those that are there stay.
        """
