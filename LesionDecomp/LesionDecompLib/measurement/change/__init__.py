"""Change between two scans of one patient: lungs registered, every lesion voxel labeled, change measured by region."""
