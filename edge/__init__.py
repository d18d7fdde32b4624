"""Face recognition daemon for an unattended door camera.

Libraries read parts of the environment once, when they are imported. What they have to find there is set
here, before any of them is.
"""

import os

__version__ = "0.1.0"

MAX_DECODED_PIXELS = 1 << 26
"""64 Mpx: above any camera or phone, far below what fills the memory of a small board."""

# onnxruntime 1.32 otherwise keeps a device id and a database below ~/.cache and sends what it
# counts to its maker.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

for _name, _value in {
    "OPENCV_LOG_LEVEL": "SILENT",  # decoders print URLs with passwords; errors are ours to report
    "OPENCV_FFMPEG_LOGLEVEL": "-8",  # AV_LOG_QUIET of libavutil/log.h
    "OPENCV_FFMPEG_IS_THREAD_SAFE": "1",  # no lock around opening: a dead camera holds up no other one
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_DECODED_PIXELS),
    # No list of protocols: one that names `file` for clips would let a camera's playlist read files of this
    # device, which ffmpeg by itself refuses.
    "OPENCV_FFMPEG_CAPTURE_OPTIONS": "rtsp_transport;tcp",
    # Seconds. A stalled USB camera gives its device back before the stall limit of 3 s; OpenCV waits longer.
    "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "2",
}.items():
    os.environ.setdefault(_name, _value)
