"""What a request depends on of all that is made after an export, in one bundle: its learned_id."""

from bundle.calibration import digest_of_thresholds, find_calibration
from bundle.manifest import Manifest
from bundle.open import Bundle
from engines.errors import BundleLacks
from engines.sampling import LatentOptions, key_from_options
from labelmint.learned import (
    NO_CALIBRATION,
    CalibrationDigests,
    dependencies_of_query,
    learned_id_from_digests,
)
from labelmint.v1 import label_service_pb2 as pb


def learned_id_of_query(proto: pb.SampleQuery, bundle: Bundle, options: LatentOptions) -> str:
    """The learned_id of a request whose names and calibration the bundle has.

    Raises BundleLacks when the request is pinned to another one.
    """
    needed = dependencies_of_query(proto)
    calibration = None
    if needed.thresholds or needed.content:
        calibration = calibration_digests(bundle.manifest, options)
    found = learned_id_from_digests(
        needed,
        {needed.proposal: bundle.proposals[needed.proposal].digest} if needed.proposal else {},
        {name: bundle.directions[name].digest for name in needed.directions},
        calibration or NO_CALIBRATION,
    )
    if proto.learned_id not in ("", found):
        raise BundleLacks(
            f"learned_id is {proto.learned_id[:80]}; that of {needed} of this bundle is "
            f"{found or 'empty'}: {needed.replaced}; start a new stream without learned_id, or "
            "serve the bundle as it was"
        )
    return found


def calibration_digests(manifest: Manifest, options: LatentOptions) -> CalibrationDigests | None:
    """What the calibration for these sampling options is; None without one."""
    found = find_calibration(manifest, key_from_options(options))
    if found is None:
        return None
    content = found.content.file.sha256 if found.content is not None else ""
    return CalibrationDigests(digest_of_thresholds(found), content)
