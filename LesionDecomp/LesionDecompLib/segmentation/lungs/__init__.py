"""The lungs: found by a U-Net, cleaned up in 3-D, told apart into right and left."""
