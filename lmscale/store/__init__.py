"""Files and checkpoints that are whole or absent, in a folder or an object store."""
