"""Files of every kind to rows that a fit may use; none is trusted."""
