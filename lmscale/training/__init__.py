"""What stands around the loop of lmscale.train: lanes, state, compiled programs, the numbers of each call."""
