#!/bin/sh
# mmdebstrap's hook after the packages are extracted and before they are installed; $1 is the tree.
# Puts this machine's programs into it, with their libraries and dynamic loader at the places that are
# compiled into them.
set -e
root=$1
# A tree that has such libraries of its own is left alone: it is installed by emulation, which only takes longer.
[ ! -e "$root/usr/lib/x86_64-linux-gnu" ] || exit 0
cp -R -P "${0%/*}/native" "$root/.treeline"
ln -s /.treeline/lib "$root/usr/lib/x86_64-linux-gnu"
# As on a machine of this architecture: packages look whether /usr is merged.
[ -e "$root/lib64" ] || ln -s usr/lib64 "$root/lib64"
mkdir -p "$root/usr/lib64"
ln -s /.treeline/lib64/ld-linux-x86-64.so.2 "$root/usr/lib64/ld-linux-x86-64.so.2"
