"""Decoded samples that are kept: in the memory of a process, or on the disk for all of them."""

import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from jaxtyping import Num, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import get_worker_info

_log = logging.getLogger(__name__)

Cache = bool | Literal["disk"]
"""True keeps decoded samples in memory, "disk" in files."""
Decoded = tuple[Num[Tensor, "c h w"], UInt8[Tensor, "h w"]]
Load = Callable[[int], Decoded]


class MemoryCache:
    """Keeps decoded samples in the memory of this process."""

    def __init__(self) -> None:
        self._samples: dict[int, Decoded] = {}

    def sample(self, position: int, load: Load) -> Decoded:
        """The sample as it was decoded before, or as it is loaded now."""
        if position not in self._samples:
            self._samples[position] = load(position)
        return self._samples[position]


class DiskCache:
    """Keeps decoded samples as files, which workers, processes and later runs map into memory.

    A file holds image and label without compression, so that of a crop only its own pages are read. The
    files lie in `~/.cache/segdistill/samples` (`$XDG_CACHE_HOME`), and are never removed: delete the folder
    to have the space back.

    Args:
        key: What a sample at a position is decoded from and how, as text: it changes whenever the
            decoded sample may.
        positions: Of all samples, to log and check the space that they need.
    """

    def __init__(self, key: Callable[[int], str], positions: Sequence[int]) -> None:
        self._key, self._positions = key, positions
        self._has_room = False

    def sample(self, position: int, load: Load) -> Decoded:
        """The sample as it was decoded before, or as it is loaded now.

        Raises:
            ValueError: The disk has no room for the samples that it does not hold yet.
        """
        path = self._path(position)
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor("image"), file.get_tensor("label")
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, SafetensorError) as error:
            _log.warning("%s is damaged (%s); the sample is decoded again", path, error)
        image, label = load(position)
        # Only in the main process, which reads samples before it starts workers, and once.
        if not self._has_room and get_worker_info() is None:
            self._check_room(image.nbytes + label.nbytes)
            self._has_room = True
        _write(path, image, label)
        return image, label

    def _path(self, position: int) -> Path:
        digest = hashlib.sha256(self._key(position).encode()).hexdigest()
        return cache_folder() / "samples" / digest[:2] / f"{digest[2:]}.safetensors"

    def _check_room(self, size: int) -> None:
        missing = sum(not self._path(position).exists() for position in self._positions)
        folder = cache_folder() / "samples"
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free, needed = shutil.disk_usage(existing).free, size * missing
        samples = f"{missing} sample{'s' * (missing != 1)}"
        room = f"{needed / 1e9:.1f} GB for {samples} in {folder}"
        if needed > free:
            raise ValueError(
                f"cache is 'disk', which needs about {room}, and {free / 1e9:.1f} GB are free there; expected "
                "room for all of them. Set XDG_CACHE_HOME to a folder on a larger disk, or cache to false"
            )
        _log.info("decoded samples are kept on the disk, about %s", room)


def cache_of(
    cache: Cache, key: Callable[[int], str] | None, positions: Sequence[int]
) -> MemoryCache | DiskCache | None:
    """What keeps the samples of a data set; None: nothing does.

    Args:
        cache: The data set's option.
        key: As for `DiskCache`; None: nothing tells when a sample changes.
        positions: As for `DiskCache`.

    Raises:
        ValueError: The option is none of the three, or "disk" without a key.
    """
    if cache is True:
        return MemoryCache()
    if cache is False:
        return None
    if cache != "disk":
        raise ValueError(f"cache is {cache!r}; expected true, false or disk")
    if key is None:
        raise ValueError(
            "cache is 'disk', but the samples of this data set are not read from pairs of files, so nothing "
            "tells when they change; expected true or false"
        )
    return DiskCache(key, positions)


def cache_folder() -> Path:
    """The folder of this user for what can be computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segdistill"


def _write(path: Path, image: Tensor, label: Tensor) -> None:
    """Write a sample where other processes may write the same one; without room nothing is kept."""
    # Random, since processes of several containers may have the same number.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"image": image.contiguous(), "label": label.contiguous()}, temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):  # where it could not be made it cannot be removed
            temporary.unlink()
        _log.warning("%s cannot be written (%s); the sample is not kept", path, error)
