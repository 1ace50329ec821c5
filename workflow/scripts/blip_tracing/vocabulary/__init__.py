"""What can be asked: sites, corruptions, metrics, runs, experiments; no torch, no files."""
