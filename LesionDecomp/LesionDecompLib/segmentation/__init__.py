"""From a CT to its lungs, its lesion heat and its lesions."""
