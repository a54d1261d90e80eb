"""lmscale: plan, train, fit and answer scaling-law experiments on language models."""

__version__ = "0.1.0"
