"""What is decided from the fleet and its load together; gateway and telemetry below know nothing of each other."""
