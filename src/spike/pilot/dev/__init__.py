"""`spike dev`: every part on this machine, each a process of its own, and the demo that plays on it."""
