"""Files: CT volumes, lung masks and DICOM series read; images and DICOM segmentations written, whole or not at all."""
