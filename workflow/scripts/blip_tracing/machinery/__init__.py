"""What any workflow needs; it knows nothing of BLIP."""
