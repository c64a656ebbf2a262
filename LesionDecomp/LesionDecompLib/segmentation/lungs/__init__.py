"""The lungs: found by a U-Net, cleaned up in 3-D, distinguished into right and left."""
