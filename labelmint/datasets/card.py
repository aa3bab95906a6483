"""Data card: the origin and content of a data set, as card.json and as README.md.

Enter: a request, a model and the final state of a download. Leave: the content of both files. It
has no dates and no host names, so that equal data sets have equal cards.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from labelmint.datasets.folder import DownloadState
from labelmint.datasets.request import Request
from labelmint.datasets.samples import image_suffix, outputs_from_model
from labelmint.errors import printable_from_text
from labelmint.model import Camera, Certificate, Model, percent_from_bound, same_truncation

FORMAT = 1  # version of card.json
README = "README.md"


def card_from_state(
    request: Request, model: Model, state: DownloadState, report: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Content of card.json: the request, the model, the numbers of samples, and what the filter
    removed, from `report_from_range`."""
    pixels, images = state.class_pixels, state.class_images
    card = {
        "card": FORMAT,
        "bundle_id": state.bundle_id,
        "licences": list(model.licences),
        "request": dataclasses.asdict(dataclasses.replace(request, model=state.model)),
        **({"learned_id": state.learned_id} if state.learned_id else {}),
        "max_uncertainty": state.threshold,
        "samples": {"kept": state.kept, "examined": request.examined(state.next_index)},
        "outputs": list(outputs_from_model(model, request)),
        "model": {
            "family": model.family,
            "image_size": list(model.image_size),
            "label_size": list(model.label_size),
            "truncation_psi": (
                model.truncation_psi if request.truncation_psi is None else request.truncation_psi
            ),
            "truncation_cutoff": model.truncation_cutoff,
            "score_source": model.score_source,
            "score_measure": model.score_measure,
            "score": model.score_words(),
        },
        "classes": [
            {
                "id": label.id,
                "name": label.name,
                "color": list(label.color),
                "pixels": pixels.get(label.id, 0),
                "images": images.get(label.id, 0),
            }
            for label in model.classes
        ],
        "keypoints": list(model.keypoints),
        "skeleton": [list(bone) for bone in model.skeleton],
    }
    if model.certificate is not None:
        card["certificate"] = _certificate(request, model.certificate, card)
    return card if report is None else {**card, "filter_report": report}


def _certificate(request: Request, known: Certificate, card: dict[str, Any]) -> dict[str, Any]:
    """What the bundle's certificate says of these samples, or why it says nothing of them."""
    limit = card["max_uncertainty"]
    row, reason = known.at(limit), None
    chosen = ("where", "balance", "keep_by", "proposal")
    chosen_by = [name for name in chosen if getattr(request, name) is not None]
    reviewed = (known.truncation_psi, known.truncation_cutoff)
    model = card["model"]
    if not same_truncation(reviewed, (model["truncation_psi"], model["truncation_cutoff"])):
        reason = f"its reviews are of truncation psi {reviewed[0]:g}"
    elif request.class_index is not None or request.view is not None:
        reason = "its reviews are of drawn classes and views"
    elif request.views_per_object > 1:
        reason = "its reviews are of one view per object"
    elif request.edits is not None:
        reason = "its reviews are of samples without edits"
    elif chosen_by:
        flag = chosen_by[0].replace("_", "-")
        reason = f"it says nothing of samples that --{flag} chooses"
    elif request.filter is not None:
        reason = f"it says nothing of samples that --filter {request.filter} ranks"
    elif row is None:
        limits = (one.max_uncertainty for one in known.thresholds)
        words = ", ".join("no limit" if value is None else f"{value:.6g}" for value in limits)
        reason = f"this threshold was not reviewed; {words} were"
    stated = None if reason or row is None else row
    return {
        "confidence": known.confidence,
        "reviewed": known.reviewed,
        "kept_reviewed": None if stated is None else stated.reviewed,
        "wrong_pixels_at_most": None if stated is None else stated.upper_bound,
        "reason": reason,
    }


def readme_from_card(card: dict[str, Any], request: Request) -> str:
    """Content of README.md, with the YAML front matter of the Hugging Face hub."""
    sections = [
        _front_matter(card),
        f"# {_words(card['request']['model'])}: {card['samples']['kept']} labeled samples\n",
        "Images from a generator, labeled by an ensemble of small networks on its features. No "
        "person has\nchecked these labels. Made by labelmint "
        f"{request.release}; `card.json` has the same facts in machine-readable form.\n",
        _table(("", ""), _facts(card, request)),
    ]
    if card["classes"]:
        total = sum(label["pixels"] for label in card["classes"]) or 1
        kept = card["samples"]["kept"] or 1
        rows = [
            (label["id"], label["name"], "#{:02x}{:02x}{:02x}".format(*label["color"]),
             f"{label['pixels'] / total:.3%}", f"{label['images'] / kept:.1%}")
            for label in card["classes"]
        ]  # fmt: skip
        head = ("id", "name", "color", "share of pixels", "share of images")
        sections += ["## Classes\n", _table(head, rows)]
    if "filter_report" in card:
        sections += _filter_report(card["filter_report"])
    if card["keypoints"]:
        points = list(enumerate(card["keypoints"]))
        sections += ["## Keypoints\n", _table(("position", "name"), points)]
    sections += ["## Files\n", _FILES[request.format].format(suffix=image_suffix(request))]
    fields = _view_fields(card, request)
    if "weight" in card["outputs"]:
        sections.append(
            f"## Weights\n\n{_PLACES[request.format]} has `weight`: a loss that counts each sample "
            "by it, divided by\nthe sum of the weights, is that of the samples as the generator "
            "draws them.\n"
        )
    if fields:
        sections += [f"## Views\n\n{_PLACES[request.format]} has:\n", _table(("", ""), fields)]
    if "camera" in card["outputs"]:
        sections.append(_CAMERAS)
    return "\n".join(sections)


def _front_matter(card: dict[str, Any]) -> str:
    tasks = {
        "image-segmentation": bool(card["classes"]),
        "keypoint-detection": bool(card["keypoints"]),
        "depth-estimation": "depth" in card["outputs"],
    }
    licences = [tag.lower() for tag in card["licences"]] or ["unknown"]
    paths = _PATHS.get(card["request"]["format"], ("metadata.jsonl", "images/*"))
    if "mask" not in card["outputs"]:
        paths = tuple(path for path in paths if "mask" not in path)
    files = ", ".join(map(yaml_text, paths))
    lines = (
        f"pretty_name: {yaml_text(card['request']['model'] + ' by labelmint')}",
        f"license: [{', '.join(map(yaml_text, licences))}]",
        'tags: ["labelmint", "synthetic"]',
        f"task_categories: [{', '.join(yaml_text(task) for task, has in tasks.items() if has)}]",
        'configs: [{config_name: "default", data_files: [{split: "train", '  # for load_dataset
        f"path: [{files}]}}]}}]",
    )
    return "\n".join(["---", *lines, "---", ""])


# Files that `datasets.load_dataset` opens, where they are not those of most formats.
_PATHS = {
    "webdataset": ("samples-*.tar",),
    "hf": ("data/train-*.parquet",),
    "png": ("metadata.jsonl", "images/*", "masks/*"),
    "yolo-seg": ("metadata.jsonl", "images/train/*"),
    "yolo-pose": ("metadata.jsonl", "images/train/*"),
    "fiftyone": ("metadata.jsonl", "data/*", "fields/mask/*"),
}


def yaml_text(text: str) -> str:
    """A quoted YAML string of any text; JSON has escapes that YAML lacks."""
    plain = (c if " " <= c <= "~" and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    return f'"{"".join(plain)}"'


def _facts(card: dict[str, Any], request: Request) -> list[tuple[str, object]]:
    model, samples = card["model"], card["samples"]
    facts: list[tuple[str, object]] = [
        ("bundle", card["bundle_id"]),
        ("licenses of the weights", ", ".join(card["licences"]) or "not stated"),
        ("generator", model["family"]),
        ("seed", request.seed),
        ("raw indices", f"{request.start_index} to {_end(request)}"),
        ("samples", f"{samples['kept']} kept of {samples['examined']} examined"),
        ("score", model["score"] or "none"),
        ("filter", _filter(card, request)),
        *_certified(card),
        *_unmeasured(card, request),
        ("truncation psi", f"{model['truncation_psi']:g}"),
        ("views per object", request.views_per_object),
        ("outputs", ", ".join(card["outputs"])),
    ]
    if request.edits is not None:
        words = ", ".join(f"{name} {strength:+g}" for name, strength in request.edits.items())
        facts.append(
            (
                "edits",
                f"{words} standard deviations of w, on the samples of this seed and these indices",
            )
        )
    if request.view is not None:
        facts.append(("view", request.view))
    if request.class_index is not None:
        facts.append(("class of the generator", request.class_index))
    if request.num_shards > 1:
        facts.append(("shard", f"{request.shard_index} of {request.num_shards}"))
    return facts


def _view_fields(card: dict[str, Any], request: Request) -> list[tuple[str, str]]:
    fields = []
    if request.views_per_object > 1:
        whole = f"the raw index div {request.views_per_object}: the same for all views of an object"
        fields.append(("object", whole))
    if fields or "view" in card["outputs"]:
        fields.append(("view", "number of the viewpoint, the same for all objects"))
    if "camera" in card["outputs"]:
        names = ", ".join(Camera._fields)
        fields.append(
            (names if request.format == "png" else f"camera: {names}", "camera of the viewpoint")
        )
    return fields


def _end(request: Request) -> str:
    return "as far as needed" if request.stop is None else str(request.stop - 1)


def _unmeasured(card: dict[str, Any], request: Request) -> list[tuple[str, object]]:
    if _filter(card, request) == "none" or "filter_report" in card or not card["classes"]:
        return []
    return [("classes that the filter removed", "not measured; --filter-report measures them")]


def _certified(card: dict[str, Any]) -> list[tuple[str, object]]:
    known = card.get("certificate")
    if known is None:
        return []
    if known["wrong_pixels_at_most"] is None:
        return [("certificate", f"none for these samples: {known['reason']}")]
    bound = percent_from_bound(known["wrong_pixels_at_most"])
    text = (
        f"at most {bound} of a mask's pixels are wrong, on average over all samples that such a "
        f"stream keeps, with {known['confidence']:.0%} confidence; by a person's review of "
        f"{known['reviewed']} other samples of it, of which {known['kept_reviewed']} are kept"
    )
    return [("certificate", text)]


def _filter_report(report: dict[str, Any]) -> list[str]:
    examined, kept = report["samples"]
    rows: list[tuple[object, ...]] = []
    totals = [sum(label["pixels"][n] for label in report["classes"]) or 1 for n in (0, 1)]
    for label in report["classes"]:
        (all_images, kept_images), pixels = label["images"], label["pixels"]
        shares = [f"{pixels[n] / totals[n]:.3%}" for n in (0, 1)]
        rows.append((
            label["id"], label["name"], *shares, f"{all_images / (examined or 1):.1%}",
            f"{kept_images / (kept or 1):.1%}",
            *([f"{label['weighted']:.1%}"] if "weighted" in label else []),
            f"{kept_images} of {all_images}",
        ))  # fmt: skip
    weighted = any("weighted" in label for label in report["classes"])
    head = (
        "id", "name", "pixels, all", "pixels, kept", "images, all", "images, kept",
        *(("images, weighted",) if weighted else ()), "images with it that are kept",
    )  # fmt: skip
    effective = ""
    if "effective" in report:
        number = f"{report['effective']:.0f}"
        effective = f" With their weights, these tell as much as {number} equally weighted ones."
    return [
        "## What the filter removes\n",
        f"Measured on the first {examined} samples of the range, of which the filter keeps "
        f"{kept}.{effective}\n",
        _table(head, rows),
    ]


def _filter(card: dict[str, Any], request: Request) -> str:
    if request.filter:
        return f"{request.filter}, a fraction of {request.fraction} of the whole range"
    whole = ", by all views of an object" if request.filter_sets else ""
    conditions = [] if request.where is None else [f"where {request.where}{whole}"]
    if request.balance is not None:
        conditions.append(f"balanced to {_shares(request.balance)}")
    if request.proposal is not None:
        conditions.append(f"chosen by the proposal {request.proposal}")
    if conditions:
        whole = " and ".join(conditions)
        if request.keep_fraction is request.max_uncertainty is None:
            return whole
        whole = f", and {whole}"
    if request.keep_by:
        strata = ", ".join(request.keep_by)
        return f"keep fraction {request.keep_fraction} of each with and without {strata}{whole}"
    if request.keep_fraction is not None:
        limit = card["max_uncertainty"]
        shown = "no limit" if limit is None else f"uncertainty at most {limit:g}"
        return f"keep fraction {request.keep_fraction} by the bundle's calibration: {shown}{whole}"
    if request.max_uncertainty is not None:
        return f"uncertainty at most {request.max_uncertainty:g}{whole}"
    return "none"


def _shares(balance: dict[str, float] | str) -> str:
    if isinstance(balance, str):
        return balance
    return ", ".join(f"{share:.4g} {condition}" for condition, share in balance.items())


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_words(cell) for cell in row) + " |" for row in lines) + "\n"


_MARKUP = re.compile(r"[|\[\]`\\]")


def _words(value: object) -> str:
    """The text of a value, which may be a server's, as one line of Markdown shows it: no control
    characters for a terminal, no links or pictures for a browser."""
    text = printable_from_text(" ".join(str(value).split()))
    return _MARKUP.sub(r"\\\g<0>", text).replace("<", "&lt;")


_FILES = {
    "webdataset": """\
`samples-*.tar`, WebDataset shards. The key of a sample is its raw index. `KEY.{suffix}`: image.
`KEY.mask.png`: class ids as a palette PNG. `KEY.depth.npy`: depth, float16. `KEY.json`: index,
uncertainty, and keypoints as x, y (label pixels, pixel centers at +0.5) and confidence. Read masks
with `np.asarray(PIL.Image.open(...))`; a decoder that converts to RGB gives colors instead of ids.
""",
    "coco": """\
`images/` and `annotations.json`, COCO. Image ids are raw indices. Masks are RLE; class 0, the
background, has no annotations. Keypoints have the category `object` and COCO's coordinates, which
are 0.5 less than those of labelmint (pixel centers at +0.5).
""",
    "png": """\
`index.csv` has one row per sample. The key of a sample is its raw index. `images/KEY.{suffix}`:
image. `masks/KEY.png`: class ids as a palette PNG (`np.asarray` gives the ids). `depth/KEY.npy`:
depth, float16. `keypoints.jsonl`: x, y (label pixels, pixel centers at +0.5) and confidence.
""",
    "yolo-seg": """\
`images/train/`, `labels/train/` and `data.yaml`, as Ultralytics reads them. The name of a file is
the raw index. A line is a class, numbered from 0 without the background, and a polygon. A class in
several parts has a line for each; a hole is joined to its outline by a cut of no width. `val` in
`data.yaml` names the same images. `metadata.jsonl` has the uncertainty.
""",
    "yolo-pose": """\
`images/train/`, `labels/train/` and `data.yaml`, as Ultralytics reads them. The name of a file is
the raw index. A line is the object, its box, and x, y and visibility (2, or 0: not labeled) of each
keypoint. `val` in `data.yaml` names the same images. `metadata.jsonl` has the uncertainty and the
keypoints with their confidence.
""",
    "cvat": """\
`images/` and `annotations.xml`, CVAT for images 1.1: an exact mask of each class except 0, the
background, and a point for each confident keypoint, with the source "auto". Image ids are raw
indices. `metadata.jsonl` has the uncertainty.
""",
    "label-studio": """\
`images/`, `tasks.json` with a prediction for each image, and `config.xml`, the labeling interface:
a brush stroke of each class except 0, the background, and the confident keypoints. The field
`uncertainty` of a task is there to sort by.
""",
    "fiftyone": """\
`metadata.json`, `samples.json`, `data/KEY.{suffix}` and `fields/`, FiftyOne's own format
(`fiftyone.types.FiftyOneDataset`). The key is the raw index. `fields/mask/KEY.png`: class ids.
`fields/depth/KEY.png`: depth as 16-bit levels, of which 0 is `depth_low` and 65,535 `depth_high`.
Keypoints that are not confident have no place (NaN) there; `metadata.jsonl` has all of them.
""",
    "hf": """\
`data/train-*.parquet`, one row per sample: `index` (raw), `image`, and as far as the model has them
`mask` (class ids as a palette PNG; `np.asarray` gives the ids), `keypoints` (x, y in label pixels,
pixel centers at +0.5, and confidence), `depth` (float16) and `uncertainty`.
""",
}
_PLACES = {
    "webdataset": "`KEY.json`",
    "coco": "An entry of `images`",
    "png": "A row of `index.csv`",
    "hf": "A row",
    "cvat": "A line of `metadata.jsonl`",
    "label-studio": "A line of `metadata.jsonl`",
    "fiftyone": "A document of `samples.json`",
    "yolo-seg": "A line of `metadata.jsonl`",
    "yolo-pose": "A line of `metadata.jsonl`",
}
_CAMERAS = """\
The angles a (azimuth) and e (elevation) are in degrees; `focal` is the focal length divided by the
image's extent. A null or empty value is unknown. Axes of the object: x to its left, y up, z out of
its front. The camera looks at the origin, with y upright in the image: from the front at a = 0,
from the object's left at a > 0, from above at e > 0. Axes of the camera: right
(cos a, 0, -sin a), up (-sin a sin e, cos e, -cos a sin e), backward (sin a cos e, sin e,
cos a cos e). Its position is `distance` times backward.
"""
