"""What several experiments together say: a module each, as `vocabulary.analyses` names them."""
