"""The data card: where a data set came from, for people (README.md) and machines (card.json).

Nothing in it depends on when or where it was made, so that equal data sets have equal cards.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from labelmint.datasets.folder import State
from labelmint.datasets.request import Request
from labelmint.datasets.samples import image_suffix, outputs_from_model
from labelmint.model import Camera, Model

FORMAT = 1  # of card.json
README = "README.md"


def card_from_state(request: Request, model: Model, state: State) -> dict[str, Any]:
    """card.json: the request as it was asked, the model, and what came of it."""
    pixels = state.class_pixels
    return {
        "card": FORMAT,
        "bundle_id": state.bundle_id,
        "licences": list(model.licences),
        "request": dataclasses.asdict(dataclasses.replace(request, model=state.model)),
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
        },
        "classes": [
            {
                "id": label.id,
                "name": label.name,
                "color": list(label.color),
                "pixels": pixels.get(label.id, 0),
            }
            for label in model.classes
        ],
        "keypoints": list(model.keypoints),
        "skeleton": [list(bone) for bone in model.skeleton],
    }


def readme_from_card(card: dict[str, Any], request: Request) -> str:
    """README.md, a data card with YAML front matter as the Hugging Face hub reads it."""
    sections = [
        _front_matter(card),
        f"# {_words(card['request']['model'])}: {card['samples']['kept']} labelled samples\n",
        "Images from a generator, with labels that an ensemble of small networks read off its "
        "features;\nnobody has checked them. Made by labelmint "
        f"{request.release}; `card.json` says the same to machines.\n",
        _table(("", ""), _facts(card, request)),
    ]
    if card["classes"]:
        total = sum(label["pixels"] for label in card["classes"]) or 1
        rows = [
            (label["id"], label["name"], "#{:02x}{:02x}{:02x}".format(*label["color"]),
             f"{label['pixels'] / total:.3%}")
            for label in card["classes"]
        ]  # fmt: skip
        sections += ["## Classes\n", _table(("id", "name", "colour", "share of pixels"), rows)]
    if card["keypoints"]:
        points = list(enumerate(card["keypoints"]))
        sections += ["## Keypoints\n", _table(("position", "name"), points)]
    sections += ["## Files\n", _FILES[request.format].format(suffix=image_suffix(request))]
    fields = _view_fields(card, request)
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
    lines = (
        f"pretty_name: {_yaml(card['request']['model'] + ' by labelmint')}",
        f"license: [{', '.join(map(_yaml, licences))}]",
        'tags: ["labelmint", "synthetic"]',
        f"task_categories: [{', '.join(_yaml(task) for task, has in tasks.items() if has)}]",
    )
    return "\n".join(["---", *lines, "---", ""])


def _yaml(text: str) -> str:
    """A quoted string, whatever is in a name; JSON's own escapes are not all YAML's."""
    plain = (c if " " <= c <= "~" and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    return f'"{"".join(plain)}"'


def _facts(card: dict[str, Any], request: Request) -> list[tuple[str, object]]:
    model, samples = card["model"], card["samples"]
    facts: list[tuple[str, object]] = [
        ("bundle", card["bundle_id"]),
        ("licences of the weights", ", ".join(card["licences"]) or "not stated"),
        ("generator", model["family"]),
        ("seed", request.seed),
        ("raw indices", f"{request.start_index} to {_end(request)}"),
        ("samples", f"{samples['kept']} kept of {samples['examined']} examined"),
        ("filter", _filter(card, request)),
        ("truncation psi", f"{model['truncation_psi']:g}"),
        ("views per object", request.views_per_object),
        ("outputs", ", ".join(card["outputs"])),
    ]
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
        whole = f"the raw index div {request.views_per_object}, one number for an object's views"
        fields.append(("object", whole))
    if fields or "view" in card["outputs"]:
        fields.append(("view", "which viewpoint; one number for the same one of all objects"))
    if "camera" in card["outputs"]:
        names = ", ".join(Camera._fields)
        fields.append(
            (names if request.format == "png" else f"camera: {names}", "of that viewpoint")
        )
    return fields


def _end(request: Request) -> str:
    return "the last one needed" if request.stop is None else str(request.stop - 1)


def _filter(card: dict[str, Any], request: Request) -> str:
    if request.filter:
        return f"{request.filter}, a share of {request.fraction} of the whole range"
    whole = ", by all views of an object" if request.filter_sets else ""
    if request.keep_fraction is not None:
        limit = card["max_uncertainty"]
        shown = "no limit" if limit is None else f"uncertainty at most {limit:g}"
        return f"keep fraction {request.keep_fraction} by the bundle's calibration: {shown}{whole}"
    if request.max_uncertainty is not None:
        return f"uncertainty at most {request.max_uncertainty:g}{whole}"
    return "none"


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_words(cell) for cell in row) + " |" for row in lines) + "\n"


def _words(value: object) -> str:
    """A name on one line of Markdown."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


_FILES = {
    "webdataset": """\
`samples-*.tar`, WebDataset shards. A sample's key is its raw index: `KEY.{suffix}` is the image,
`KEY.mask.png` the class ids as a palette picture, `KEY.depth.npy` float16, `KEY.json` the index,
the uncertainty, and keypoints as x, y (label pixels, centres at +0.5) and confidence. Read masks
by `np.asarray(PIL.Image.open(...))`: a decoder that converts to RGB gives their colours.
""",
    "coco": """\
`images/` and `annotations.json`, COCO. Image ids are raw indices; class 0, the background, has no
annotations; masks are RLE. Keypoints belong to the category `object`, in COCO's coordinates:
0.5 less than those of labelmint, which have pixel centres at +0.5.
""",
    "png": """\
`index.csv` lists a row for every sample. `images/KEY.{suffix}`; `masks/KEY.png`, class ids as
palette pictures (`np.asarray` gives ids); `depth/KEY.npy`, float16; `keypoints.jsonl`, x, y (label
pixels, centres at +0.5) and confidence. A key is the raw index.
""",
}
_PLACES = {
    "webdataset": "`KEY.json`",
    "coco": "An entry of `images`",
    "png": "A row of `index.csv`",
}
_CAMERAS = """\
Angles a (azimuth) and e (elevation) are in degrees, `focal` is the focal length over the image's
extent; null or empty is not known. The object frame has x to the object's left, y up and z out of
its front. A camera looks at the origin, y upright in the image: at a = 0 from the front, at a
positive a from the object's left, at a positive e from above. Its right axis is
(cos a, 0, -sin a), up (-sin a sin e, cos e, -cos a sin e), backward (sin a cos e, sin e,
cos a cos e), and it stands at `distance` times backward.
"""
