"""From logits to a token, or to one of a few labels."""
