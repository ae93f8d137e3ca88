"""Who may do what: roles, policies, the authorization table. Pure."""
