"""Figures, in one look."""
