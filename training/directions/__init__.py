"""Proposals: which w are worth generating for a rare predicate, learned from a bundle."""
