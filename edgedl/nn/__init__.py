"""Networks and layers in torch."""
