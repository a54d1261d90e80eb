"""Groups of runs and groups of text side by side: families, slices, transfer, translation, rounded weights, recall."""
