"""Face recognition daemon for an unattended door camera.

Libraries read parts of the environment once, when they are imported. What they have to find there is set
here, before any of them is.
"""

import os

__version__ = "0.1.0"

MAX_DECODED_PIXELS = 1 << 27
"""128 Mpx: above any camera or phone. `camera.photo` bounds each format and use further."""

VIDEO_FORMATS = "rtsp,mpjpeg,mjpeg,h264,hevc,m4v,mpegts,mpeg,mpegvideo,mov,mp4,matroska,webm,avi,flv,ogg,asf"
"""Demuxers of FFmpeg (`ffmpeg -demuxers`) that may be used for streams and clips."""

# onnxruntime 1.32 otherwise keeps a device id and a database below ~/.cache and sends what it
# counts to its maker.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# pydantic otherwise runs whatever package says that it is a plugin, and shows it every value that is checked.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"

for _name, _value in {
    "OPENCV_LOG_LEVEL": "SILENT",  # decoders print URLs with passwords; errors are ours to report
    "OPENCV_FFMPEG_LOGLEVEL": "-8",  # AV_LOG_QUIET of libavutil/log.h
    "OPENCV_FFMPEG_IS_THREAD_SAFE": "1",  # no lock around opening: a dead camera holds up no other one
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_DECODED_PIXELS),
    # Formats that hold video. Others (hls, dash, sdp, concat) name places that FFmpeg would open: other
    # servers, files of this device. No list of protocols: one with `file` for clips would do so for streams.
    "OPENCV_FFMPEG_CAPTURE_OPTIONS": f"rtsp_transport;tcp|format_whitelist;{VIDEO_FORMATS}",
    # Seconds. A stalled USB camera gives its device back before the stall limit of 3 s; OpenCV waits longer.
    "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "2",
}.items():
    os.environ.setdefault(_name, _value)
