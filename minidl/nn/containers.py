"""Modules made of modules: one after another, side by side, or just a list."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from minidl import ops
from minidl.autograd import Tensor
from minidl.nn.module import Module


class ModuleList(Module):
    """Modules under the names "0", "1", ...; index or iterate it. It has no forward of its own."""

    def __init__(self, modules: Sequence[Module] = ()) -> None:
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> None:
        """Add a module at the end.  TypeError for what is none."""
        if not isinstance(module, Module):
            raise TypeError(
                f"{type(self).__name__}: item {len(self)} is a {type(module).__name__}; give modules "
                f"(nn.ReLU(), "
                "not ops.relu)"
            )
        setattr(self, str(len(self)), module)

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: int) -> Module:
        return list(self.children())[index]


class Sequential(ModuleList):
    """Modules run one after another: Sequential(a, b, ...) or, with names, Sequential({"conv": a, "pool":
    b})."""

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            super().__init__()
            for name, module in modules[0].items():
                if hasattr(type(self), name):
                    raise ValueError(
                        f"Sequential: a module cannot be called {name!r}, that is a method's name"
                    )
                setattr(self, name, module)
        else:
            super().__init__(modules)  # type: ignore[arg-type]

    def forward(self, x: Any) -> Any:
        for module in self.children():
            x = module(x)
        return x


class Concat(ModuleList):
    """Run every branch on the same input and put their channels behind one another.

    (N, H, W, C) -> (N, OH, OW, sum of channels)
    """

    def forward(self, x: Tensor) -> Tensor:
        return ops.concat([branch(x) for branch in self.children()], axis=-1)
