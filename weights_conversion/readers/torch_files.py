"""torch.save and torch.jit.save files, without torch: the pickle gives names and shapes, the file itself the values."""

from __future__ import annotations

import io
import os
import struct
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from weights_conversion.errors import CheckpointError, quoted
from weights_conversion.readers.archive import Archive
from weights_conversion.readers.common import Checkpoint, map_bytes
from weights_conversion.readers.pickles import MAX_PICKLE_BYTES, unpickle
from weights_conversion.readers.storages import Storages, lazy_tensors, lookup, script_lookup
from weights_conversion.readers.unwrap import unwrap

MAGIC = 0x1950A86A20F9469CFC6C  # what legacy files start with, as a pickled number
PROTOCOL = 1001
COUNT = struct.Struct("<q")  # in front of each storage of a legacy file


def read_torch_zip(path: Path, archive: Archive, root: str) -> Checkpoint:
    """What torch.save or torch.jit.save wrote under the folder `root` of the archive. code/ is never read."""
    if not _is_little_endian(archive, root):
        raise CheckpointError(
            "was saved on a big-endian machine; load and save it again with torch on an ordinary one"
        )
    pickled = archive.members[f"{root}/data.pkl"]
    if pickled.size > MAX_PICKLE_BYTES:
        raise CheckpointError(
            f"has a pickle of {pickled.size:,} bytes; at most {MAX_PICKLE_BYTES:,} are read"
        )
    # only torch.jit.save writes constants, and only its pickles name classes of the file's own
    names = script_lookup if f"{root}/constants.pkl" in archive.members else lookup
    storages = Storages()
    text = archive.bytes_of(pickled.name).tobytes()
    found = unwrap(unpickle(io.BytesIO(text), names, storages))
    for key in dict.fromkeys(tensor.storage.key for tensor in found.tensors.values()):
        needed = storages[key]
        member = archive.members.get(f"{root}/data/{key}")
        if member is None or member.size < needed.nbytes:
            raise CheckpointError(
                f"lacks the {needed.nbytes:,} bytes of the storage {quoted(key)}; fetch it again"
            )

    def fetch(key: str, start: int, nbytes: int) -> np.ndarray:
        return archive.bytes_of(f"{root}/data/{key}", start, nbytes)

    return Checkpoint(path, lazy_tensors(found.tensors, fetch), {}, found.wrapper, found.others)


def _is_little_endian(archive: Archive, root: str) -> bool:
    """Whether the values are in this machine's order; older versions of torch do not say."""
    name = f"{root}/byteorder"
    return name not in archive.members or archive.bytes_of(name).tobytes() == b"little"


def read_torch_legacy(path: Path) -> Checkpoint:
    """What torch.save wrote before 1.6, or on request: five pickles, then the storages one after the other."""
    storages = Storages()
    with path.open("rb") as file:
        magic, protocol, system = (unpickle(file, lookup, Storages()) for _ in range(3))
        if (magic, protocol) != (MAGIC, PROTOCOL) or not isinstance(system, dict):
            raise CheckpointError(
                "is a pickle, but not one of torch's; save its arrays with numpy.savez or as safetensors"
            )
        if system.get("little_endian") is not True:
            raise CheckpointError(
                "was saved on a big-endian machine; load and save it again with torch on another one"
            )
        # the fifth pickle lists the storages in the order in which their values follow
        found = unwrap(unpickle(file, lookup, storages))
        places = _places(file, unpickle(file, lookup, Storages()), storages)

    def fetch(key: str, start: int, nbytes: int) -> np.ndarray:
        return map_bytes(path, places[key] + start, nbytes)

    return Checkpoint(path, lazy_tensors(found.tensors, fetch), {}, found.wrapper, found.others)


def _places(file: BufferedIOBase, keys: object, storages: Storages) -> dict[str, int]:
    """Where each storage's values start: in the order of the keys, each behind its count, from where the file is."""
    start, size = file.tell(), file.seek(0, os.SEEK_END)
    # a list of another length could name one storage twice, or leave one out
    names = keys if isinstance(keys, list) and len(keys) == len(storages) else []
    if not all(isinstance(name, str) for name in names) or set(names) != storages.keys():
        raise CheckpointError("does not list the storages that its tensors are in; fetch it again")
    places = {}
    for key in names:
        found, places[key] = storages[key], start + COUNT.size
        end = places[key] + found.nbytes
        if end > size:
            raise CheckpointError(
                f"is cut short: {size:,} bytes, where at least {end:,} are needed; fetch it again"
            )
        file.seek(start)
        if COUNT.unpack(file.read(COUNT.size)) != (found.count,):
            raise CheckpointError(
                f"states two sizes for the storage {quoted(key)}; the file is damaged, fetch it again"
            )
        start = end
    return places
