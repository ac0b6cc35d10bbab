"""Where files are looked for, and downloads from a local web server, whole and broken."""

import errno
import gzip
import io
import resource
import tarfile
import tempfile
from dataclasses import replace
from hashlib import md5
from pathlib import Path
from unittest.mock import Mock

import platformdirs
import pytest

from minidl.data import cifar10, cifar100, download, fetch, load, mnist, sources, svhn
from minidl.errors import DataError
from tests.fuzzing import check_reader


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
    return packed((path, data, {}) for path, data in files.items())


def packed(members):
    """A .tar.gz of (path, content, fields of its TarInfo)."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for path, data, fields in members:
            member = tarfile.TarInfo(path)
            member.size = len(data)
            for field, value in fields.items():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def offer(web, name, content, monkeypatch, data_set="cifar10"):
    web.files[name] = content
    official = sources.File(name, len(content), md5(content).hexdigest())
    source = replace(sources.SOURCES[data_set], url=web.url, archive=official)
    monkeypatch.setitem(sources.SOURCES, data_set, source)


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


def test_files_without_checksum_come_out_of_a_checked_archive(
    web, cifar100_root, cifar100_files, tmp_path, monkeypatch
):
    files = {f"cifar-100-binary/{name}": data for name, data in cifar100_files.items()}
    offer(web, "cifar-100-binary.tar.gz", archive(files), monkeypatch, "cifar100")
    root = tmp_path / "new"
    assert len(cifar100(root).train) == 10
    assert contents(root) == ["cifar-100-binary/test.bin", "cifar-100-binary/train.bin"]
    (root / "cifar-100-binary" / "test.bin").write_bytes(b"cut")
    download("cifar100", root)
    assert len(cifar100(root).test) == 5
    damaged = bytearray(web.files["cifar-100-binary.tar.gz"])
    damaged[-3] ^= 1
    web.files["cifar-100-binary.tar.gz"] = bytes(damaged)
    with pytest.raises(DataError, match=r"cifar100: the download failed \((.|\n)*hash"):
        cifar100(tmp_path / "other")
    assert contents(tmp_path / "other") == []


def test_file_of_its_own_without_checksum_is_fetched(web, install, tmp_path):
    web.files["a.bin"] = b"abc"
    source = sources.Source("x", "x", web.url, (sources.File("a.bin", 3),))
    fetch.fetch(source, tmp_path)
    assert (tmp_path / "x" / "a.bin").read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("name", "address", "where"),
    [
        (
            "cifar10",
            r"cifar-10-binary\.tar\.gz \(MD5 \w{32}\) and unpack it in",
            "cifar-10-batches-bin/data_batch_1",
        ),
        ("cifar100", r"cifar-100-binary\.tar\.gz \(MD5 \w{32}\) and unpack it in", "cifar-100-binary/train"),
        ("mnist", r"train-images-idx3-ubyte\.gz, .* into", "mnist/train-images"),
        ("svhn", r"train_32x32\.mat, http\S*/test_32x32\.mat into", "svhn/train_32x32"),
    ],
)
@pytest.mark.parametrize("function", [load, download])
def test_every_data_set_says_how_to_get_it_offline(tmp_path, monkeypatch, name, address, where, function):
    source = replace(sources.SOURCES[name], url="http://127.0.0.1:9/")
    monkeypatch.setitem(sources.SOURCES, name, source)
    text = (
        rf"^{name}: the download failed \(.*\)\. To do it by hand: fetch http://127\.0\.0\.1:9/{address} "
        rf"{tmp_path}.*, so that {tmp_path}/{where}\S* exists; or let root= or \$MINIDL_DATA name a folder"
    )
    with pytest.raises(DataError, match=text):
        function(name, root=tmp_path)
    assert contents(tmp_path) == []


def test_full_disk_is_named_and_leaves_nothing(
    cifar_web, web, mnist_root, mnist_files, tmp_path, monkeypatch
):
    """A limit on the size of a file stands for it: the archive, or a file of its own, does not fit."""
    web.files.update(mnist_files)
    monkeypatch.setitem(sources.SOURCES, "mnist", replace(sources.SOURCES["mnist"], url=web.url))
    root = tmp_path / "full"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        for function, folder in ((cifar10, "cifar-10-batches-bin"), (mnist, "mnist")):
            text = rf"the download failed \({root}/{folder} cannot be written: File too large\)\. To do"
            with pytest.raises(DataError, match=text):
                function(root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert contents(root) == []


def test_disk_that_is_full_when_the_archive_is_unpacked_leaves_nothing(cifar_web, tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(fetch.shutil, "copyfileobj", Mock(side_effect=full))
    root = tmp_path / "full"
    with pytest.raises(DataError, match=rf"\({root}/cifar-10-batches-bin cannot be written: No space left"):
        cifar10(root)
    assert contents(root) == []


def test_read_only_root_is_named(cifar_web, tmp_path, monkeypatch):
    denied = OSError(errno.EROFS, "Read-only file system")
    monkeypatch.setattr(tempfile, "TemporaryDirectory", Mock(side_effect=denied))
    with pytest.raises(
        DataError, match=r"/cifar-10-batches-bin cannot be written: Read-only file system\)\. To do"
    ):
        cifar10(tmp_path / "root")


def test_extra_file_of_svhn_is_downloaded_when_asked_for(web, svhn_root, svhn_files, monkeypatch):
    content = svhn_files["test_32x32.mat"]
    extra = sources.File("extra_32x32.mat", len(content), md5(content).hexdigest())
    web.files[extra.name] = content
    monkeypatch.setattr(sources, "SVHN_EXTRA", extra)
    monkeypatch.setitem(sources.SOURCES, "svhn", replace(sources.SOURCES["svhn"], url=web.url))
    assert len(svhn(svhn_root).train) == 12
    assert web.asked == []
    assert len(svhn(svhn_root, extra=True).train) == 12 + 7
    assert web.asked == ["extra_32x32.mat"]


NAMES = ["a.bin", "b.bin"]
DATA = [b"a" * 2000, b"b" * 3000]
SOURCE = sources.Source(
    "x", "x", "", tuple(sources.File(name, len(data)) for name, data in zip(NAMES, DATA, strict=True))
)


def extract(content, folder):
    """What `_extract` makes of an archive, by name."""
    for old in folder.glob("*"):
        old.unlink()
    (folder / "x.tar.gz").write_bytes(content)
    fetch._extract(folder / "x.tar.gz", SOURCE, list(SOURCE.files), folder)
    (folder / "x.tar.gz").unlink()
    return {name: (folder / name).read_bytes() for name in contents(folder)}


LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}
GOOD = [(f"x/{name}", data, {}) for name, data in zip(NAMES, DATA, strict=True)]


@pytest.mark.parametrize(
    "members",
    [
        [("x/a.bin", b"", LINK), ("x", b"", {"type": tarfile.DIRTYPE}), *GOOD],
        [("a.bin", b"", LINK | {"type": tarfile.LNKTYPE, "linkname": "x.tar.gz"}), *GOOD],
        [("a.bin", b"", LINK | {"type": tarfile.CHRTYPE}), ("b.bin", b"", {"type": tarfile.FIFOTYPE}), *GOOD],
        [(f"/tmp/../{name}", data, {}) for name, data in zip(NAMES, DATA, strict=True)],
        [("a.bin", b"of another size", {}), *GOOD],
        [*GOOD, ("a.bin", b"z" * 2000, {}), ("x.tar.gz", b"z", {}), ("../../evil", b"z", {})],
        [("y" * 500 + "/a.bin", DATA[0], {}), GOOD[1]],
        [("a.bin/", b"", {"type": tarfile.DIRTYPE}), ("", b"", {}), ("..", b"", {}), *GOOD],
    ],
    ids=["links", "hard link", "devices", "paths", "sizes", "twice", "long name", "folders"],
)
def test_only_the_wanted_files_leave_an_archive(tmp_path, members):
    folder = tmp_path / "scratch"
    folder.mkdir()
    assert extract(packed(members), folder) == dict(zip(NAMES, DATA, strict=True))
    assert contents(tmp_path) == ["scratch/a.bin", "scratch/b.bin"]


def header(size, kind=tarfile.REGTYPE):
    member = tarfile.TarInfo("x/a.bin")
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"no archive", r"Not a gzipped file"),
        (packed(GOOD)[:-50], r"Compressed file ended"),
        (gzip.compress(gzip.decompress(packed(GOOD))[:1500]), r"unexpected end of data"),
        (
            packed([*GOOD, ("big.bin", bytes(4 << 20), {})]),
            r"it holds much more than the files of the data set",
        ),
        (gzip.compress(header(2**40, b"L") + bytes(4 << 20)), r"it holds much more than the files"),
        (gzip.compress(header(2**40, b"x") + bytes(4 << 20)), r"it holds much more than the files"),
        (gzip.compress(header(-(2**40)) + bytes(10240)), r"seeking backwards is not allowed"),
    ],
    ids=["another format", "cut", "cut inside", "bomb", "long name", "long header", "negative size"],
)
def test_archive_that_is_damaged_or_a_bomb_is_refused(tmp_path, content, text):
    def read(content):
        with pytest.raises(DataError, match=rf"x\.tar\.gz: is no \.tar\.gz, or not a whole one \({text}"):
            extract(content, tmp_path)

    check_reader(read, content, count=0, peak_bytes=8 << 20)


@pytest.mark.parametrize("whole", [False, True], ids=["gzip", "tar"])
def test_damaged_archives_are_unpacked_or_refused(tmp_path, whole):
    """Mutants of the compressed file, and of the archive in a gzip file that is whole."""
    long = "y" * 150 + "/"  # makes an extended header
    content = packed([("x/", b"", {"type": tarfile.DIRTYPE}), (long + "a.bin", DATA[0], {}), GOOD[1]])

    def read(content):
        found = extract(gzip.compress(content, 1) if whole else content, tmp_path)
        assert all(
            len(found[name]) == len(data) for name, data in zip(NAMES, DATA, strict=True) if name in found
        )
        assert set(found) <= set(NAMES)

    assert check_reader(read, gzip.decompress(content) if whole else content, peak_bytes=8 << 20) > 0
    (tmp_path / "x.tar.gz").unlink(missing_ok=True)
    assert set(contents(tmp_path)) <= set(NAMES)
