"""The prediction service: Flask over the runtime."""

PART_OF = "edgedl"
