"""Templates filled: page, document, LaTeX, archive."""
