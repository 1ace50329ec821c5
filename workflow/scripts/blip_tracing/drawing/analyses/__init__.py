"""Figures of what several experiments together say, a module an analysis."""
