"""One job: begun, handed out to workers, watched, put together. Ray is in `actors/` alone."""
