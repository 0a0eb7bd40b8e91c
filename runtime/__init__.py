"""What goes on the device: numpy and onnxruntime, never torch."""

PART_OF = "edgedl"
