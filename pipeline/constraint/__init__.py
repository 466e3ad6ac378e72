"""What an answer may say: schemas, grammars, choices, and the guides that keep to them."""
