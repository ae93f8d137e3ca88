"""Messages of the HTTP contract, read and written as Go does it, and their validation."""
