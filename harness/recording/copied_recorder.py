"""What a recorder is in copies and pickles of the model or trainer that holds it."""

from __future__ import annotations

from typing import Any


class CopiedRecorder:
    """Takes the place of a recorder in copies, so that what holds one can be copied and saved.

    Example:
        >>> CopiedRecorder().step()
        Traceback (most recent call last):
        AttributeError: step: this is a copy of a Recorder, which observes nothing and holds no data; create \
a new Recorder of the copied model
    """

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{name}: this is a copy of a Recorder, which observes nothing and holds no data; create a new "
            "Recorder of the copied model"
        )


class Uncopied:
    """An object whose copies and pickles are `CopiedRecorder`s: it belongs to one model in one process."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return CopiedRecorder, ()
