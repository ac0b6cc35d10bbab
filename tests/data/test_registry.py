"""Data sets by name, and the import that must stay cheap."""

import subprocess
import sys

import pytest

from minidl import data
from minidl.data import sources
from minidl.errors import DataError


def test_every_name_is_a_public_function():
    assert data.names() == ["cifar10", "cifar100", "digits", "mnist", "svhn", "synthetic"]
    for name in data.names():
        assert callable(getattr(data, name))


def test_load_by_name(cifar_root, cifar100_root, mnist_root, svhn_root):
    for name in data.names():
        assert data.load(name, root=cifar_root, download=False).name == name


@pytest.mark.parametrize("function", [data.load, data.verify, data.download])
def test_unknown_name_lists_the_names(function):
    with pytest.raises(
        DataError, match="no data set 'cifar'; the data sets are cifar10, cifar100, digits, mn"
    ):
        function("cifar")


def test_verify_checks_every_file(cifar_root):
    paths = data.verify("cifar10", cifar_root)
    assert [path.name for path in paths] == [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    assert all(path.is_file() for path in paths)
    paths[-1].write_bytes(bytes(paths[-1].stat().st_size))
    with pytest.raises(DataError, match=r"test_batch\.bin: wrong checksum"):
        data.verify("cifar10", cifar_root)
    paths[0].unlink()
    with pytest.raises(DataError, match=r"cifar10: not in .*: data_batch_1\.bin\."):
        data.verify("cifar10", cifar_root)


def test_verify_knows_a_file_without_checksum_by_its_size(cifar100_root):
    paths = data.verify("cifar100", cifar100_root)
    assert [path.name for path in paths] == ["train.bin", "test.bin"]
    assert sources.SOURCES["cifar100"].without_checksum == ["train.bin", "test.bin"]
    assert sources.SOURCES["svhn"].without_checksum == []
    paths[1].write_bytes(bytes(5))
    with pytest.raises(DataError, match=r"test\.bin: is 5 bytes long, the official file 15,370; delete it"):
        data.verify("cifar100", cifar100_root)


def test_sets_without_files_have_nothing_to_verify_or_download():
    assert data.verify("digits") == data.download("synthetic") == []


def test_import_loads_no_library_that_is_used_later():
    program = "import minidl.data, sys; print({'PIL', 'pooch', 'platformdirs', 'numba'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
