"""Where the files lie: the disk, memory, a file system on a loop device, and one in user space.

A place is made when the first row wants it, and gone when the run ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

_DATA = Path(__file__).parents[1] / "data"
_PROGRAMS = Path(__file__).parents[1] / "target" / "release"
_IMAGE_BYTES = 8 << 30
# The file that is read there, and the one that is written.
_NEEDED_BYTES = 5_000_000_000
# What is loaded onto a device.
_CUDA_BYTES = 18_000_000_000
_WAIT_SECONDS = 10


class Unavailable(Exception):
    """This machine has no such place; the text says why."""


@dataclass(frozen=True)
class Place:
    """A folder on a file system of some kind."""

    # What the names of its rows end in.
    suffix: str
    title: str
    folder: Path
    # Makes the place for as long as the generator waits; raises `Unavailable`.
    _make: Callable[[Place], Iterator[None]]
    # Where the bytes lie under it, if on a file system that has a page cache of its own.
    behind: Path | None = None
    # Whether it can be read and written past the page cache.
    is_direct: bool = True
    # Whether its files can be out of memory.
    is_cold: bool = True
    # Elsewhere than on the disk a few samples do.
    most_samples: int = 3

    def made(self) -> AbstractContextManager[None]:
        """A context in which the place is there; what a killed run left mounted is unmounted."""
        while _is_mounted(self.folder):
            _run("umount", str(self.folder))
        return contextmanager(self._make)(self)

    def under(self, paths: list[Path]) -> list[Path]:
        """The files that carry those of `paths`, which lie in this place."""
        return [self.behind / path.name for path in paths] if self.behind else []


def _disk(place: Place) -> Iterator[None]:
    place.folder.mkdir(exist_ok=True)
    yield


def _memory(place: Place) -> Iterator[None]:
    if not place.folder.parent.is_dir():
        raise Unavailable(f"there is no {place.folder.parent}")
    _need_room(place.folder.parent)
    place.folder.mkdir(exist_ok=True)
    try:
        yield
    finally:
        shutil.rmtree(place.folder)


def _loop(place: Place) -> Iterator[None]:
    _need_root()
    kind = next((kind for kind in ("xfs", "ext4") if shutil.which(f"mkfs.{kind}")), None)
    if kind is None:
        raise Unavailable("there is neither mkfs.xfs nor mkfs.ext4")
    _DATA.mkdir(exist_ok=True)
    _need_room(_DATA)
    image = _DATA / "loop.image"
    with image.open("wb") as file:
        file.truncate(_IMAGE_BYTES)
    try:
        _run(f"mkfs.{kind}", "-q", str(image))
        # Past the page cache of the file system that the image lies on: there is only one to empty.
        device = _run("losetup", "--find", "--show", "--direct-io=on", str(image)).strip()
        try:
            with _mounted(place.folder, "mount", device, str(place.folder)):
                yield
        finally:
            _run("losetup", "--detach", device)
    finally:
        image.unlink()


def _cuda(place: Place) -> Iterator[None]:
    import torch

    if not torch.cuda.is_available():
        raise Unavailable("PyTorch has no CUDA device")
    _DATA.mkdir(exist_ok=True)
    if shutil.disk_usage(_DATA).free < _CUDA_BYTES and not any(_DATA.glob("matrices-*")):
        raise Unavailable(f"{_DATA} has less than {_CUDA_BYTES} bytes free")
    yield


def _fuse(place: Place) -> Iterator[None]:
    _need_root()
    if not Path("/dev/fuse").exists():
        raise Unavailable("there is no /dev/fuse")
    behind, folder = place.behind or place.folder, place.folder
    behind.mkdir(parents=True, exist_ok=True)
    _need_room(behind)
    folder.mkdir(exist_ok=True)
    server = subprocess.Popen([_PROGRAMS / "passthrough", behind, folder], stdout=subprocess.PIPE)
    assert server.stdout is not None
    try:
        if server.stdout.readline() != b"mounted\n":
            raise Unavailable("FUSE could not be mounted")
        try:
            yield
        finally:
            _unmount(folder)
    finally:
        try:
            server.wait(_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
        folder.rmdir()
        shutil.rmtree(behind)


DISK = Place("", "", _DATA, _disk, most_samples=1000)
MEMORY = Place(
    "_tmpfs", "tmpfs", Path("/dev/shm/tensorhold-bench"), _memory, is_direct=False, is_cold=False
)
LOOP = Place("_loop", "a loop device", _DATA / "loop", _loop)
FUSE = Place("_fuse", "FUSE", _DATA / "fuse", _fuse, behind=_DATA / "behind-fuse", is_direct=False)


CUDA = Place("_cuda", "a CUDA device", _DATA, _cuda, most_samples=3)


@contextmanager
def _mounted(folder: Path, *command: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    try:
        _run(*command)
        try:
            yield
        finally:
            _unmount(folder)
    finally:
        folder.rmdir()


def _is_mounted(folder: Path) -> bool:
    # `os.path.ismount` says no where the server of a FUSE mount is gone.
    mounts = Path("/proc/mounts")
    lines = mounts.read_text().splitlines() if mounts.exists() else []
    return any(line.split()[1] == str(folder) for line in lines)


def _unmount(folder: Path) -> None:
    """Waits for what is still on its way to the disk, or for a process that has just ended."""
    for _ in range(_WAIT_SECONDS):
        if subprocess.run(["umount", str(folder)], check=False).returncode == 0:
            return
        time.sleep(1)
    print(f"bench: {folder} is still mounted", file=sys.stderr)


def _need_root() -> None:
    if os.geteuid() != 0:
        raise Unavailable("only root can mount it")


def _need_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _NEEDED_BYTES:
        raise Unavailable(f"{folder} has {free} bytes free, {_NEEDED_BYTES} are needed")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"`{' '.join(command)}`: {done.stderr.strip()}")
    return done.stdout
