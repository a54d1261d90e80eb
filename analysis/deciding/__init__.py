"""What a decision rests on: how flat the optimum is, serving, the stock of text, how things are counted, beliefs."""
