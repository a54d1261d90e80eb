"""The commands of lmscale.cli, a file a subject. Each imports what it needs, when it runs."""
