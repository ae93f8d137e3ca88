"""Messages and service of the Workload API, generated from workload.proto."""
