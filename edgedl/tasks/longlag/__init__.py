"""Long time lags."""
