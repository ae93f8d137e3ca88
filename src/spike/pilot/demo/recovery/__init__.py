"""The chapter `recovery`: everything that can be lost is lost once, and comes back, or is said to be gone."""
