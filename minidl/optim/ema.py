"""Exponential moving average of parameters: a smoother copy to evaluate with, while training goes on."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from minidl import backend
from minidl.autograd import Tensor
from minidl.backend import Array
from minidl.optim.optimizer import State, check_keys, number, read_array, read_number, tensors, to_host


class EMA:
    """Keeps an exponential moving average of every parameter.

    average = decay * average + (1 - decay) * p at each `update`; it starts at the parameter's value and so
    needs no bias correction. `averages` are arrays in the order of the parameters.

        ema = EMA(model.parameters(), decay=0.999)
        ...; optimizer.step(); ema.update()
        with ema.applied(): model.evaluate(data)

    Szegedy et al. 2015, arXiv:1512.00567, section 8, evaluate with it.  ValueError for no parameters or
    unless 0 <= decay < 1; TypeError for what is no Tensor.
    """

    def __init__(self, params: Iterable[Tensor], decay: float = 0.9999) -> None:
        self.params = tensors(params, "EMA")
        if not self.params:
            raise ValueError("EMA: params is empty (a generator that was used up?)")
        self.decay = number("EMA", "decay", decay, below=1.0)
        self.averages = [backend.of(p.data).copy(p.data) for p in self.params]
        self._applied = False

    def update(self) -> None:
        """Move every average towards its parameter.  RuntimeError inside `applied`."""
        if self._applied:
            raise RuntimeError("EMA.update: inside applied() the parameters hold the averages")
        for average, p in zip(self.averages, self.params, strict=True):
            backend.of(average).ema_update(average, p.data, decay=self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the parameters hold their averages; after it, come what may, what was there.

        What is written to the parameters inside is lost.  RuntimeError inside another such block.
        """
        if self._applied:
            raise RuntimeError("EMA.applied: the averages are applied already")
        kept = [backend.of(p.data).copy(p.data) for p in self.params]
        self._applied = True
        try:
            self._write(self.averages)
            yield
        finally:
            self._applied = False
            self._write(kept)

    def copy_to_params(self) -> None:
        """Give the parameters the values of their averages, for good."""
        self._write(self.averages)

    def state_dict(self) -> State:
        """The decay and copies of the averages, as plain data."""
        averages = {f"average.{i}": to_host(average) for i, average in enumerate(self.averages)}
        return {"decay": self.decay, **averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned.  CheckpointError, naming the key, if it does not fit."""
        where = "EMA.load_state_dict"
        check_keys(state, ["decay", *(f"average.{i}" for i in range(len(self.params)))], where)
        decay = read_number(state, "decay", self.decay, where, below=1.0)
        self.averages = [read_array(state, f"average.{i}", p.data, where) for i, p in enumerate(self.params)]
        self.decay = decay

    def _write(self, values: list[Array]) -> None:
        for p, value in zip(self.params, values, strict=True):
            backend.of(p.data).copy_into(p.data, value)
            p.mark_written()
