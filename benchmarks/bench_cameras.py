# SPDX-License-Identifier: Apache-2.0
"""What a camera costs the observer: from 640x480 in any encoding to 128x128, and its checks.

    python benchmarks/bench_cameras.py               # some ten seconds
    python benchmarks/bench_cameras.py --calls 20    # fewer of each

Times are those of the processor, all threads together, the median of many calls on different
noise: what other processes do does not count. `tick` is what a control tick costs for one image:
convert, look for black, make the message. `arrival` is what each image costs when it comes: check
its bytes, compare it with the one before. Not in here: what DDS and rclpy take to hand it over.
`bgr8_library_ms` is the conversion by rosbags-image, to compare with what the observer does itself.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from PIL import Image as PillowImage
from rich.console import Console
from rich.table import Table
from rosbags.image import message_to_cvimage
from std_msgs.msg import Header

from rlif_policy.camera_checks import CameraFeed, CameraLimits
from rlif_policy.image_encodings import ENCODINGS, pixel_bytes
from rlif_policy.images import CameraSpec, PackedImage, Picture, RawImage, check_image, to_rgb
from rlif_policy.observer_messages import image_message

RESULTS = Path(__file__).with_name("results") / "cameras.json"
WIDTH, HEIGHT, OUT = 640, 480, 128
LIMITS = {"rgb8_tick_ms": 1.5}
SQUARE = (80, 0, 480, 480)  # a region of interest


def raw_image(encoding: str, rng: np.random.Generator) -> RawImage:
    step = pixel_bytes(encoding) * WIDTH
    rows = HEIGHT * 3 // 2 if encoding.startswith("nv") else HEIGHT
    if encoding == "32FC1":
        data = rng.uniform(0.0, 3.0, WIDTH * rows).astype("<f4").view(np.uint8)
    else:
        data = rng.integers(0, 256, step * rows, dtype=np.uint8)
    return RawImage(WIDTH, HEIGHT, encoding, step, data)


def packed_image(kind: str, rng: np.random.Generator) -> PackedImage:
    """As smooth as a camera's: noise would be no fair file."""
    small = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    PillowImage.fromarray(small).resize((WIDTH, HEIGHT)).save(stream, kind)
    return PackedImage.of(kind.lower(), np.frombuffer(stream.getvalue(), np.uint8))


def milliseconds(call: Callable[[Picture], Any], pictures: list[Picture], calls: int) -> float:
    """The median of `calls` calls."""
    call(pictures[0])  # a library is loaded
    times = []
    for picture in itertools.islice(itertools.cycle(pictures), calls):
        start = time.process_time_ns()
        call(picture)
        times.append(time.process_time_ns() - start)
    return round(median(times) / 1e6, 3)


def by_library(picture: Picture) -> np.ndarray:
    """As `to_rgb`, but for who exchanges red and blue."""
    raw = cast(RawImage, picture)
    message: Any = SimpleNamespace(
        height=HEIGHT, width=WIDTH, encoding=raw.encoding, is_bigendian=False, step=raw.step,
        data=raw.data,
    )  # fmt: skip
    pixels = PillowImage.fromarray(message_to_cvimage(message, "rgb8"))
    return np.asarray(pixels.resize((OUT, OUT), PillowImage.Resampling.BOX))


def measure(calls: int) -> dict[str, Any]:
    """All keys of benchmarks/results/cameras.json."""
    rng = np.random.default_rng(0)
    spec = CameraSpec("wrist", WIDTH, HEIGHT, OUT, OUT, (), (0.2, 2.0))
    cut = CameraSpec("wrist", WIDTH, HEIGHT, OUT, OUT, SQUARE, (0.2, 2.0))
    sources: dict[str, Callable[[], Picture]] = {
        name: lambda n=name: raw_image(n, rng) for name in ENCODINGS
    }
    sources |= {k.lower(): lambda k=k: packed_image(k, rng) for k in ("JPEG", "PNG")}
    pictures = {name: [make() for _ in range(4)] for name, make in sources.items()}
    feed = CameraFeed(spec, CameraLimits())

    def tick(picture: Picture) -> None:
        feed.convert(picture)
        image_message(feed.pixels, Header())

    stamps = itertools.count(1)

    def arrival(picture: Picture) -> None:
        check_image(picture, spec)
        feed.watch.arrived(next(stamps) * 33_000_000, time.monotonic_ns(), picture.data)

    same = [pictures["rgb8"][0]]
    return {
        "size": f"{WIDTH}x{HEIGHT} to {OUT}x{OUT}",
        "rgb8_tick_ms": milliseconds(tick, pictures["rgb8"], calls),
        "bgr8_library_ms": milliseconds(by_library, pictures["bgr8"], calls),
        "rgb8_region_ms": milliseconds(lambda p: to_rgb(p, cut), pictures["rgb8"], calls),
        "rgb8_arrival_ms": milliseconds(arrival, pictures["rgb8"], calls),
        "rgb8_arrival_frozen_ms": milliseconds(arrival, same, calls),
        "jpeg_head_ms": milliseconds(
            lambda p: PackedImage.of("jpeg", p.data), pictures["jpeg"], calls
        ),
        "convert_ms": {
            name: milliseconds(lambda p: to_rgb(p, spec), some, calls)
            for name, some in pictures.items()
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=200, help="of each (%(default)s)")
    arguments = parser.parse_args()
    results = measure(arguments.calls)
    table = Table("quantity", "value", "to reach", title="Cameras")
    rows = {k: v for k, v in results.items() if not isinstance(v, dict)}
    rows |= {f"convert {name}, ms": value for name, value in results["convert_ms"].items()}
    for name, value in rows.items():
        limit = LIMITS.get(name)
        table.add_row(name, str(value), "" if limit is None else f"at most {limit:g}")
    Console().print(table)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0 if all(results[name] <= limit for name, limit in LIMITS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
