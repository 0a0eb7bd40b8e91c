"""The timer of Jaeger's tutorial."""
