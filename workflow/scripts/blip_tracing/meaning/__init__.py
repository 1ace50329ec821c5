"""What numbers mean: effects, roles, statistics, replication; no torch."""
