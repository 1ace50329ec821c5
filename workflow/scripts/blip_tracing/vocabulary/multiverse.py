"""What can be varied over a multiverse beside the experiments: quantities, nulls, thresholds."""

from __future__ import annotations

# What a change is measured in, each told towards what the intervention is to bring.
QUANTITIES = (
    "probability_change", "log_probability_change", "log_odds_change", "logit_difference_change",
    "normalised",
)  # fmt: skip
# Against the reference alone, or beyond what an unrelated example's state does too.
WITHOUT, BEYOND = "none", "unrelated"
NULLS = (WITHOUT, BEYOND)
# The analysis's own name, by which its rules and files are called.
MULTIVERSE = "multiverse"
