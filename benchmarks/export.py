"""Latency of an exported network: onnxruntime and OpenVINO against eager PyTorch, int8 against float32.

All do the same work, normalisation, resizing and argmax included, and take turns on one image. A ratio is one of
medians; below 1 the first is faster. Give a folder that `segdistill export RUN --int8` wrote, with `--to openvino` for
OpenVINO, and its run. OpenVINO computes what is not int8 in the precision that it chooses for the processor.

    python benchmarks/export.py runs/mine runs/mine/export --size 512 1024 --out benchmarks/results/export.json
"""

import argparse
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import onnxruntime
import torch

from segdistill.run.environment import describe_environment
from segdistill.run.evaluation.profile import measure_latency
from segdistill.run.networks import load_run_model
from segdistill.run.shipping.onnx_file import Deployed, OnnxNetwork
from segdistill.run.shipping.openvino.file import OpenVinoAlone


class Session(torch.nn.Module):
    """The file's own answer: class ids are not turned into logits again."""

    def __init__(self, network: OnnxNetwork) -> None:
        super().__init__()
        self.session, self.multiple_of = network.session, network.multiple_of

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.session.run(None, {"images": images.numpy()})[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, nargs=2, default=[512, 1024])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    plain = OnnxNetwork(a.folder / "model.onnx", a.threads)
    cases: dict[str, torch.nn.Module] = {
        "pytorch": Deployed(load_run_model(a.run), plain.info),
        "onnx": Session(plain),
    }
    if (a.folder / "model.int8.onnx").is_file():
        cases["int8"] = Session(OnnxNetwork(a.folder / "model.int8.onnx", a.threads))
    for name, file in (("openvino", "model.xml"), ("openvino int8", "model.int8.xml")):
        if (a.folder / file).is_file():
            cases[name] = OpenVinoAlone(a.folder / file, tuple(a.size), plain.in_channels)
    found = measure_latency(cases, tuple(a.size), a.repeats, seconds=float("inf"))
    pairs = [("onnx", "pytorch"), ("int8", "onnx"), ("int8", "pytorch"), ("openvino", "onnx")]
    pairs += [("openvino int8", "openvino"), ("openvino int8", "int8")]
    ratios = {
        f"{x} / {y}": found[x].median / found[y].median for x, y in pairs if {x, y} <= found.keys()
    }
    sizes = " ".join(map(str, a.size))
    result = {
        "command": f"python benchmarks/export.py {a.run} {a.folder} --size {sizes} --repeats {a.repeats} "
        f"--threads {a.threads}",
        "milliseconds": {name: asdict(latency) for name, latency in found.items()},
        "ratio_of_medians": ratios,
        "onnxruntime": onnxruntime.__version__,
        "openvino": version("openvino") if "openvino" in cases else None,
        "environment": describe_environment(torch.device("cpu")),
    }
    for name, latency in found.items():
        print(f"{name:13s} {latency.median:9.2f} ms (90th percentile {latency.p90:.2f})")
    print("  ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    if a.out:
        a.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
