"""What scale does to tasks; analysis.emergence gathers it."""
