"""From text to batches: sources, tasks, prepare (the only two that load seqio), writer and shards, loader."""
