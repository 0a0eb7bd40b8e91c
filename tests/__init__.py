"""The tests; a package, so that no other package of this name is found before it."""
