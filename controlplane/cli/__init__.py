"""The `forebay` command: a client of the REST API for a terminal. Knows nothing of the server's code."""
