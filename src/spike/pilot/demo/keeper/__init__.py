"""The chapter `keeper`: the root key comes back by itself, and what is old, foreign or lying is not believed."""
