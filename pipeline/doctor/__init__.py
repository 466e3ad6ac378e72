"""What a machine or a cluster has for a job, what is wrong with it, and the command that mends it."""
