"""Model bundles, the networks in them, and the device and precision they compute in."""
