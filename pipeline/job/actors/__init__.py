"""Workers as Ray actors: where they run, and what becomes of them."""
