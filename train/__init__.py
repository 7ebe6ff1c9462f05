"""Training of the networks: pictures in, a checkpoint and its PSNR out."""
