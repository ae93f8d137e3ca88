"""Storage: one small protocol, and engines that know nothing of secrets, policies or keys."""
