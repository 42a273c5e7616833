"""The dataset on disk: its schema, and how its files are written and read."""
