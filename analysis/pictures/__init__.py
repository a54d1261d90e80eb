"""Answers as figures; the look is that of analysis.plots."""
