"""To other machines: a device over ssh, a site without a network, a page in the visitor's browser."""
