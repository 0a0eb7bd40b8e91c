"""What runs on a device while a bundle is deployed there: Python's standard library alone.

The modules are sent as text over ssh, see `edgedl.deploy.connection`. They parse under older versions of Python than
edgedl needs, so that such a version is reported and not met as a syntax error. A device that has edgedl already does
not need them installed, and neither does one that has nothing.
"""
