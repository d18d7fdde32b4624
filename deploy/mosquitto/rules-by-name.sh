#!/bin/sh
# The access rules with each device by its name, for mosquitto 2.1: it takes no slash in the place of %u, and with
# `acl` as it is denies devices everything.
#
#     sh rules-by-name.sh acl hq/door-03 hq/door-04 >/etc/mosquitto/edge.acl
set -eu
acl=$1
shift
grep -v '^pattern .*%u' "$acl"
for door; do
    printf '\nuser %s\n' "$door"
    sed -n "s|^pattern \(.*\)%u|topic \1$door|p" "$acl"
done
