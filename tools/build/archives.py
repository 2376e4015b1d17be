"""Wheels and sdists that do not tell when, by whom and under which umask they were made: two builds
of the same sources are equal byte for byte.

All files in them have one date, SOURCE_DATE_EPOCH or else the first that a zip file can name.
"""

import gzip
import os
import stat
import tarfile
import time
import zipfile
from pathlib import Path

EARLIEST = 315532800  # 1980-01-01, in seconds since the epoch


def date() -> int:
    """The date of every file, in seconds since the epoch."""
    return max(EARLIEST, int(os.environ.get("SOURCE_DATE_EPOCH") or EARLIEST))


def permissions(mode: int) -> int:
    """What a file's mode is without the umask of its owner."""
    return 0o755 if mode & stat.S_IXUSR else 0o644


def settle_wheel(path: Path) -> None:
    """Write a wheel again, with the date, and the permissions that any umask gives."""
    with zipfile.ZipFile(path) as made:
        files = [(each, made.read(each)) for each in made.filelist]
    new = path.with_suffix(".new")
    with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as settled:
        for old, content in files:
            info = zipfile.ZipInfo(old.filename, time.gmtime(date())[:6])
            info.external_attr = (stat.S_IFREG | permissions(old.external_attr >> 16)) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            settled.writestr(info, content)
    new.replace(path)


def settle_sdist(path: Path) -> None:
    """Write a sdist again: the date, the permissions that any umask gives, and nobody's name."""
    new = path.with_suffix(".new")
    with (
        tarfile.open(path) as made,
        open(new, "wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=date()) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as settled,
    ):
        for member in sorted(made.getmembers(), key=lambda member: member.name):
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = date()
            member.pax_headers = {}
            member.mode = 0o755 if member.isdir() else permissions(member.mode)
            settled.addfile(member, made.extractfile(member) if member.isfile() else None)
    new.replace(path)
