"""Validation of a dataset against the contract, rule by rule, and its report formats."""
