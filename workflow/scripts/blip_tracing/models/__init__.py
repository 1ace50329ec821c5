"""Models that can be traced: the only folder that knows transformers."""
