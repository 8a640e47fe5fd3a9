"""Score maps of images of any size, exactly those of the whole image, in bounded memory."""
