"""Requests as they come in, kept as bursts in flat arrays: a hundred bytes are not spent on a request, but six numbers
on a burst."""

from __future__ import annotations

from array import array

import numpy as np

from controlplane.domain.forecast.activity import Floats, Ints, Requests

MINUTE_S = 60.0
MERGED_S = 5.0  # requests of a model closer together are one burst: less than any sensible keep-alive


class Bursts:
    """Rows may come in any order; those of a model that come in the order of time are merged. Rows that tell tokens are
    so only within a minute: a long burst would else have all its tokens where it begins."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._model, self._number = array("q"), array("q")
        self._at, self._until = array("d"), array("d")
        self._prompt, self._completion = array("q"), array("q")
        self._told = False
        self._open: dict[int, int] = {}  # each model's latest burst, by its place in the arrays

    def add(
        self, name: str, begun: float, ended: float, number: int = 1, tokens: tuple[int, int] | None = None
    ) -> None:
        """`tokens`: of prompts and of answers; None: not told."""
        model = self._places.setdefault(name, len(self._places))
        ended = max(begun, ended)
        prompt, completion = tokens or (0, 0)
        self._told |= tokens is not None
        last = self._open.get(model)
        if (
            last is not None
            and self._at[last] <= begun <= self._until[last] + MERGED_S
            and (tokens is None or begun // MINUTE_S == self._at[last] // MINUTE_S)
        ):
            self._until[last] = max(self._until[last], ended)
            self._number[last] += number
            self._prompt[last] += prompt
            self._completion[last] += completion
            return
        self._open[model] = len(self._at)
        self._model.append(model)
        self._at.append(begun)
        self._until.append(ended)
        self._number.append(number)
        self._prompt.append(prompt)
        self._completion.append(completion)

    def extend(self, name: str, begun: Floats, ended: Floats, number: Ints) -> None:
        """Of one model, and merged already."""
        model = self._places.setdefault(name, len(self._places))
        self._model.extend([model] * len(begun))
        self._at.frombytes(begun.tobytes())
        self._until.frombytes(ended.tobytes())
        self._number.frombytes(number.tobytes())
        self._prompt.extend([0] * len(begun))
        self._completion.extend([0] * len(begun))

    def requests(self) -> Requests:
        model, number = np.frombuffer(self._model, np.int64), np.frombuffer(self._number, np.int64)
        at, until = np.frombuffer(self._at, np.float64), np.frombuffer(self._until, np.float64)
        columns = [np.frombuffer(one, np.int64) for one in (self._prompt, self._completion)]
        tokens = np.stack(columns, -1) if self._told else None
        return Requests.of(tuple(self._places), model, at, until, number, tokens=tokens)
