"""From the rows of a chunk to their answers."""
