"""Pickle records and storages of a file that torch.save wrote, in either of its layouts.

- zip (torch 1.6 and later): NAME/data.pkl, and an uncompressed entry NAME/data/KEY per storage
- legacy: five pickles (magic number, version, machine, content, storage keys), then, for each
  storage, its length in 8 bytes and its elements
"""

from collections.abc import Mapping
from dataclasses import dataclass

from checkpoints.pickle_names import GlobalName
from checkpoints.pickles import PersistentId, pickle_from_bytes
from checkpoints.read_budget import FileRefused, ReadBudget, shown
from checkpoints.tensors import Storage
from checkpoints.zips import entries_from_zip

LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
LEGACY_VERSION = 1001
LENGTH_BYTES = 8
ITEM_DTYPES = {
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.DoubleStorage": "float64",
    "torch.CharStorage": "int8",
    "torch.ShortStorage": "int16",
    "torch.IntStorage": "int32",
    "torch.LongStorage": "int64",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.storage.UntypedStorage": "uint8",
}


@dataclass(frozen=True)
class Archive:
    """Content of a torch file: the record of its pickle, and the storages by key."""

    record: object
    storages: Mapping[str, Storage]

    def storage(self, reference: PersistentId) -> Storage:
        """The storage of a reference. Raises FileRefused without one of that type and length."""
        key, dtype, count = _reference(reference)
        storage = self.storages.get(key)
        if storage is None or storage.dtype != dtype or len(storage) != count:
            raise FileRefused(f"it has no storage {shown(key)} of {count} elements of {dtype}")
        return storage


def archive_from_zip(data: memoryview, budget: ReadBudget) -> Archive:
    """Reads the zip layout. Raises FileRefused."""
    entries = entries_from_zip(data)
    roots = [name[: -len("data.pkl")] for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1 or roots[0].count("/") != 1:
        some = ", ".join(shown(name) for name in list(entries)[:3])
        raise FileRefused(
            f"it is a zip archive without exactly one data.pkl, which torch.save writes; it has "
            f"{some or 'nothing'}; if the weights are in it, unpack it and give them"
        )
    root = roots[0]
    if any(name.startswith((f"{root}code/", f"{root}constants.pkl")) for name in entries):
        raise FileRefused("it is TorchScript, which is code; save the state_dict instead")
    if bytes(entries.get(f"{root}byteorder", memoryview(b"little"))[:16]) != b"little":
        raise FileRefused("it was saved on a big-endian machine, which is not supported")
    pickle = pickle_from_bytes(entries[f"{root}data.pkl"], 0, budget)
    storages: dict[str, Storage] = {}
    for reference in filter(_is_storage, pickle.references):
        key, dtype, _ = _reference(reference)
        entry = entries.get(f"{root}data/{key}")
        if entry is not None and key not in storages:
            storages[key] = Storage(dtype, entry)
    return Archive(pickle.record, storages)


def archive_from_legacy(data: memoryview, budget: ReadBudget) -> Archive:
    """Reads the legacy layout. Raises FileRefused."""
    if data[: len(LEGACY_MAGIC)] != LEGACY_MAGIC:
        raise FileRefused("it has a storage that does not begin as torch writes it")
    version = pickle_from_bytes(data, len(LEGACY_MAGIC), budget)
    if version.record != LEGACY_VERSION:
        raise FileRefused(
            f"it is a torch file of another version; version {LEGACY_VERSION} is read"
        )
    machine = pickle_from_bytes(data, version.end, budget)
    if not isinstance(machine.record, dict) or machine.record.get("little_endian") is not True:
        raise FileRefused("it was saved on a big-endian machine, which is not supported")
    content = pickle_from_bytes(data, machine.end, budget)
    keys = pickle_from_bytes(data, content.end, budget)
    if not isinstance(keys.record, list):
        raise FileRefused("its storage keys are not a list")
    referred = {
        key: dtype for key, dtype, _ in map(_reference, filter(_is_storage, content.references))
    }
    storages: dict[str, Storage] = {}
    position = keys.end
    for key in keys.record:
        if not isinstance(key, str):
            raise FileRefused("its list of storage keys has a value that is not text")
        if key not in referred or key in storages:
            raise FileRefused(f"its storage key {shown(key)} is listed twice, or no tensor uses it")
        start = position + LENGTH_BYTES
        count = int.from_bytes(data[position:start], "little", signed=True)
        position = start + count * Storage(referred[key], data[:0]).item_bytes
        if count < 0 or position > len(data):
            raise FileRefused(f"its storage {shown(key)} of {count} elements ends beyond the file")
        storages[key] = Storage(referred[key], data[start:position])
    if position != len(data):
        raise FileRefused(f"it has data after its last storage, at byte {position} of {len(data)}")
    return Archive(content.record, storages)


def _is_storage(reference: PersistentId) -> bool:
    """False for others, such as the source of a module; what needs those is refused then."""
    return reference.parts[:1] == ("storage",)


def _reference(reference: PersistentId) -> tuple[str, str, int]:
    """Key, element type and length in ("storage", type, key, device, length[, None])."""
    parts = reference.parts
    kind, name, key, _, count = parts[:5] if len(parts) >= 5 else (None,) * 5
    if kind != "storage" or len(parts) > 6 or any(part is not None for part in parts[5:]):
        raise FileRefused("it refers to something that is not a storage")
    dtype = ITEM_DTYPES.get(name.dotted) if isinstance(name, GlobalName) else None
    if dtype is None or not isinstance(key, str) or not isinstance(count, int):
        raise FileRefused("it refers to a storage of an unknown element type")
    return key, dtype, count
