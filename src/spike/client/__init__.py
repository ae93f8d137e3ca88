"""The Python client: pooled connections to Nexus over SPIFFE mutual TLS."""
