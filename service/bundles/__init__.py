"""The bundles that a service holds: how they are opened, proven, asked, replaced and let go."""
