"""The Keeper: holds one share of the root key in memory, and nothing else."""
