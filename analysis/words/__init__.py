"""Answers as text that a person reads in one look, and as JSON."""
