"""Building: plan, shards, resume, and the finished dataset."""
