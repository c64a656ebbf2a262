"""What is measured on a segmented CT: volumes, densities, lesion places, and lesions at any threshold."""
