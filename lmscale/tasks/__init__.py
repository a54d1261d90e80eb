"""Tasks that small models can get better at, made from a seed with known answers and chance levels (docs/tasks.md)."""
