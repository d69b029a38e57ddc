"""`python -m controlplane.cli`, without anything installed."""

from controlplane.cli.main import main

main()
