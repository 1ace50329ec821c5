"""What comes in: sheet, checkpoint, tokens, pictures, and the plan that is made of them."""
