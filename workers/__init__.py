"""The node agent: makes one node run what its NodeSpec says, and reports what it sees."""

__version__ = "0.1.0"
