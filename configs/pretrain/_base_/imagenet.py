"""The training photos of ImageNet-1K."""

data_root = "data/imagenet"
photos = dict(type="ImageFolder", root="${data_root}/train")
