"""What a CT is: voxels in HU and their place in the patient, and what may be wrong with them. No files, no torch."""
