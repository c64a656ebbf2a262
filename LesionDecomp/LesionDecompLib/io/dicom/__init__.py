"""DICOM: CT series found, checked and read onto one grid; DICOM segmentations written."""
