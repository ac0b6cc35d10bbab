"""Where files are looked for, and downloads from a local web server, whole and broken."""

import io
import tarfile
from dataclasses import replace
from hashlib import md5
from pathlib import Path

import platformdirs
import pytest

from minidl.data import cifar10, download, fetch, mnist, sources
from minidl.errors import DataError


@pytest.fixture(autouse=True)
def no_retries(monkeypatch):
    """pooch sleeps before it tries again."""
    monkeypatch.setattr(fetch, "_RETRIES", 0)


@pytest.fixture
def cifar_web(web, cifar_root, cifar_files, monkeypatch):
    """A local web server that offers the small CIFAR-10 in an archive laid out as the official one."""
    content = archive({f"cifar-10-batches-bin/{name}": data for name, data in cifar_files.items()})
    offer(web, "cifar-10-binary.tar.gz", content, monkeypatch)
    return web


def archive(files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def offer(web, name, content, monkeypatch):
    web.files[name] = content
    official = sources.File(name, len(content), md5(content).hexdigest())
    source = replace(sources.SOURCES["cifar10"], url=web.url, archive=official)
    monkeypatch.setitem(sources.SOURCES, "cifar10", source)


def contents(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_root_is_the_argument_then_the_variable_then_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path))
    assert fetch.resolve_root("~/here") == Path.home() / "here"
    assert fetch.resolve_root() == tmp_path
    cache = platformdirs.user_cache_path("minidl", appauthor=False)
    monkeypatch.setenv("MINIDL_DATA", "")
    assert fetch.resolve_root() == cache
    monkeypatch.delenv("MINIDL_DATA")
    assert fetch.resolve_root() == cache


def test_loaders_look_below_the_variable(monkeypatch, cifar_root):
    monkeypatch.setenv("MINIDL_DATA", str(cifar_root))
    assert len(cifar10(download=False).train) == 25


def test_missing_data_set_is_downloaded_and_nothing_else_is_left(cifar_web, cifar_files, tmp_path):
    root = tmp_path / "new" / "root"
    assert len(cifar10(root).train) == 25
    assert contents(root) == [f"cifar-10-batches-bin/{name}" for name in cifar_files]
    cifar10(root)
    assert cifar_web.asked == ["cifar-10-binary.tar.gz"]  # once


def test_files_of_their_own_are_fetched_only_if_missing(web, mnist_root, mnist_files, monkeypatch):
    web.files.update(mnist_files)
    monkeypatch.setitem(sources.SOURCES, "mnist", replace(sources.SOURCES["mnist"], url=web.url))
    (mnist_root / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    assert len(mnist(mnist_root).test) == 4
    assert web.asked == ["t10k-labels-idx1-ubyte.gz"]


def test_loader_stops_at_a_wrong_file_and_download_replaces_it(cifar_web, cifar_root):
    path = cifar_root / "cifar-10-batches-bin" / "data_batch_1.bin"
    path.write_bytes(b"not what it was")
    with pytest.raises(DataError, match=r"data_batch_1\.bin: is 15 bytes long.*minidl data download cifar10"):
        cifar10(cifar_root)
    assert cifar_web.asked == []
    assert download("cifar10", cifar_root)[0] == path
    assert len(cifar10(cifar_root).train) == 25
    download("cifar10", cifar_root)
    assert cifar_web.asked == ["cifar-10-binary.tar.gz"]  # once


def test_offline_says_what_to_fetch_and_where_to_put_it(cifar_root, tmp_path):
    root = tmp_path / "empty"
    text = (
        r"cifar10: the download failed \(.*\)\. To do it by hand: fetch http.*cifar-10-binary\.tar\.gz "
        r"\(MD5 .*\) and unpack it in .*empty, so that "
    )
    with pytest.raises(DataError, match=text):
        cifar10(root)
    assert contents(root) == []


def test_page_that_is_gone_is_a_failed_download(cifar_web, tmp_path):
    cifar_web.files.clear()
    with pytest.raises(DataError, match=r"cifar10: the download failed \(.*404"):
        cifar10(tmp_path / "empty")


def test_download_with_a_wrong_checksum_leaves_nothing(cifar_web, tmp_path):
    damaged = bytearray(cifar_web.files["cifar-10-binary.tar.gz"])
    damaged[100] ^= 1
    cifar_web.files["cifar-10-binary.tar.gz"] = bytes(damaged)
    root = tmp_path / "empty"
    with pytest.raises(DataError, match=r"cifar10: the download failed \((.|\n)*hash(.|\n)*To do it by hand"):
        cifar10(root)
    assert contents(root) == []


def test_archive_without_a_file_leaves_nothing(web, cifar_root, cifar_files, tmp_path, monkeypatch):
    files = {f"cifar-10-batches-bin/{name}": data for name, data in cifar_files.items()}
    del files["cifar-10-batches-bin/test_batch.bin"]
    offer(web, "cifar-10-binary.tar.gz", archive(files), monkeypatch)
    root = tmp_path / "empty"
    with pytest.raises(DataError, match=r"the download failed \(.*test_batch\.bin: cannot be read"):
        cifar10(root)
    assert contents(root) == []


def test_paths_in_an_archive_lead_nowhere(web, cifar_root, cifar_files, tmp_path, monkeypatch):
    files = {f"../../{name}": data for name, data in cifar_files.items()}
    files |= {"../evil": b"x", f"{tmp_path}/evil": b"x"}
    offer(web, "cifar-10-binary.tar.gz", archive(files), monkeypatch)
    before = contents(tmp_path)
    root = tmp_path / "deep" / "root"
    cifar10(root)
    assert set(contents(tmp_path)) - set(before) == {f"deep/root/{name}" for name in contents(root)}
    assert contents(root) == [f"cifar-10-batches-bin/{name}" for name in cifar_files]


def test_root_that_cannot_be_made_is_a_data_error(cifar_web, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cifar10: the download failed \(.*To do it by hand"):
        cifar10(tmp_path / "file" / "root")
