"""Which forwards are traced: the first, later the 16th, 32nd, …, and those that may call something new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from harness.hooks.course import Course, course_of
from harness.hooks.forward_state import ForwardState

WARM_UP = 8  # forwards traced after attaching, after a module was added, and after an unknown call
MOST = 7  # doublings of that number
MANY = 10_000  # largest number of remembered sets of trained parameters


class TraceSchedule:
    """Decides which forwards of a model are traced.

    Args:
        model: the root module.

    Attributes:
        with_graph: whether a traced forward had a graph.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._left = self._left_without = WARM_UP  # forwards to trace, with and without a graph
        self._parameters: tuple[nn.Parameter, ...] = ()  # as of the last traced forward
        self._trained: set[tuple[bool, ...]] = set()  # requires_grad of the parameters in traced forwards
        self._trains: list[bool] = []  # the same in the last forward that was not traced
        self.with_graph = False

    @property
    def is_over(self) -> bool:
        """Whether the forwards to trace have been traced."""
        return (self._left if self.with_graph else self._left_without) <= 0

    def warm_up(self, again: int = 0) -> None:
        """Trace the next forwards, twice as many each time that the same is asked `again`."""
        due = WARM_UP << min(again, MOST)
        self._left, self._left_without = max(self._left, due), max(self._left_without, due)

    def is_due(
        self,
        state: ForwardState,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        course: Course,
        *,
        every: bool,
    ) -> bool:
        """Whether a forward of a module is traced; notes the course it takes.

        Args:
            state: its state.
            module: the root module, or a part that is called on its own.
            args: its arguments.
            kwargs: its keyword arguments.
            course: the course of the running forward.
            every: whether all forwards are traced.
        """
        due = every or state.forward & (state.forward - 1) == 0
        if not state.graph:
            course.taken = course_of(module, args, kwargs)
            return due or self._left_without > 0 or not course.is_traced
        trained = [p.requires_grad for p in self._parameters]  # if other parameters train, makings differ
        course.taken = module, module.training, tuple(trained)
        due = due or self._left > 0 or (trained != self._trains and tuple(trained) not in self._trained)
        if not due:
            self._trains = trained
        return due

    def begin(self, *, graph: bool) -> None:
        """Begin to trace a forward, with or without a graph."""
        self.with_graph |= graph
        self._left -= graph
        self._left_without -= not graph
        if graph:
            parameters = tuple(self._model.parameters())
            if len(parameters) != len(self._parameters) or len(self._trained) > MANY:
                self._trained.clear()
            self._parameters = parameters
            self._trained.add(tuple([p.requires_grad for p in parameters]))
