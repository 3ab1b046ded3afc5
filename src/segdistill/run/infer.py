"""Segment images with the model beside this file: python infer.py IMAGE...

Writes IMAGE_mask.png to the working folder. Needs onnxruntime, numpy and Pillow, nothing else.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
session = onnxruntime.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])
labels = json.loads((HERE / "labels.json").read_text())
for path in map(Path, sys.argv[1:]):
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    rgb = np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 255
    answer = session.run(None, {"images": rgb})[0][0]
    ids = answer if answer.ndim == 2 else answer.argmax(0)
    mask = Image.fromarray(ids.astype(np.uint8))
    mask.putpalette([value for label in labels for value in label["colour"]])
    mask.save(f"{path.stem}_mask.png")
