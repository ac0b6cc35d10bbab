"""Module: a function with parameters, made of smaller ones.

A module's parameters, buffers and children are simply its attributes; every walk goes over them in the order
they were set, so set them in the order they run. Nothing needs `super().__init__()`, and there is no registry
beside the attributes themselves.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from minidl import backend
from minidl.autograd import Tensor, no_grad, tensor
from minidl.errors import CheckpointError, DTypeError

Hook = Callable[["Module", tuple[Any, ...], Any], None]
PreHook = Callable[["Module", tuple[Any, ...]], None]


class Parameter(Tensor):
    """A Tensor that a module learns: it requires a gradient. `data` is copied, as by `minidl.tensor`."""

    __slots__ = ()

    def __init__(self, data: Any) -> None:
        super().__init__(tensor(data).data, requires_grad=True)


class HookHandle:
    """What registering a hook returns; `remove()` ends the hook."""

    def __init__(self, hooks: "dict[HookHandle, Callable[..., None]]") -> None:
        self._hooks = hooks

    def remove(self) -> None:
        """Stop calling the hook.  Harmless when repeated."""
        self._hooks.pop(self, None)


class Module:
    """Base of all layers and networks: define `forward`, call the module.

    `training` says which of its two behaviours a layer such as dropout shows; `train()` and `eval()` set it
    for a whole tree.
    """

    training: bool = True

    def forward(self, *inputs: Any) -> Any:
        """What the module computes."""
        raise NotImplementedError(f"{type(self).__name__} has no forward method; define forward(self, x)")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        for before in tuple(self.__dict__.get("_forward_pre_hooks", {}).values()):
            before(self, inputs)
        try:
            output = self.forward(*inputs, **options)
        except Exception as error:
            _note_path(error, self)
            raise
        for hook in tuple(self.__dict__.get("_forward_hooks", {}).values()):
            hook(self, inputs, output)
        return output

    def register_forward_hook(self, hook: Hook) -> HookHandle:
        """Call hook(module, inputs, output) after each forward pass, until the handle's `remove()`."""
        return self._register("_forward_hooks", hook)

    def register_forward_pre_hook(self, hook: PreHook) -> HookHandle:
        """Call hook(module, inputs) before each forward pass, until the handle's `remove()`."""
        return self._register("_forward_pre_hooks", hook)

    def _register(self, kind: str, hook: Callable[..., None]) -> HookHandle:
        hooks = self.__dict__.setdefault(kind, {})
        handle = HookHandle(hooks)
        hooks[handle] = hook
        return handle

    def register_buffer(self, name: str, value: np.ndarray) -> None:
        """Keep an array that is part of the state but not learned, as attribute `name`."""
        self.__dict__.setdefault("_buffer_names", []).append(name)
        setattr(self, name, backend.asarray(value, backend.get_default_device()))

    # Walks, all in order of definition.
    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """(name, module) of the modules directly below."""
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Module))

    def children(self) -> "Iterator[Module]":
        """The modules directly below."""
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """(path, module) of itself ("") and all modules below, a parent before its children; a shared module
        comes once."""
        seen: set[int] = set()
        todo: list[tuple[str, Module]] = [(prefix, self)]
        while todo:
            path, module = todo.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            todo += [
                (f"{path}.{name}" if path else name, child)
                for name, child in reversed(list(module.named_children()))
            ]

    def modules(self) -> "Iterator[Module]":
        """Itself and all modules below."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter) of all parameters in the tree; a shared one comes once."""
        return self._named(lambda module, name, value: isinstance(value, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """All parameters in the tree."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, np.ndarray]]:
        """(path, array) of all buffers in the tree."""
        return self._named(lambda module, name, value: name in module.__dict__.get("_buffer_names", ()))

    def buffers(self) -> Iterator[np.ndarray]:
        """All buffers in the tree."""
        return (buffer for _, buffer in self.named_buffers())

    def _named(self, wanted: "Callable[[Module, str, Any], bool]") -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if wanted(module, name, value) and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{path}.{name}" if path else name), value

    def train(self, mode: bool = True) -> Self:
        """Set training behaviour (dropout drops, batch norm uses the batch) for the whole tree.

        Returns self.
        """
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Set evaluation behaviour for the whole tree; returns self."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, device: str | None = None, dtype: Any = None) -> Self:
        """Move parameters and buffers to another device or float dtype, in place; returns self.

        Build optimisers afterwards. DeviceError or DTypeError, and no change at all, for what is not there: a
        device, a dtype that networks compute in, float64 on a GPU.
        """
        if dtype is not None and np.dtype(dtype) not in (np.float32, np.float64):
            raise DTypeError(f"to: dtype is {np.dtype(dtype)}; networks compute in float32 or float64")
        state = self._state()  # keeps the arrays, and with them what `id` says, until all are replaced
        with no_grad():
            moved = {
                id(value): Tensor(value).to(device, dtype if value.dtype.kind == "f" else None).data
                for value in state.values()
            }
        for module in self.modules():
            buffers = module.__dict__.get("_buffer_names", ())
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value.data) in moved:
                    value.data, value.grad = moved[id(value.data)], None
                elif name in buffers and id(value) in moved:
                    setattr(module, name, moved[id(value)])
        return self

    def _state(self) -> dict[str, np.ndarray]:
        """Path -> the live array; a module's buffers follow its parameters, as they were set."""
        state = {}
        for path, module in self.named_modules():
            buffers = module.__dict__.get("_buffer_names", ())
            for name, value in vars(module).items():
                if isinstance(value, Parameter) or name in buffers:
                    state[f"{path}.{name}" if path else name] = (
                        value.data if isinstance(value, Parameter) else value
                    )
        return state

    def _host_state(self) -> dict[str, np.ndarray]:
        """Path -> the array itself on the CPU, a copy from another device."""
        return {name: backend.to_host(value) for name, value in self._state().items()}

    def state_dict(self) -> dict[str, np.ndarray]:
        """Path -> a NumPy copy of every parameter and buffer, in execution order."""
        return {name: np.array(value) for name, value in self._host_state().items()}

    def load_state_dict(self, state: dict[str, np.ndarray], strict: bool = True) -> None:
        """Copy values into parameters and buffers.

        CheckpointError, and no change at all, when a shape differs, or, if `strict`, a name is missing or
        unexpected.
        """
        self.check_state_dict(state, strict)
        own = self._state()
        for name, value in state.items():
            if name in own:
                backend.of(own[name]).setitem(own[name], ..., value)
        for parameter in self.parameters():
            parameter.mark_written()

    def check_state_dict(self, state: dict[str, np.ndarray], strict: bool = True) -> None:
        """CheckpointError where `load_state_dict` would raise it; loads nothing."""
        own = self._state()
        missing, unexpected = [n for n in own if n not in state], [n for n in state if n not in own]
        if strict and (missing or unexpected):
            raise CheckpointError(
                f"load_state_dict: missing {_listed(missing)}; unexpected {_listed(unexpected)}. Load into "
                f"the "
                "same network, or pass strict=False to take what fits by name"
            )
        for name, value in state.items():
            if name in own and np.shape(value) != own[name].shape:
                raise CheckpointError(
                    f"load_state_dict: {name} has shape {np.shape(value)} in the state but {own[name].shape} "
                    "in this network"
                )

    def options(self) -> str:
        """The constructor's arguments as `repr` shows them."""
        return ""

    def __repr__(self) -> str:
        lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        body = "\n" + "\n".join(lines) + "\n" if lines else self.options()
        return f"{type(self).__name__}({body})"


@contextmanager
def mode(module: Module, training: bool) -> Iterator[None]:
    """Training or evaluation behaviour inside; afterwards every module below is as it was."""
    before = [(each, each.training) for each in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for each, was in before:
            each.training = was


def _listed(names: list[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    return (
        ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
    ) or "nothing"


def as_input(module: Module, x: np.ndarray) -> Tensor:
    """A host array of numbers as a Tensor that the module can take: of its device and dtype, the defaults
    where it has no parameters."""
    first = next(module.parameters(), None)
    device = backend.get_default_device() if first is None else first.device
    return Tensor(backend.asarray(x.astype(np.float32 if first is None else first.dtype, copy=False), device))


def _note_path(error: Exception, module: Module) -> None:
    """Say in the error's notes which module it came from, by its path below the outermost module called."""
    source, path = getattr(error, "_minidl_source", (None, ""))
    for name, child in module.named_modules():
        if child is source and name:
            path = f"{name}.{path}" if path else name
            break
    notes = getattr(error, "__notes__", [])
    if source is not None and notes:
        notes.pop()
    where = (
        f"at {path} in {type(module).__name__}" if path else f"in {type(module).__name__}({module.options()})"
    )
    error.add_note(where)
    error._minidl_source = (module, path)  # type: ignore[attr-defined]
