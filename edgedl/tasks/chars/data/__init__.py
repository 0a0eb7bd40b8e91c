"""The texts that characters are learnt from."""
