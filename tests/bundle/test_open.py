"""A bundle is used only as exported: everything else is refused in one line that says why."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle import FileError, ManifestError, open_bundle
from bundle.manifest import MAX_CALIBRATIONS, Manifest
from bundle.read import MAX_VALUES, bundle_id_from_content, manifest_from_bytes
from bundle.write import write_manifest
from engines.fake import fake_bundle
from tests.bundle.refusals import refusal

PINNED_ID = "sha256:e89205d1f7fbc54dd28747a4d381b30f1577ffa489b1cfd258cdcf6ee5fc5c70"
TABLE = {
    "name": "content.1.zlib",
    "file": {"sha256": "0" * 64, "size": 9},
    "columns": 3,
    "samples": 4,
}
PROFILE = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def test_what_was_written_is_read(folder: Path) -> None:
    bundle = open_bundle(str(folder))
    assert bundle.manifest.bundle_id.startswith("sha256:")
    assert bundle.file("mapping.onnx") == folder / "mapping.onnx"


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'manifest.json'} cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "no json", "[1]", "null", '{"format": "one"}', "{}"])
def test_text_that_is_no_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    assert "manifest.json" in refusal(folder)


def test_bytes_that_are_not_unicode_are_refused(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b'{"format": 1, "bundle_id": "\xff"}')
    assert "manifest.json" in refusal(folder)


def test_a_newer_format_is_refused_by_number(folder: Path, editor: Any) -> None:
    editor.set("format", 7)
    editor.set("hologram", True)  # the number explains, not the first unknown field
    assert "format 7" in refusal(folder) and "newer labelmint" in refusal(folder)


def test_an_older_unreleased_format_is_refused_by_number(folder: Path, editor: Any) -> None:
    editor.set("format", 0)
    assert "format 0" in refusal(folder)


def test_every_missing_field_is_named(folder: Path, editor: Any) -> None:
    original = editor.read()
    for section in (None, "generator", "labels", "heads"):
        for field in original if section is None else original[section]:
            if field in ("boxes", "depth_quantiles"):  # absent in older bundles
                continue
            content = json.loads(json.dumps(original))
            del (content if section is None else content[section])[field]
            editor.write(content)
            assert f"`{field}`" in refusal(folder)


@pytest.mark.parametrize("section", [None, "generator", "labels", "heads"])
def test_an_unknown_field_is_named(folder: Path, editor: Any, section: str | None) -> None:
    editor.set("surprise" if section is None else f"{section}.surprise", 1)
    assert "surprise" in refusal(folder)


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        ("generator.z_dim", 0, "generator.z_dim is 0; it must be >= 1"),
        ("generator.w_dim", 17, "w_avg has 16 values"),
        ("generator.view_layers", 99, "generator.view_layers is 99"),
        ("generator.truncation_cutoff", -1, "generator.truncation_cutoff is -1"),
        ("generator.truncation_psi", 2.5, "generator.truncation_psi is 2.5"),
        ("generator.num_classes", -1, "generator.num_classes is -1"),
        ("labels", None, "labels and heads"),
        ("labels.crop_top", 1, "labels.crop_top is 1"),
        ("labels.width", 65, "labels.width is 65"),
        ("labels.height", 0, "labels.height is 0"),
        ("generator.start", [4, 17], "generator.start[1] is 17; it must be <= 16"),
        ("generator.start", [4, 2], "labels.width is 64; the grid has 32 columns"),
        ("generator.start", [2, 4], "the rows must lie within the grid of 32"),
        ("heads.depth", {"members": 0, "hidden": [], "unit": ""}, "heads.depth.members is 0"),
        ("heads.depth", None, "depth_quantiles is [0.1, 0.5, 0.9], but there is no depth head"),
        (
            "heads.depth_quantiles",
            [0.5, 0.1],
            "depth_quantiles is [0.5, 0.1]; its values must ascend",
        ),
        ("heads.score_fraction", 0.0, "heads.score_fraction is 0.0"),
        ("heads.segmentation.classes", [], "heads.segmentation.classes has 0"),
        ("heads.keypoints.skeleton", [[0, 3]], "edge [0, 3]"),
        ("heads.keypoints.names", [], "heads.keypoints.names has 0 values"),
        ("files|../labeller.onnx", {"sha256": "0" * 64, "size": 0}, "'../labeller.onnx'"),
        ("files|/etc/hosts", {"sha256": "0" * 64, "size": 0}, "'/etc/hosts'"),
        ("files|sub/x.onnx", {"sha256": "0" * 64, "size": 0}, "'sub/x.onnx'"),
        ("files|manifest.json", {"sha256": "0" * 64, "size": 0}, "'manifest.json'"),
        ("files|mapping.onnx|sha256", "abc", "sha256 is 'abc'"),
        ("files|mapping.onnx|size", -1, "size is -1"),
        ("files|mapping.onnx|size", 1 << 40, "size is 1099511627776"),
        ("generator.z_dim", 1 << 30, "one sample would take 429500"),
        ("generator.num_classes", 1 << 62, "num_classes is 4611686018427387904; it must be <= "),
        ("generator.num_ws", 1 << 30, "one sample would take"),
        ("generator.z_dim", 1 << 70, "z_dim is 1180591620717411303424; it must be <= "),
        ("generator.mapping_layers", -1, "mapping_layers is -1; it must be >= 0"),
        ("generator.w_avg", [1e308], "w_avg[0] is 1e+308; it must be <= 3.4028"),
        ("generator.channels", [1] * 1000, "channels has 1000 values"),
        ("labels.feature_dim", 0, "feature_dim is 0"),
        ("licences", ["x" * (1 << 20)], "it must be of length <= 65536"),
        ("heads|segmentation|classes|0|name", "x" * 2000, "it must be of length <= 1024"),
        ("calibrations|0|quantiles", [-1e308, 1e308], "quantiles[0] is -1e+308; it must be >= "),
        ("calibrations|0|seed", -1, "seed is -1"),
        ("calibrations|0|options|truncation_psi", 1e308, "truncation_psi is 1e+308"),
        ("calibrations|0|options|views_per_object", -1, "views_per_object is -1"),
        ("calibrations|0|quantiles", [0.5], "quantiles has 1 values"),
        ("calibrations|0|quantiles", [0.5, 0.4], "quantiles is not ascending"),
        ("calibrations|0|samples", 0, "samples is 0"),
        ("calibrations|0|content", {**TABLE, "name": "../x"}, "content.name is '../x'"),
        ("calibrations|0|content", {**TABLE, "name": "mapping.onnx"}, "files and plans lack"),
        ("calibrations|0|content", {**TABLE, "samples": 65537}, "samples is 65537"),
        ("calibrations|0|content", {**TABLE, "columns": 1 << 30}, "values are over 268435456"),
        ("calibrations|0|content", {**TABLE, "file": {"sha256": "x", "size": 9}}, "file.sha256"),
    ],
)
def test_a_contradiction_is_named(
    folder: Path, editor: Any, keys: str, value: object, words: str
) -> None:
    editor.set(keys, value)
    assert words in refusal(folder)


def test_absurd_sizes_are_refused_by_the_memory_they_would_take(folder: Path, editor: Any) -> None:
    for keys in ("labels.grid", "labels.height", "labels.width", "generator.resolution"):
        editor.set(keys, (1 << 31) - 1)
    assert "one sample would take 36893" in refusal(folder)
    for keys in ("labels", "heads"):
        editor.set(keys, None)
    editor.set("calibrations", [])
    assert "one sample would take 13835" in refusal(folder)


@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"1e999"])
def test_a_calibration_that_is_not_finite_is_refused(folder: Path, word: bytes) -> None:
    file = folder / "manifest.json"
    before = file.read_bytes()
    file.write_bytes(re.sub(rb'"quantiles": *\[[^,\]]*', b'"quantiles":[' + word, before))
    assert file.read_bytes() != before
    assert re.search("out of range|not JSON", refusal(folder))


def test_a_manifest_of_many_calibrations_is_refused(folder: Path, editor: Any) -> None:
    """They are compared with each other."""
    editor.set("calibrations", editor.read()["calibrations"][:1] * (MAX_CALIBRATIONS + 1))
    assert f"calibrations has {MAX_CALIBRATIONS + 1} values" in refusal(folder)


def test_a_manifest_of_very_many_values_is_refused_before_they_are_decoded(
    folder: Path, editor: Any
) -> None:
    """Decoding 60 MB of them takes 15 s, in which no other thread of a server runs."""
    editor.set("generator.w_avg", [0] * MAX_VALUES)
    assert f"has over {MAX_VALUES} values" in refusal(folder)


def test_a_manifest_of_many_files_is_refused(folder: Path, editor: Any) -> None:
    files = {f"f{i}": {"sha256": "0" * 64, "size": 0} for i in range(1000)}
    editor.set("files", {**editor.read()["files"], **files})
    assert "files has 1002 entries" in refusal(folder)


def test_a_score_needs_its_head(folder: Path, editor: Any) -> None:
    editor.set("heads.segmentation", None)
    assert "score_source is segmentation" in refusal(folder)


def test_calibrations_need_a_score(folder: Path, editor: Any) -> None:
    editor.set("heads.score_source", None)
    assert "no score_source" in refusal(folder)


def test_two_calibrations_of_the_same_options_are_refused(folder: Path, editor: Any) -> None:
    content = editor.read()
    content["calibrations"].append(content["calibrations"][0])
    editor.write(content)
    assert "same options" in refusal(folder)


@pytest.mark.parametrize("name", ["mapping.onnx", "labeller.onnx"])
def test_a_required_file_must_be_listed(folder: Path, editor: Any, name: str) -> None:
    content = editor.read()
    del content["files"][name]
    editor.write(content)
    assert f"files lacks {name}" in refusal(folder)


@pytest.mark.parametrize("name", ["mapping.onnx", "labeller.onnx"])
def test_one_flipped_bit_is_found(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    message = refusal(folder)
    assert name in message and "SHA-256" in message
    open_bundle(folder, verify=False)  # and only the hash can tell


def test_a_truncated_file_is_found_without_hashing(folder: Path) -> None:
    (folder / "labeller.onnx").write_bytes(b"")
    with pytest.raises(FileError, match=r"labeller\.onnx has 0 bytes"):
        open_bundle(folder, verify=False)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "labeller.onnx").unlink()
    assert "labeller.onnx cannot be read" in refusal(folder)


def test_an_unlisted_file_cannot_be_had(folder: Path) -> None:
    (folder / "other.onnx").write_bytes(b"")
    with pytest.raises(FileError, match=r"no other\.onnx"):
        open_bundle(folder).file("other.onnx")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("generator.truncation_psi", 0.25),
        ("labels.tap_recipe", "other"),
        ("heads.score_fraction", 0.25),
        ("files|mapping.onnx|sha256", "0" * 64),
    ],
)
def test_the_id_covers_what_decides_samples(
    folder: Path, editor: Any, keys: str, value: object
) -> None:
    editor.set(keys, value)
    assert "bundle_id" in refusal(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("licences", ["other"]), ("tools", {"a": "b"}), ("parity", []), ("calibrations", [])],
)
def test_the_id_leaves_out_what_does_not(
    folder: Path, editor: Any, field: str, value: object
) -> None:
    before = open_bundle(folder).manifest
    editor.set(field, value)
    after = open_bundle(folder).manifest
    assert getattr(after, field) == value and after.bundle_id == before.bundle_id


def test_the_id_is_independent_of_the_order_of_files(folder: Path) -> None:
    manifest = open_bundle(folder).manifest
    backwards = dict(reversed(list(manifest.files.items())))
    assert manifest.bundle_id == bundle_id_from_content(
        manifest.generator, manifest.labels, manifest.heads, backwards
    )


def test_the_id_of_format_1_does_not_change() -> None:
    """Engine caches and clients' pins hold these words."""
    assert fake_bundle(boxes=0).manifest.bundle_id == PINNED_ID


def test_a_manifest_survives_writing_and_reading(folder: Path) -> None:
    manifest = open_bundle(folder).manifest
    write_manifest(folder, manifest)
    assert open_bundle(folder).manifest == manifest


@PROFILE
@given(data=st.data())
def test_mangled_manifests_give_one_line(folder: Path, data: st.DataObject) -> None:
    text = bytearray((folder / "manifest.json").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text) - 1))
        end = data.draw(st.integers(start, min(start + 40, len(text))))
        text[start:end] = data.draw(st.binary(max_size=8))
    try:
        manifest = manifest_from_bytes(bytes(text), "manifest.json")
    except ManifestError as error:
        assert str(error).startswith("manifest.json") and "\n" not in str(error)
    else:
        assert isinstance(manifest, Manifest)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@PROFILE
@given(data=st.data(), value=JSON)
def test_any_value_in_any_field_gives_one_line(
    folder: Path, data: st.DataObject, value: object
) -> None:
    content = at = json.loads((folder / "manifest.json").read_text())
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys))
        if not at[key] or not isinstance(at[key], dict | list) or data.draw(st.booleans()):
            break
        at = at[key]
    at[key] = value
    try:
        manifest_from_bytes(json.dumps(content).encode(), "manifest.json")
    except ManifestError as error:
        assert str(error).startswith("manifest.json") and "\n" not in str(error)


def test_numbers_beyond_json_are_refused(folder: Path, editor: Any) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"w_avg": [', '"w_avg": [1e999, ', 1))
    assert "manifest.json" in refusal(folder)


def test_fields_are_immutable(folder: Path) -> None:
    manifest = open_bundle(folder).manifest
    with pytest.raises(AttributeError):
        manifest.bundle_id = "other"  # type: ignore[misc]
    assert msgspec.structs.replace(manifest, tools={}).tools == {}


def test_no_collection_of_a_manifest_is_without_a_limit() -> None:
    """What comes without one must be compared with another field, or limited by check_manifest."""
    compared = {"w_avg", "cameras", "directions", "files", "plans", "proposals", "tools"}
    seen: set[str] = set()

    def walk(kind: msgspec.inspect.Type, where: str) -> None:
        if isinstance(kind, msgspec.inspect.StructType) and kind.cls.__name__ not in seen:
            seen.add(kind.cls.__name__)
            for field in kind.fields:
                walk(field.type, field.name)
        elif isinstance(kind, msgspec.inspect.UnionType):
            for one in kind.types:
                walk(one, where)
        elif isinstance(kind, msgspec.inspect.Metadata):
            walk(kind.type, where)
        elif isinstance(kind, msgspec.inspect.ListType):
            assert kind.max_length is not None or where in compared, where
            walk(kind.item_type, where)
        elif isinstance(kind, msgspec.inspect.DictType):
            assert kind.max_length is not None or where in compared, where
            walk(kind.value_type, where)

    walk(msgspec.inspect.type_info(Manifest), "")
    assert {"ScoreCalibration", "PortablePlan", "ViewBankFacts"} <= seen


@pytest.mark.parametrize("field", ["tools", "files", "plans"])
def test_a_manifest_of_very_many_entries_is_refused(folder: Path, editor: Any, field: str) -> None:
    file = editor.read()["files"]["labeller.onnx"]
    plan = {
        "file": file, "graph": "labeller.onnx", "graph_sha256": file["sha256"],
        "precision": "float32", "batch_sizes": [1], "capabilities": ["8.9"], "tensorrt_rtx": "1",
    }  # fmt: skip
    entry = {"tools": "1", "files": file, "plans": plan}[field]
    editor.set(field, {f"{number}.x": entry for number in range(300)})
    assert f"{field} has 300" in refusal(folder)
