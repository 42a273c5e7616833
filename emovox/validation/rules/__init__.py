"""Rules of the contract, listed in rules.toml: functions of those that are not in SQL."""
