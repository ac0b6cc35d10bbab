"""Official files on disk: where they are looked for, how they are checked, how missing ones are downloaded.

Every byte that is parsed has just been checked against the table in sources.py, so a parser meets a damaged
file only where no checksum is published. A download is complete and checked in a scratch folder beside its
destination before it is moved there: an interrupted one leaves nothing behind that looks like data. A loader
that meets a wrong file stops; only a download replaces one.
"""

import errno
import gzip
import hashlib
import io
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from minidl.data.sources import File, Source
from minidl.errors import DataError

_RETRIES = 1  # after a failed download
_BESIDE = 1 << 20  # bytes of an archive that are no data: headers, and the small text files beside the data
_FOLDER_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
)


def resolve_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds the data sets: `root`, else $MINIDL_DATA, else the user's cache folder."""
    chosen = root if root is not None else os.environ.get("MINIDL_DATA")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("minidl", appauthor=False)


def locate(source: Source, root: str | os.PathLike[str] | None, download: bool) -> Path:
    """The folder with all files of a data set, downloaded if some are missing and `download` is true.

    DataError saying what to fetch, from where, and where to put it, if files are missing and cannot be had.
    """
    place = resolve_root(root)
    folder = place / source.folder
    missing = [file.name for file in source.files if not (folder / file.name).exists()]
    if missing and not download:
        raise DataError(
            f"{source.name}: not in {folder}: {', '.join(missing)}. Call with download=True, "
            f"or {_instructions(source, place)}"
        )
    if missing:
        fetch(source, place)
    return folder


def read(path: Path, file: File, cure: str = "") -> bytes:
    """The bytes of a file, if it is the official one.  DataError naming it, expected and found otherwise.

    A file whose checksum is not published is known by its size alone.
    """
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            data = stream.read() if size == file.size else b""
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}){cure}") from error
    if len(data) != file.size:
        raise DataError(f"{path}: is {size:,} bytes long, the official file {file.size:,}{cure}")
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest() if file.md5 else None
    if md5 != file.md5:
        raise DataError(f"{path}: wrong checksum, MD5 is {md5}, the official file's {file.md5}{cure}")
    return data


def read_all(source: Source, folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Path and checked bytes of each file of a data set, in the order of its table."""
    cure = f"; delete it and load again, or run: minidl data download {source.name}"
    for file in source.files:
        path = folder / file.name
        yield path, read(path, file, cure)


def fetch(source: Source, root: Path) -> None:
    """Download every file of a data set that is missing or wrong in `root`, check it and move it into place.

    DataError if that fails, with the way to do it by hand.
    """
    folder = root / source.folder
    wanted = [file for file in source.files if not _is_good(folder / file.name, file)]
    if not wanted:
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as name:
            scratch = Path(name)
            if source.archive:
                _extract(_retrieve(source.url, source.archive, scratch), source, wanted, scratch)
            for file in wanted:
                if not source.archive:
                    _retrieve(source.url, file, scratch)
                read(scratch / file.name, file)
            folder.mkdir(exist_ok=True)
            for file in wanted:
                os.replace(scratch / file.name, folder / file.name)
    except (OSError, ValueError) as error:  # offline: OSError; wrong checksum: ValueError
        cause = str(error)
        if isinstance(error, OSError) and error.errno in _FOLDER_ERRORS:
            cause = f"{folder} cannot be written: {error.strerror}"
        raise DataError(
            f"{source.name}: the download failed ({cause}). To do it by hand: {_instructions(source, root)}"
        ) from error


def _retrieve(url: str, file: File, folder: Path) -> Path:
    """Download one file into `folder` with pooch, which checks its MD5 if there is one."""
    import pooch

    known = {file.name: file.md5 and f"md5:{file.md5}"}
    remote = pooch.create(path=folder, base_url=url, registry=known, retry_if_failed=_RETRIES)
    return Path(remote.fetch(file.name, progressbar=True))


def _extract(archive: Path, source: Source, wanted: list[File], folder: Path) -> None:
    """Copy the wanted files out of a .tar.gz, to names of our own: no path in the archive is ever used.

    Links, devices and files of another size are passed over, and of two files of one name the first is taken.
    DataError if it is no whole archive, or if it holds much more than the files of the data set.
    """
    sizes = {file.name: file.size for file in wanted}
    limit = sum(file.size for file in source.files) + _BESIDE
    try:
        with gzip.open(archive) as content, tarfile.open(fileobj=_Limited(content, limit), mode="r|") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if member.isfile() and member.size == sizes.get(name):
                    _copy(tar, member, folder / name)
                    del sizes[name]
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError) as error:
        raise DataError(f"{archive.name}: is no .tar.gz, or not a whole one ({error})") from error


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = tar.extractfile(member)
    if content:
        with open(path, "wb") as target:
            shutil.copyfileobj(content, target)


class _Limited(io.RawIOBase):
    """A file read from its beginning on, that is an error behind `limit` bytes.

    tarfile reads a long name or an extended header whole, however long the archive says it is.
    """

    def __init__(self, file: gzip.GzipFile, limit: int) -> None:
        self._file, self._left = file, limit

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size if 0 <= size <= self._left else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise tarfile.ReadError("it holds much more than the files of the data set")
        return data


def _is_good(path: Path, file: File) -> bool:
    try:
        read(path, file)
    except DataError:
        return False
    return True


def _instructions(source: Source, root: Path) -> str:
    """How to get a data set by hand."""
    folder = root / source.folder
    if source.archive:
        what = f"fetch {source.url}{source.archive.name} (MD5 {source.archive.md5}) and unpack it in {root}"
    else:
        what = f"fetch {', '.join(source.url + file.name for file in source.files)} into {folder}"
    return (
        f"{what}, so that {folder / source.files[0].name} exists; or let root= or $MINIDL_DATA name a "
        f"folder that has {source.folder}/ in it"
    )
