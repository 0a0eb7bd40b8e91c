"""What an operator sees: probes, metrics and logs."""
