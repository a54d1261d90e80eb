"""Optima found at several budgets: one budget's runs, and the power laws through them."""
