"""Who may do what: roles, policies, the authorization table, the access list. Pure: no I/O."""
