"""A served model -> its description on the wire, a pb.Model."""

import msgspec

from bundle.calibration import find_calibration
from bundle.manifest import CameraFacts, Certificate, Estimate, Manifest
from bundle.open import Bundle
from engines.content import content_columns
from engines.sampling import default_options, key_from_options
from labelmint.codec import OUTPUTS
from labelmint.v1 import label_service_pb2 as pb
from service.models import ServedModel


def proto_from_model(model: ServedModel) -> pb.Model:
    """Everything a client can know before it asks for samples."""
    manifest = model.bundle.manifest
    generator, labels = manifest.generator, manifest.labels
    specs = model.outputs
    height, width = specs["image"].extents[:2]
    key = key_from_options(default_options(generator))
    calibration = find_calibration(manifest, key)
    proto = pb.Model(
        name=model.name,
        bundle_id=manifest.bundle_id,
        family=generator.family,
        outputs=sorted(OUTPUTS[name].output for name in specs),
        image_height=height,
        image_width=width,
        label_height=labels.height if labels else 0,
        label_width=labels.width if labels else 0,
        z_dim=generator.z_dim,
        w_dim=generator.w_dim,
        num_ws=generator.num_ws,
        num_classes=generator.num_classes,
        view_layers=generator.view_layers,
        truncation_psi=generator.truncation_psi,
        truncation_cutoff=generator.truncation_cutoff,
        max_batch_size=model.batch_size,
        engine=model.engines[0].name,
        licences=manifest.licences,
        calibrated=calibration is not None,
        refined=manifest.refiner is not None,
        predicates=bool(content_columns(manifest)),
        balances=calibration is not None and calibration.content is not None,
    )
    _add_heads(proto, manifest)
    _add_views(proto, manifest)
    _add_proposals(proto, model.bundle)
    _add_directions(proto, model.bundle)
    if manifest.certificate is not None:
        proto.certificate.CopyFrom(_proto_from_certificate(manifest.certificate))
    return proto


def _add_heads(proto: pb.Model, manifest: Manifest) -> None:
    heads = manifest.heads
    if heads is None:
        return
    proto.score_source = heads.score_source or ""
    if heads.score_source is not None:
        classes = heads.score_source == "segmentation"
        proto.score_measure = heads.score_measure if classes else "variance"
    if heads.segmentation is not None:
        for number, label_class in enumerate(heads.segmentation.classes):
            proto.classes.add(id=number, name=label_class.name, color=label_class.color)
    if heads.keypoints is not None:
        for name in heads.keypoints.names:
            proto.keypoints.add(name=name)
        for start, end in heads.keypoints.skeleton:
            proto.skeleton.add(from_keypoint=start, to_keypoint=end)


def _add_views(proto: pb.Model, manifest: Manifest) -> None:
    if manifest.views is None:
        return
    unknown = CameraFacts(azimuth_deg=None, elevation_deg=None, distance=None, focal=None)
    for camera in manifest.views.cameras or [unknown] * manifest.views.codes:
        proto.view_bank.add(**msgspec.structs.asdict(camera))  # None leaves a field absent


def _add_proposals(proto: pb.Model, bundle: Bundle) -> None:
    for name, proposal in sorted(bundle.proposals.items()):
        facts = proposal.facts
        proto.proposals.add(
            name=name,
            where=facts.where,
            truncation_psi=facts.options.truncation_psi,
            truncation_cutoff=facts.options.truncation_cutoff,
            class_index=facts.options.class_index,
            share=_estimate(facts.share),
            generated_share=_estimate(facts.generated_share),
            gain=_estimate(facts.gain),
            effective=_estimate(facts.effective),
            examined=_estimate(facts.examined),
            digest=proposal.digest,
        )


def _add_directions(proto: pb.Model, bundle: Bundle) -> None:
    for name, learned in sorted(bundle.directions.items()):
        facts = learned.facts
        direction = proto.directions.add(
            name=name,
            changes=facts.changes,
            truncation_psi=facts.options.truncation_psi,
            truncation_cutoff=facts.options.truncation_cutoff,
            class_index=facts.options.class_index,
            first_row=facts.first_row,
            end_row=facts.end_row,
            measured=facts.measured,
            digest=learned.digest,
        )
        for measured in facts.strengths:
            direction.strengths.add(
                strength=measured.strength,
                share=_estimate(measured.share),
                shown=_estimate(measured.shown),
                unchanged=_estimate(measured.unchanged),
                miou=_estimate(measured.miou),
            )


def _estimate(estimate: Estimate) -> pb.Estimate:
    return pb.Estimate(**msgspec.structs.asdict(estimate))


def _proto_from_certificate(certificate: Certificate) -> pb.Certificate:
    return pb.Certificate(
        confidence=certificate.confidence,
        reviewed=len(certificate.losses),
        truncation_psi=certificate.truncation_psi,
        truncation_cutoff=certificate.truncation_cutoff,
        thresholds=[
            pb.CertifiedThreshold(
                max_uncertainty=row.threshold, upper_bound=row.upper_bound, reviewed=row.reviewed
            )
            for row in certificate.thresholds
        ],
    )
