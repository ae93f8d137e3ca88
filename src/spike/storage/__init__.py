"""The storage protocol and its engines; nothing here knows of secrets, policies or keys."""
