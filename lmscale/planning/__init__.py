"""What a plan needs before anything is spent: grids, order, layouts, memory, time, money."""
