"""A finished run that is asked: lmscale.inference is its front door."""
