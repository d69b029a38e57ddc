"""Who uses and pays for what: teams, and which deployments are theirs."""
