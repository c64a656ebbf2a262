"""Methods this one is compared with: class activation maps, VA-GAN, biomarker localization. Not needed to segment."""
