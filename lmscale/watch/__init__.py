"""What is seen of a sweep while it runs, and when it may stop."""
