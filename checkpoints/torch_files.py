"""What torch.save wrote, in either of its layouts, to the records of a pickle and its storages.

- zip (torch 1.6 on): NAME/data.pkl, and a stored entry NAME/data/KEY per storage
- legacy: five pickles (magic number, version, machine, content, storage keys), then per storage
  its length as eight bytes and its elements
"""

from collections.abc import Mapping
from dataclasses import dataclass

from checkpoints.allowance import Allowance, Refused, shown
from checkpoints.names import Name
from checkpoints.pickles import Persistent, pickle_from_bytes
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
    """Content of a torch file: records, and the storages they refer to."""

    record: object
    storages: Mapping[str, Storage]

    def storage(self, reference: Persistent) -> Storage:
        """The storage a reference means. Raises Refused."""
        key, dtype, count = _reference(reference)
        storage = self.storages.get(key)
        if storage is None or storage.dtype != dtype or len(storage) != count:
            raise Refused(f"it has no storage {shown(key)} of {count} elements of {dtype}")
        return storage


def archive_from_zip(data: memoryview, allowance: Allowance) -> Archive:
    """Reads the zip layout. Raises Refused."""
    entries = entries_from_zip(data)
    roots = [name[: -len("data.pkl")] for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1 or roots[0].count("/") != 1:
        raise Refused("it is a zip archive, but not of torch.save: it has no one data.pkl")
    root = roots[0]
    if any(name.startswith((f"{root}code/", f"{root}constants.pkl")) for name in entries):
        raise Refused("it is TorchScript, which is code; save the state_dict instead")
    if bytes(entries.get(f"{root}byteorder", memoryview(b"little"))[:16]) != b"little":
        raise Refused("it was saved on a big-endian machine, which is not supported")
    pickle = pickle_from_bytes(entries[f"{root}data.pkl"], 0, allowance)
    storages: dict[str, Storage] = {}
    for reference in pickle.references:
        key, dtype, _ = _reference(reference)
        entry = entries.get(f"{root}data/{key}")
        if entry is not None and key not in storages:
            storages[key] = Storage(dtype, entry)
    return Archive(pickle.record, storages)


def archive_from_legacy(data: memoryview, allowance: Allowance) -> Archive:
    """Reads the legacy layout. Raises Refused."""
    if data[: len(LEGACY_MAGIC)] != LEGACY_MAGIC:
        raise Refused("it has a storage that is not written as torch writes one")
    version = pickle_from_bytes(data, len(LEGACY_MAGIC), allowance)
    if version.record != LEGACY_VERSION:
        raise Refused(f"it is a torch file of another version than {LEGACY_VERSION}")
    machine = pickle_from_bytes(data, version.end, allowance)
    if not isinstance(machine.record, dict) or machine.record.get("little_endian") is not True:
        raise Refused("it was saved on a big-endian machine, which is not supported")
    content = pickle_from_bytes(data, machine.end, allowance)
    keys = pickle_from_bytes(data, content.end, allowance)
    if not isinstance(keys.record, list):
        raise Refused("its storages are not listed")
    referred = {key: dtype for key, dtype, _ in map(_reference, content.references)}
    storages: dict[str, Storage] = {}
    position = keys.end
    for key in keys.record:
        if not isinstance(key, str):
            raise Refused("its list of storages has something else than their keys")
        if key not in referred or key in storages:
            raise Refused(f"its list of storages has {shown(key)} twice, or nothing refers to it")
        start = position + LENGTH_BYTES
        count = int.from_bytes(data[position:start], "little", signed=True)
        position = start + count * Storage(referred[key], data[:0]).item_bytes
        if count < 0 or position > len(data):
            raise Refused(f"its storage {shown(key)} of {count} elements ends beyond the file")
        storages[key] = Storage(referred[key], data[start:position])
    if position != len(data):
        raise Refused(f"it goes on after its last storage, at byte {position} of {len(data)}")
    return Archive(content.record, storages)


def _reference(reference: Persistent) -> tuple[str, str, int]:
    """Key, element type and length of ('storage', type, key, device, length[, None])."""
    parts = reference.parts
    kind, name, key, _, count = parts[:5] if len(parts) >= 5 else (None,) * 5
    if kind != "storage" or len(parts) > 6 or any(part is not None for part in parts[5:]):
        raise Refused("it refers to something that is no storage")
    dtype = ITEM_DTYPES.get(name.dotted) if isinstance(name, Name) else None
    if dtype is None or not isinstance(key, str) or not isinstance(count, int):
        raise Refused("it refers to a storage of a type that is not read")
    return key, dtype, count
