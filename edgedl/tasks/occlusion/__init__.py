"""Which part of a picture an answer depends on."""
