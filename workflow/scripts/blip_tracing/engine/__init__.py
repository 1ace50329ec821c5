"""Runs, interventions, scores and controls of a batch of examples."""
