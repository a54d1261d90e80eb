"""What the models of lmscale.models and the objectives of lmscale.objectives are made of."""
