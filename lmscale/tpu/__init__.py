"""TPU slices that are not here: their chips, what a compiled step moves on them, the least time it needs."""
