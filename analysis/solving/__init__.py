"""How laws are fitted: coordinates and derivatives, the batched solver, what an optimum tells and what it cannot."""
