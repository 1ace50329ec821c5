"""Makes the workflow's scripts and their library importable, as Snakemake does for its jobs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))
