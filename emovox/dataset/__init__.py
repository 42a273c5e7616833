"""The dataset on disk: contract, writer and readers."""
