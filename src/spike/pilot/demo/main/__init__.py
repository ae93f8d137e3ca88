"""The chapter `main`: from the first secret to its return after everything was killed."""
