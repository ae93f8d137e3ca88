"""Authority: a SPIFFE Workload API server for one machine."""
