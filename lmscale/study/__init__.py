"""What a person writes of a study, in parts: lmscale.config gathers them. No framework."""
