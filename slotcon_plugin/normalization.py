"""How pixels are normalised: by the statistics of ImageNet that torchvision's models made the custom."""

# of RGB photos in [0, 1]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
