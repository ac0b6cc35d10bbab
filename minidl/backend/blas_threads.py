"""How many threads BLAS runs on: NumPy and SciPy each bring a library, and each library has one setting.

Whoever multiplies beside threads of its own, or beside the training step, wants one thread per call, or every
core would be asked for twice.
"""

import threading
from collections.abc import Callable
from functools import cache
from typing import Any


class OneThread:
    """One thread per call inside `with`, for some libraries.

    Blocks of several Python threads may overlap: the first to enter limits, the last to leave restores.
    """

    def __init__(self, libraries: Callable[[], list[Any]]) -> None:
        self._libraries, self._lock, self._inside = libraries, threading.Lock(), 0
        self._before: list[int] = []

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = [library.get_num_threads() for library in self._libraries()]
                for library in self._libraries():
                    library.set_num_threads(1)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                for library, count in zip(self._libraries(), self._before, strict=True):
                    library.set_num_threads(count)


@cache
def libraries() -> tuple[list[Any], list[Any]]:
    """(SciPy's BLAS, which compiled kernels call; every other BLAS, NumPy's first of all).

    Where both share one library it is SciPy's.
    """
    import scipy.linalg  # noqa: F401  (loads its BLAS)
    from threadpoolctl import ThreadpoolController

    every = [lib for lib in ThreadpoolController().lib_controllers if lib.user_api == "blas"]
    ours = [lib for lib in every if _brought_by("scipy", lib)]
    return (ours, [lib for lib in every if lib not in ours]) if ours else (every, [])


@cache
def _numpys() -> list[Any]:
    return [lib for lib in libraries()[1] if _brought_by("numpy", lib)]


def _brought_by(package: str, library: Any) -> bool:
    """Whether a library lies in the folder of a package, or in its package.libs."""
    return package in str(library.filepath).replace("\\", "/").split("/site-packages/")[-1].split("/")[0]


scipy_on_one_thread = OneThread(lambda: libraries()[0])
numpy_on_one_thread = OneThread(_numpys)
