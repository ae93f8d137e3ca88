"""SPIFFE: identifiers, X.509-SVIDs, the Workload API client, TLS contexts that follow it."""
