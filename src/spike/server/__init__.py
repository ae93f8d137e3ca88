"""An HTTPS server over SPIFFE mutual TLS with limits on everything a peer can spend."""
