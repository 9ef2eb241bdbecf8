"""Where pairs of views come from."""
