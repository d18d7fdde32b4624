#!/bin/sh
# Installs a door on a Raspberry Pi, a Jetson, or any Debian-like machine; run again, it changes what differs.
#     sudo sh deploy/install.sh --package out/edge-recognizer_0.1.0_arm64.deb
#     sudo sh deploy/install.sh --wheel edge_recognizer-0.1.0-py3-none-any.whl
# Options:
#     --package FILE       the Debian package of `make deb`
#     --wheel FILE         the wheel instead, with what requirements.lock names, into a virtual environment
#     --models PLACE       with --wheel: a directory or address with the models, as `edge models fetch` makes them
#     --onnxruntime FILE   a wheel of onnxruntime with an accelerator (CUDA, TensorRT), in place of the usual one
#     --sha256 HASH        of that wheel; without it the wheel is refused
#     --dry-run            look at the machine, and say what would be done
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
package='' wheel='' models='' runtime='' runtime_sha256='' dry=''
environment=/opt/edge
units=/etc/systemd/system

say() { echo "install: $*"; }
warn() { echo "install: note: $*" >&2; }
fail() {
	echo "install: $*" >&2
	exit 1
}
# Does something, or says that it would.
run() {
	if [ -n "$dry" ]; then echo "install: would run: $*"; else "$@"; fi
}
# Copies a file with these rights, if what is there differs.
put() {
	if cmp -s "$2" "$3"; then return; fi
	say "writing $3"
	run install -D -m "$1" "$2" "$3"
}

while [ $# -gt 0 ]; do
	case "$1" in
	--dry-run) dry=yes ;;
	--package | --wheel | --models | --onnxruntime | --sha256)
		[ $# -ge 2 ] || fail "$1 needs a value"
		case "$1" in
		--package) package=$2 ;;
		--wheel) wheel=$2 ;;
		--models) models=$2 ;;
		--onnxruntime) runtime=$2 ;;
		--sha256) runtime_sha256=$2 ;;
		esac
		shift
		;;
	-h | --help)
		sed -n '2,/^set -eu/{/^#/s/^# \{0,1\}//p}' "$0"
		exit 0
		;;
	*) fail "unknown option $1; see --help" ;;
	esac
	shift
done

# What the machine is.
[ -n "$dry" ] || [ "$(id -u)" = 0 ] || fail "this needs root; or look first with --dry-run"
command -v dpkg >/dev/null || fail "this is no Debian-like system; deploy/README.md has the steps by hand"
arch=$(dpkg --print-architecture)
case "$arch" in
amd64 | arm64) ;;
*) fail "$arch: there are packages for amd64 and arm64 only; a Raspberry Pi needs the 64-bit system" ;;
esac
board=$({ tr -d '\0' </proc/device-tree/model; } 2>/dev/null || true)
python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
say "${board:-a machine} ($arch), Python ${python:-none}"
[ -n "$python" ] || fail "python3 is missing: apt-get install python3"
case "$package:$wheel" in
:) fail "name the --package or the --wheel" ;;
:*) kind=wheel ;;
*:) kind=package ;;
*) fail "either --package or --wheel" ;;
esac
for file in "$package" "$wheel" "$runtime"; do
	[ -z "$file" ] || [ -f "$file" ] || fail "$file is not there"
done
if [ "$kind" = package ]; then
	is=$(dpkg-deb --field "$package" Architecture)
	[ "$is" = "$arch" ] || fail "$package is for $is, this machine is $arch: make deb ARCH=$arch"
	needs=$(dpkg-deb --field "$package" Depends | sed -n 's/.*python3 (>= \([0-9.]*\)~).*/\1/p')
	[ -z "$needs" ] || [ "$needs" = "$python" ] ||
		fail "$package is for Python $needs, here is $python: make deb ARCH=$arch DOOR_PYTHON=$python, or --wheel"
	[ -z "$runtime" ] || fail "--onnxruntime goes with --wheel: the package brings its own"
else
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
		fail "Python 3.11 or newer is needed, here is $python"
	python3 -c 'import ensurepip, venv' 2>/dev/null ||
		fail "python3-venv is missing: apt-get install python3-venv"
fi
if [ -n "$runtime" ]; then
	[ -n "$runtime_sha256" ] || fail "--onnxruntime needs its --sha256, as who made it tells it"
	echo "$runtime_sha256  $runtime" | sha256sum --check --status || fail "$runtime has another sha256"
fi
free_mb=$(df --output=avail -m /opt 2>/dev/null | tail -n 1 | tr -d ' ')
[ "${free_mb:-9999}" -ge 700 ] || fail "/opt has $free_mb MB free, 700 are needed"
memory_mb=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
[ "$memory_mb" -ge 450 ] || warn "$memory_mb MB of memory: a door takes about 160, and the system its own"
if [ "$(timedatectl show --property=NTPSynchronized --value 2>/dev/null)" = no ]; then
	warn "nothing sets the clock: install systemd-timesyncd or chrony"
fi

# The program.
if [ "$kind" = package ]; then
	version=$(dpkg-deb --field "$package" Version)
	installed=$(dpkg-query --show --showformat '${Status} ${Version}' edge-recognizer 2>/dev/null || true)
	if [ "$installed" = "install ok installed $version" ]; then
		say "edge-recognizer $version is installed"
	else
		run apt-get install --yes --no-install-recommends "$(realpath "$package")"
	fi
else
	id edge >/dev/null 2>&1 || run useradd --system --home-dir /var/lib/edge --groups video edge
	[ -d /var/lib/edge ] || run install -d -o edge -g edge -m 0700 /var/lib/edge
	[ -x "$environment/bin/python" ] || run python3 -m venv "$environment"
	# The same files again change nothing.
	stamp=$(cat "$here/requirements.lock" "$wheel" | sha256sum | cut -d ' ' -f 1)
	if [ "$(cat "$environment/.installed" 2>/dev/null)" = "$stamp" ]; then
		say "$(basename "$wheel") is installed"
	else
		run "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
			--only-binary :all: -r "$here/requirements.lock"
		run "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
			--force-reinstall "$wheel"
		run "$environment/bin/python" -m pip uninstall --quiet --quiet --yes setuptools
		run sh "$here/deploy/slim" "$environment"
		[ -n "$dry" ] || echo "$stamp" >"$environment/.installed"
	fi
	for unit in edge.service edge-sync.service edge-sync.timer; do
		put 0644 "$here/systemd/$unit" "$units/$unit"
	done
	put 0755 "$here/systemd/edge-command" /usr/local/sbin/edge-command
	if [ ! -e /etc/edge/edge.toml ]; then
		run install -D -m 0640 -g edge "$here/deploy/debian/edge.toml" /etc/edge/edge.toml
	fi
	run runuser -u edge -- env STATE_DIRECTORY=/var/lib/edge ${models:+"EDGE_MODELS_MIRROR=$models"} \
		"$environment/bin/edge" models fetch yunet sface-int8
fi
if [ -n "$runtime" ]; then
	if [ "$(cat "$environment/.onnxruntime" 2>/dev/null)" = "$runtime_sha256" ]; then
		say "$(basename "$runtime") is installed"
	else
		run "$environment/bin/python" -m pip uninstall --quiet --yes onnxruntime
		run "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$runtime"
		[ -n "$dry" ] || echo "$runtime_sha256" >"$environment/.onnxruntime"
	fi
fi

# What this board needs beside.
case "$board" in
*Raspberry*)
	if command -v rpicam-vid >/dev/null; then
		put 0644 "$here/systemd/boards/csi-camera.conf" "$units/edge.service.d/csi-camera.conf"
		say 'a CSI camera: command = ["rpicam-vid", "-n", "-t", "0", "--codec", "mjpeg", "-o", "-"]'
	fi
	;;
*NVIDIA* | *Jetson*)
	put 0644 "$here/systemd/boards/nvidia.conf" "$units/edge.service.d/nvidia.conf"
	[ -n "$runtime" ] || warn "without --onnxruntime the models run on the processor; deploy/BOARDS.md, Jetson"
	;;
esac
ls /dev/video* >/dev/null 2>&1 || warn "no /dev/video*: no USB camera is plugged in"

if [ -d /run/systemd/system ]; then
	run systemctl daemon-reload
	run systemctl enable edge.service
	run systemctl try-restart edge.service
fi
say "set camera and broker in /etc/edge/edge.toml; then: edge-command doctor, systemctl restart edge"
