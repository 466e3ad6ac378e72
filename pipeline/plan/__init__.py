"""Before the night: what a job can be known to need, and the rows of it that are tried out."""
