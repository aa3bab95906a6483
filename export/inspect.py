"""Bundle or weights file -> lines of text that describe it, and the label recipes that fit it.

The bundle comes first, then weights files by kind, then generator and ensembles with recipes.
"""

from pathlib import Path

import msgspec

from bundle.files import opened_regular_file
from bundle.fused import FUSED, fused_from_bytes
from bundle.manifest import (
    LABELLER,
    Certificate,
    DirectionFacts,
    Heads,
    Parity,
    ProposalFacts,
    RefinerFacts,
    ScoreCalibration,
    ViewBankFacts,
)
from bundle.open import Bundle
from checkpoints import (
    NATIVE,
    CheckpointError,
    EncoderCard,
    GeneratorCard,
    InterpreterCard,
    InverseGraphicsCard,
    RefinerCard,
    ViewsCard,
    encoder_from_file,
    generator_from_foreign,
    generator_from_path,
    interpreter_from_file,
    inverse_graphics_from_file,
    is_pattern,
    kind_of_weights,
    matching_recipes,
    member_paths,
    published_names,
    read_array,
    read_foreign,
    recipe_from_name,
    refiner_from_file,
    views_from_file,
    widths_of_member,
)
from export.checks.parity import TOLERANCES, W_MAX_DIFFERENCE
from labelmint.model import percent_from_bound
from nets.config import SQUARE, GeneratorConfig, size_at
from nets.generator import Generator

NPY_MAGIC = b"\x93NUMPY"


def lines_from_bundle(bundle: Bundle) -> list[str]:
    """Generator, files, heads, parity with the reference, and calibrations of a bundle."""
    manifest = bundle.manifest
    generator, labels = manifest.generator, manifest.labels
    size = sum(entry.size for entry in manifest.files.values()) / 1e6
    lines = [
        f"{bundle.path}: {manifest.bundle_id}",
        f"  generator    {generator.family}, {_pixels(*generator.size_at(generator.resolution))}, "
        f"w+ [{generator.num_ws}, {generator.w_dim}], view rows {generator.view_layers}, "
        f"psi {generator.truncation_psi}, cutoff {generator.truncation_cutoff}",
        f"  files        {', '.join(sorted(manifest.files))} ({size:.1f} MB)",
        f"  licences     {', '.join(manifest.licences) or 'none stated'}",
    ]
    if labels is not None and manifest.heads is not None:
        lines.append(f"  labels       {labels.height} x {labels.width} px")
        lines += _head_lines(manifest.heads)
    if manifest.refiner is not None:
        lines.append(f"  refiner      {_refiner_text(manifest.refiner)}")
    if manifest.views is not None:
        lines.append(f"  views        {_views_text(manifest.views)}")
    if FUSED in manifest.files:
        fused = fused_from_bytes(bundle.read(FUSED), bundle.file(FUSED))
        gpus = ", ".join(fused.programs)
        lines.append(f"  fused        kernels for compute capability {gpus} ({fused.compiler})")
    lines += [
        f"  plan         {name}: TensorRT for RTX {plan.tensorrt_rtx}, compute capability "
        f"{', '.join(plan.capabilities)}, batches of {', '.join(map(str, plan.batch_sizes))}"
        for name, plan in manifest.plans.items()
    ]
    lines += [f"  parity       {_parity_text(parity)}" for parity in manifest.parity]
    lines += [f"  calibration  {_calibration_text(c)}" for c in manifest.calibrations]
    lines += [f"  proposal     {_proposal_text(n, p)}" for n, p in manifest.proposals.items()]
    lines += [f"  direction    {_direction_text(n, d)}" for n, d in manifest.directions.items()]
    if manifest.certificate is not None:
        lines += lines_from_certificate(manifest.certificate)
    return lines


def lines_from_certificate(certificate: Certificate) -> list[str]:
    """What the reviews prove, a line for each threshold."""
    lines = [
        f"  certificate  {len(certificate.losses)} reviews, psi {certificate.truncation_psi}, "
        f"cutoff {certificate.truncation_cutoff}; mean share of wrong pixels, with "
        f"{certificate.confidence:.0%} confidence:"
    ]
    for row in certificate.thresholds:
        limit = "all samples" if row.threshold is None else f"up to {row.threshold:.4g}"
        bound = percent_from_bound(row.upper_bound)
        lines.append(f"               {limit} (keeps about {row.keep:.0%}): at most {bound}")
    return lines


def _head_lines(heads: Heads) -> list[str]:
    lines = []
    if heads.segmentation is not None:
        names = ", ".join(c.name for c in heads.segmentation.classes)
        lines.append(f"  segmentation {heads.segmentation.members} members: {names}")
    if heads.keypoints is not None:
        names = ", ".join(heads.keypoints.names)
        lines.append(f"  keypoints    {heads.keypoints.members} members: {names}")
    if heads.depth is not None:
        lines.append(f"  depth        {heads.depth.members} members, in {heads.depth.unit}")
    score: str = heads.score_source or "none, so filtering is refused"
    if heads.score_source == "segmentation":
        score += f", by {heads.score_measure}"
    return [*lines, f"  score        {score}"]


def _refiner_text(refiner: RefinerFacts) -> str:
    return (
        f"{refiner.blocks} blocks of width {refiner.width}, grain {refiner.grain}, regulariser "
        f"{refiner.regulariser}; drift {refiner.shift_px:.2f} px in training"
    )


def _views_text(views: ViewBankFacts) -> str:
    text = f"{views.codes} in the bank"
    for name, field in (("azimuth", "azimuth_deg"), ("elevation", "elevation_deg")):
        known = [getattr(camera, field) for camera in views.cameras or ()]
        known = [value for value in known if value is not None]
        if known:
            text += f", {name} {min(known):.0f} to {max(known):.0f} degrees"
    return text if views.cameras else f"{text}, cameras not known"


def _parity_text(parity: Parity) -> str:
    precisions = {file: precision for precision, file in LABELLER.items()}
    tolerance = TOLERANCES.get(precisions.get(parity.graph, ""))
    figures = []
    for name, value in msgspec.structs.asdict(parity).items():
        if not isinstance(value, float | int) or name == "samples":
            continue
        limit = W_MAX_DIFFERENCE if name == "w_max_difference" else getattr(tolerance, name, None)
        figures.append(f"{name} {value:.3g}" + ("" if limit is None else f" (limit {limit:g})"))
    return f"{parity.graph} ({parity.runtime}, {parity.samples} samples): {', '.join(figures)}"


def _proposal_text(name: str, facts: ProposalFacts) -> str:
    return (
        f"{name}: {facts.where}, {100 * facts.share.value:.2g}% of all samples and "
        f"{100 * facts.generated_share.value:.2g}% of those it generates"
    )


def _direction_text(name: str, facts: DirectionFacts) -> str:
    least, most = facts.strengths[0], facts.strengths[-1]
    return (
        f"{name}: {facts.changes} on {100 * least.share.value:.2g}% of the pixels at strength "
        f"{least.strength:g}, {100 * most.share.value:.2g}% at {most.strength:g}; rows "
        f"{facts.first_row} to {facts.end_row - 1} of w+"
    )


def _calibration_text(calibration: ScoreCalibration) -> str:
    options = calibration.options
    q = calibration.quantiles
    views = {
        "drawn": f"{options.views_per_object} view(s)",
        "bank": f"{options.views_per_object} views of the bank",
        "fixed": f"view {options.view} of the bank",
        "random": "random views of the bank",
    }
    chosen = "drawn" if options.class_index is None else str(options.class_index)
    return (
        f"{options.latent_source}, psi {options.truncation_psi}, cutoff "
        f"{options.truncation_cutoff}, class {chosen}, {views[options.view_mode]}: "
        f"{calibration.samples} samples, median {q[len(q) // 2]:.4g}"
        + ("" if calibration.content is None else f", content of {calibration.content.samples}")
    )


def lines_from_weights(path: Path) -> list[str]:
    """Describes weights, without running any code in them.

    path: a weights file of labelmint or of another project, a mean latent (.npy), or one member
    a folder or a pattern of names of a published ensemble (model_<k>.pth). Raises CheckpointError.
    """
    if path.is_dir() or is_pattern(path):
        return _member_lines(path, member_paths(path))
    if path.suffix == NATIVE:
        return _native_lines(path)
    if _starts_with(path, NPY_MAGIC):
        shape = list(read_array(path).shape)
        return [f"{path}: array {shape}; a mean latent is [w_dim] or [rows, w_dim]"]
    file = read_foreign(path)
    try:
        widths_of_member(file, str(path))
    except CheckpointError:  # not a member, so it should be a generator
        return _generator_lines(path, *generator_from_foreign(file, str(path)))
    return _member_lines(path, [path])


def _native_lines(path: Path) -> list[str]:
    match kind_of_weights(path):
        case "interpreter":
            return _interpreter_lines(path, interpreter_from_file(path)[1])
        case "refiner":
            return _refiner_lines(path, refiner_from_file(path)[1])
        case "views":
            return _view_lines(path, views_from_file(path)[1])
        case "encoder":
            return _encoder_lines(path, encoder_from_file(path)[1])
        case "inverse-graphics":
            return _inverse_graphics_lines(path, inverse_graphics_from_file(path)[1])
        case _:
            return _generator_lines(path, *generator_from_path(path, None))


def _generator_lines(path: Path, generator: Generator, card: GeneratorCard) -> list[str]:
    return lines_from_generator(str(path), generator.config, card)


def lines_from_generator(source: str, config: GeneratorConfig, card: GeneratorCard) -> list[str]:
    """Shape of a generator, and the published label recipes that read its taps."""
    shape: str = config.architecture
    places = "from 4 px on"
    if config.family == "stylegan1":
        shape = "DatasetGAN's port"
    elif config.alias_free is not None:
        radial = any(filters.radial for filters in config.alias_free.filters)
        shape = "radial filters, as in R" if radial else "separable filters, as in T"
        places = "from the first to the last layer"
    noise = "from the file" if card.noise_seed is None else f"drawn from seed {card.noise_seed}"
    if config.num_noises == 0:
        noise = "none: this family has none"
    lines = [
        f"{source}: generator, {config.family} ({shape})",
        f"  resolution   {_pixels(*config.image_size)}, channels "
        f"{', '.join(map(str, config.channels))} {places}",
        f"  mapping      {config.mapping_layers} layers, z {config.z_dim}, w {config.w_dim}, "
        f"{config.num_ws} rows of w+",
        f"  classes      {config.c_dim or 'none: not conditional'}",
        f"  clamp        {config.conv_clamp or 'none'}",
        f"  noise        {noise}",
        *_provenance_lines(card),
        f"  taps         {config.tap_recipe}, D = {config.features}",
        f"  licences     {', '.join(card.licences) or 'not stated: see the source of the file'}",
    ]
    square = config.start == SQUARE  # as for all published recipes
    matching = matching_recipes(config.features, config.tap_recipe) if square else []
    return lines + _recipe_lines(matching)


def _pixels(height: int, width: int) -> str:
    """Size of an image in words; one number for a square."""
    return f"{height} px" if height == width else f"{width} x {height} px (width x height)"


def _provenance_lines(card: GeneratorCard) -> list[str]:
    """What was chosen or made up where the file left it open."""
    notes = card.provenance if isinstance(card.provenance, dict) else {}
    return [f"  {key:<12} {notes[key]}" for key in ("part", "colors", "w_avg") if key in notes]


def _recipe_lines(matching: list[str]) -> list[str]:
    lines = []
    for name in matching:
        file = recipe_from_name(name).file
        lines.append(
            f"  recipe       {name}: D = {file.features}, {file.height} x {file.width} px, "
            f"{len(file.classes)} classes, psi {file.truncation_psi}; {', '.join(file.licences)}"
        )
    if not lines:
        lines.append(
            f"  recipe       none of the published ones fits ({', '.join(published_names())})"
        )
    return lines


def _member_lines(path: Path, members: list[Path]) -> list[str]:
    widths = {str(m): widths_of_member(read_foreign(m), str(m)) for m in members}
    features, h1, h2, classes = next(iter(widths.values()))
    different = [name for name, w in widths.items() if w != (features, h1, h2, classes)]
    lines = [
        f"{path}: label ensemble, {len(members)} member{'s' if len(members) > 1 else ''}",
        f"  layers       D = {features}, {h1}, {h2}, {classes} classes",
        *(f"  differs      {name}: {', '.join(map(str, widths[name]))}" for name in different),
    ]
    return lines + _recipe_lines(matching_recipes(features))


def _interpreter_lines(path: Path, card: InterpreterCard) -> list[str]:
    heads = [
        f"  {head.kind:<12} {head.members} members, hidden {head.hidden[0]}, {head.hidden[1]}, "
        f"{head.outputs} outputs"
        for head in card.heads
    ]
    rows, columns = size_at(card.grid, card.start or SQUARE)
    grid = str(rows) if rows == columns else f"{rows} x {columns} px"
    return [
        f"{path}: interpreter for the generator of SHA-256 {card.generator_sha256}",
        f"  taps         {card.tap_recipe}, D = {card.features}, {card.resize}",
        f"  labels       {card.height} x {card.width} px of a grid of {grid}",
        *heads,
        f"  licences     {', '.join(card.licences) or 'none stated'}",
    ]


def _refiner_lines(path: Path, card: RefinerCard) -> list[str]:
    config, loss = card.config, card.regulariser
    generator = card.generator_sha256 or "not known"
    return [
        f"{path}: refiner for the generator of SHA-256 {generator}",
        f"  network      {config.blocks} blocks of width {config.width}, grain {config.grain} from "
        f"seed {card.grain_seed}",
        f"  images       {card.width} x {card.height} px",
        f"  regulariser  {loss.strength:g} x {loss.reduction} of {loss.feature}",
        f"  drift        {card.shift_px:.2f} px, structure {card.structure:.3f}"
        + ("" if card.agreement is None else f", agreement {card.agreement:.3f}"),
        f"  licences     {', '.join(card.licences) or 'none stated'}",
    ]


def _view_lines(path: Path, card: ViewsCard) -> list[str]:
    cameras = card.cameras or []
    known = [camera.azimuth_deg for camera in cameras if camera.azimuth_deg is not None]
    angles = f"azimuth {min(known):.0f} to {max(known):.0f} degrees" if known else "not known"
    return [
        f"{path}: view bank for the generator of SHA-256 {card.generator_sha256}",
        f"  codes        {card.codes}, the first {card.view_layers} rows of w+ of {card.w_dim}",
        f"  cameras      {angles}",
        f"  licences     {', '.join(card.licences) or 'none stated'}",
    ]


def _encoder_lines(path: Path, card: EncoderCard) -> list[str]:
    rows, _ = size_at(card.grid, card.start or SQUARE)
    return [
        f"{path}: encoder for the generator of SHA-256 {card.generator_sha256}",
        f"  images       rows {card.crop_top} to {card.crop_top + card.rows} of {rows} px, "
        f"resized to {card.width} x {card.height} px",
        f"  latents      {card.num_ws} rows of w+ of {card.w_dim}, in {card.iterations} steps",
        f"  licences     {', '.join(card.licences) or 'none stated'}",
    ]


def _inverse_graphics_lines(path: Path, card: InverseGraphicsCard) -> list[str]:
    return [
        f"{path}: inverse graphics for objects of the bundle {card.bundle_id}",
        f"  network      input {card.extent} px, texture of {card.texture} rows"
        + (", predicts the camera" if card.camera else ""),
        f"  background   {', '.join(card.background)}",
        f"  silhouettes  IoU {card.silhouette:.3f} in training",
        f"  licences     {', '.join(card.licences) or 'none stated'}",
    ]


def _starts_with(path: Path, magic: bytes) -> bool:
    try:
        with opened_regular_file(path) as stream:
            return stream.read(len(magic)) == magic
    except OSError:
        return False  # the reader reports it
