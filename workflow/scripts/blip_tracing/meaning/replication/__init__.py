"""A run held against published numbers."""
