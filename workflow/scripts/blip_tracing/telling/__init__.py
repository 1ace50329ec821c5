"""What a run tells, as data: words, stories, maps; nothing here draws."""
