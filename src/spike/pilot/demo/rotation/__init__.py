"""The chapter `rotation`: keys replaced under load, through a kill, taken back, finalized, and in an emergency."""
