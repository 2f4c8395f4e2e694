"""What the jobs of one worker process have in common, kept from one to the next within a memory limit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class HasBytes(Protocol):
    """Something that knows its memory."""

    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=HasBytes)


class Recent(Generic[T]):
    """The values that were asked for last.

    A key holds the digest of the artifact that its value was read from, so that no value can be stale. Values are
    shared: whoever gets one leaves it unchanged.

    Args:
        limit_bytes: Memory of all values together; whoever knows the device only later may set it then.
    """

    def __init__(self, limit_bytes: int = 0) -> None:
        self.limit_bytes = limit_bytes
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key, made now where it isn't there; those asked for longest ago make room.

        A value larger than the limit is given and not kept.
        """
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        if value.nbytes <= self.limit_bytes:
            self._values[key] = value
            while sum(kept.nbytes for kept in self._values.values()) > self.limit_bytes:
                self._values.popitem(last=False)
        return value
