"""Digests of what is learned into a bundle after its export, under names that may be used again."""

import hashlib

import msgspec

from bundle.manifest import DirectionFacts, ProposalFacts


def digest_of_facts(facts: ProposalFacts | DirectionFacts) -> str:
    """SHA-256 of all facts, the hash of the file among them, as 64 hexadecimal digits."""
    return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()
