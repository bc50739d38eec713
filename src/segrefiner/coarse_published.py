from scipy.ndimage import binary_dilation


def published_coarse(mask, random, *, iou=0.8):
    return binary_dilation(mask, iterations=int(random.integers(1, 6)))
