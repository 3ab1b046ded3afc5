"""Segment images with the model beside this file: python infer.py IMAGE...

Writes IMAGE_mask.png to the working folder. Needs only onnxruntime, numpy and Pillow.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
if {"-h", "--help"} & set(sys.argv[1:]):
    sys.stdout.write(__doc__)
    sys.exit()
paths = [Path(name) for name in sys.argv[1:]]
if not paths or len({path.stem.lower() for path in paths}) < len(paths):
    sys.exit("usage: python infer.py IMAGE... (one or more images, with distinct names)")
for path in paths:
    if Path(f"{path.stem}_mask.png").exists():
        sys.exit(f"{path.stem}_mask.png exists already. Move it, or work in another folder")
session = onnxruntime.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])
labels = json.loads((HERE / "labels.json").read_text())
for path in paths:
    try:
        image = ImageOps.exif_transpose(Image.open(path))
        if image.mode[0] in "IF":
            sys.exit(f"{path}: the image mode is {image.mode}; expected 8 bits. Convert the image")
        rgb = np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 255
    except (OSError, SyntaxError, ValueError) as error:
        sys.exit(f"{path}: cannot read this image ({error})")
    answer = session.run(None, {"images": rgb})[0][0]
    ids = answer if answer.ndim == 2 else answer.argmax(0)
    mask = Image.fromarray(ids.astype(np.uint8))
    mask.putpalette([value for label in labels for value in label["colour"]])
    mask.save(f"{path.stem}_mask.png")
    sys.stdout.write(f"{path} -> {path.stem}_mask.png\n")
