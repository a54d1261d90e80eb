"""What is measured of a model beside its held-out loss (lmscale.evaluate)."""
