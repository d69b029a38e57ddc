"""Weights on the node's disk: what lies where, whether it is whole, and what is brought here ahead of its use."""
