"""The same proof elsewhere: a target runs the graphs of a bundle, and this machine compares its answers."""
