"""The commands of `spike`, one module each; spike.pilot.app names them."""
