"""Arrays of the emulator: views are free, and NumPy computes nothing on them, for it could not on a GPU."""

import copy
import pickle
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidl.backend import cuda
from minidl.backend.cuda import emulator
from minidl.errors import DeviceError

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator builds kernels with g++")

SIM = emulator.Emulator()


@pytest.fixture
def x() -> emulator.SimArray:
    return SIM.upload(np.arange(12, dtype=np.float32).reshape(3, 4))


HOST = np.ones((3, 4), np.float32)


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x + 1,
        lambda x: 2 * x,
        lambda x: HOST - x,
        lambda x: x @ x.T,
        lambda x: -x,
        lambda x: x == x,
        lambda x: HOST < x,
        lambda x: np.exp(x),
        lambda x: np.add.reduce(x),
        lambda x: np.add(HOST, HOST, out=x),
        lambda x: HOST.copy().__iadd__(x),
        lambda x: x.__iadd__(1),
        lambda x: np.sum(x),
        lambda x: np.concatenate([x, HOST]),
        lambda x: np.where(HOST > 0, x, HOST),
        lambda x: np.copyto(x, HOST),
        lambda x: np.zeros_like(x),
        lambda x: x.sum(),
        lambda x: x.max(),
        lambda x: x.any(),
        lambda x: x.astype(np.int32),
        lambda x: x.copy(),
        lambda x: x.tolist(),
        lambda x: x[0, 0].item(),
        lambda x: x.fill(0),
        lambda x: x.sort(),
        lambda x: x.flatten(),
        lambda x: x.T.reshape(-1),
        lambda x: x.T.ravel(),
        lambda x: x.__setitem__(0, 1),
        lambda x: x[HOST > 0],
        lambda x: x[[0, 1]],
        lambda x: x[:, np.array([0, 1])],
        lambda x: float(x[0, 0]),
        lambda x: int(x[0, 0]),
        lambda x: bool(x[0, 0]),
        lambda x: 1.0 in x,
        lambda x: [*range(3)][x[0, 0].view("i4")],
        lambda x: copy.copy(x),
        lambda x: pickle.dumps(x),
    ],
)
def test_numpy_does_not_compute_on_its_arrays(x: emulator.SimArray, compute: Callable[[Any], Any]) -> None:
    with pytest.raises(DeviceError, match=r"NumPy was asked to compute .* use minidl's ops, or t.numpy\(\)"):
        compute(x)
    np.testing.assert_array_equal(SIM.download(x).ravel(), np.arange(12))


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[1:, ::-2],
        lambda x: x[..., None],
        lambda x: x[1],
        lambda x: x[2, 3],
        lambda x: x[2, 3, None],
        lambda x: x.T,
        lambda x: x.transpose(1, 0),
        lambda x: x.reshape(2, 6),
        lambda x: x.reshape((4, 3)),
        lambda x: x[:, :3].T.reshape(3, 1, 3),
        lambda x: x.ravel(),
        lambda x: x.view("u4"),
        lambda x: x[3:].reshape(4, 0),
        lambda x: list(x)[1],
        lambda x: list(x[0])[2],
        lambda x: np.ndarray.squeeze(x[:1]),
    ],
)
def test_views_are_free(x: emulator.SimArray, view: Callable[[Any], Any]) -> None:
    seen = view(x)
    assert type(seen) is emulator.SimArray
    assert seen.device == "cudasim"
    assert seen.size == 0 or np.shares_memory(np.asarray(seen), np.asarray(x))
    np.testing.assert_array_equal(SIM.download(seen), view(SIM.download(x)), strict=False)


def test_a_deep_copy_is_an_array_of_its_own(x: emulator.SimArray) -> None:
    y = copy.deepcopy(x[1:])
    assert type(y) is emulator.SimArray
    assert not np.shares_memory(np.asarray(x), np.asarray(y))
    np.testing.assert_array_equal(SIM.download(cuda.add(y, y)), 2 * np.arange(4, 12).reshape(2, 4))


def test_it_shows_its_values(x: emulator.SimArray) -> None:
    assert repr(x[0, :2]) == str(x[0, :2]) == "SimArray(array([0., 1.], dtype=float32))"


def test_live_and_peak_bytes() -> None:
    before = SIM.live_bytes()
    SIM.peak_bytes(True)
    array = SIM.empty((1000,), np.float32)
    view = array[1:]
    del array
    size = SIM.live_bytes() - before
    assert 4000 <= size < 4000 + 2000  # with the frame
    del view
    assert SIM.live_bytes() == before
    assert SIM.peak_bytes(False) == before + size
