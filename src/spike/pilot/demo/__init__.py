"""The demo: it tells the story of SPIKE and checks every claim from outside the process it is about."""
