"""Official files on disk: where they are looked for, how they are checked, how missing ones are downloaded.

Every byte that is parsed has just been checked against the table in sources.py, so a parser never meets a
damaged file. A download is complete and checked in a scratch folder beside its destination before it is moved
there: an interrupted one leaves nothing behind that looks like data. A loader that meets a wrong file
stops; only a download replaces one.
"""

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from minidl.data.sources import File, Source
from minidl.errors import DataError

_RETRIES = 1  # after a failed download


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
    """The bytes of a file, if it is the official one.  DataError naming it, expected and found otherwise."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}){cure}") from error
    if len(data) != file.size:
        raise DataError(f"{path}: is {len(data):,} bytes long, the official file {file.size:,}{cure}")
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
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
                _extract(_retrieve(source.url, source.archive, scratch), wanted, scratch)
            for file in wanted:
                if not source.archive:
                    _retrieve(source.url, file, scratch)
                read(scratch / file.name, file)
            folder.mkdir(exist_ok=True)
            for file in wanted:
                os.replace(scratch / file.name, folder / file.name)
    except (OSError, ValueError, tarfile.TarError) as error:  # offline: OSError; wrong checksum: ValueError
        raise DataError(
            f"{source.name}: the download failed ({error}). To do it by hand: {_instructions(source, root)}"
        ) from error


def _retrieve(url: str, file: File, folder: Path) -> Path:
    """Download one file into `folder` with pooch, which checks its MD5."""
    import pooch

    known = {file.name: f"md5:{file.md5}"}
    remote = pooch.create(path=folder, base_url=url, registry=known, retry_if_failed=_RETRIES)
    return Path(remote.fetch(file.name, progressbar=True))


def _extract(archive: Path, wanted: list[File], folder: Path) -> None:
    """Copy the wanted files out of a .tar.gz, to names of our own: no path in the archive is ever used."""
    sizes = {file.name: file.size for file in wanted}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = PurePosixPath(member.name).name
            content = tar.extractfile(member) if member.isfile() and member.size == sizes.get(name) else None
            if content:
                with open(folder / name, "wb") as target:
                    shutil.copyfileobj(content, target)


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
