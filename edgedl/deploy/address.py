"""Where a bundle is deployed: a device that a proof may be asked of, too."""

from exporters.targets.address import Address as Address
