"""Differences between two versions of a dataset, and the version bump that they require."""
