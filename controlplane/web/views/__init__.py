"""One module a page family. A view parses, asks access.py, calls one service, and renders."""
